//! The production driver: one io_uring per core.
pub(crate) mod fs;
pub(crate) mod net;

use crate::time::Instant;

pub(crate) struct UringDriver {}

impl UringDriver {
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
}

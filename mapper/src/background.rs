//! What the background of one core may do: how many operations a second, so that initiators hardly notice.

use atoll_reactor::{Instant, now, sleep};
use std::cell::Cell;
use std::time::Duration;

pub(crate) struct Background {
    /// Time that one operation is given; zero: there is no limit.
    share: Duration,
    /// Objects that are half written may be completed.
    pub(crate) fill: bool,
    /// When the next one may begin.
    next: Cell<Option<Instant>>,
}

/// Time that was not used and may be made up for: what was idle may begin with a few at once.
const BURST: Duration = Duration::from_millis(20);

impl Background {
    /// `max_iops` on this core; 0: as many as it can.
    pub(crate) fn new(max_iops: u32, fill: bool) -> Background {
        Background {
            share: match max_iops {
                0 => Duration::ZERO,
                rate => Duration::from_secs(1) / rate,
            },
            fill,
            next: Cell::new(None),
        }
    }

    /// Waits until so many operations may begin.
    pub(crate) async fn pace(&self, operations: u32) {
        if self.share.is_zero() {
            return atoll_reactor::yield_now().await;
        }
        let now = now();
        let begin = match self.next.get() {
            Some(next) if next + BURST > now => next,
            _ => now,
        };
        self.next.set(Some(begin + self.share * operations));
        if begin > now {
            sleep(begin - now).await;
        }
    }
}

//! How long an operation may begin work at the store: until its time is over, or it is cancelled. Who
//! gave up waiting for it must not find it taking effect later, over what was written meanwhile: what
//! has not reached the store by then never does. What has reached it keeps its blocks until the store has ended it.

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use atoll_reactor::{Instant, now, timeout_at};
use std::future::Future;
use std::time::Duration;

/// Goes with an operation to whichever core executes it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// None: for as long as it takes.
    pub(super) deadline: Option<Instant>,
    cancel: Cancel,
}

impl Lease {
    /// For an operation whose initiator is told after `limit` that it was not answered.
    pub(crate) fn limited(limit: Duration) -> Lease {
        Lease {
            deadline: Some(now() + limit),
            cancel: Cancel::never(),
        }
    }

    /// For the volume's own work, which nobody gives up.
    pub(crate) fn unlimited() -> Lease {
        Lease {
            deadline: None,
            cancel: Cancel::never(),
        }
    }

    /// The same, and it ends when `cancel` says so.
    pub(crate) fn cancelled_by(self, cancel: Cancel) -> Lease {
        Lease { cancel, ..self }
    }

    /// Asked in the same turn as the store, or a change of the map, is begun with.
    pub(crate) fn check(&self) -> Result<()> {
        if self.deadline.is_some_and(|deadline| now() >= deadline) {
            return Err(given_up());
        }
        if self.cancel.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "it was cancelled before it reached the store",
            ));
        }
        Ok(())
    }

    /// Waits for a turn, no longer than the operation may begin: behind a store that hangs, those that
    /// were given up must not pile up with their data.
    pub(super) async fn within<T>(&self, turn: impl Future<Output = T>) -> Result<T> {
        let outcome = match self.deadline {
            Some(deadline) => timeout_at(deadline, turn).await.map_err(|_| given_up())?,
            None => turn.await,
        };
        self.check()?;
        Ok(outcome)
    }
}

fn given_up() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "it was given up before it reached the store",
    )
}

//! How long an operation may begin work at the store: until its time is over, or it is cancelled. Who
//! gave up waiting for it must not find it taking effect later, over what was written meanwhile: what
//! has not reached the store by then never does. What has reached it keeps its blocks until the store has ended it.

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use atoll_reactor::{Instant, now, timeout_at};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
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

    /// The same that also ends when `cancel` says so; refused when that is so by now, or there is no time.
    pub(crate) fn begin(limit: Duration, cancel: &Cancel) -> Result<Lease> {
        // The clock is not asked again: no time has passed since.
        if limit.is_zero() {
            return Err(given_up());
        }
        let lease = Lease {
            cancel: cancel.clone(),
            ..Lease::limited(limit)
        };
        lease.check_wanted()?;
        Ok(lease)
    }

    /// Asked in the same turn as the store, or a change of the map, is begun with.
    pub(crate) fn check(&self) -> Result<()> {
        if self.deadline.is_some_and(|deadline| now() >= deadline) {
            return Err(given_up());
        }
        self.check_wanted()
    }

    fn check_wanted(&self) -> Result<()> {
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
        let mut turn = pin!(turn);
        // Nothing was waited for: the clock, which costs more than the turn, is asked where work at the store begins.
        if let Poll::Ready(outcome) = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await {
            self.check_wanted()?;
            return Ok(outcome);
        }
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

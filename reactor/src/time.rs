//! Time as the reactor tells it: monotonic nanoseconds from the driver's clock (virtual in `sim`),
//! sleeping and time limits. The timers themselves are in `timers`.

pub(crate) use crate::timers::{TimerKey, Timers};

use crate::core::{try_with_core, with_core};
use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// A point of the reactor's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(u64);

impl Instant {
    pub fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// The clock of this core's driver. Panics outside a reactor.
pub fn now() -> Instant {
    with_core(|core| core.now())
}

/// Waits until a point of time. See [`sleep`].
pub struct Sleep {
    until: Instant,
    key: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        with_core(|core| {
            if core.now() >= self.until {
                if let Some(key) = self.key.take() {
                    core.timers.borrow_mut().remove(key);
                }
                return Poll::Ready(());
            }
            let mut timers = core.timers.borrow_mut();
            match self.key {
                Some(key) => timers.set_waker(key, cx.waker()),
                None => self.key = Some(timers.insert(self.until, cx.waker().clone())),
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            try_with_core(|core| core.timers.borrow_mut().remove(key));
        }
    }
}

pub fn sleep_until(until: Instant) -> Sleep {
    Sleep { until, key: None }
}

pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// The time limit passed first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit passed")
    }
}

impl std::error::Error for Elapsed {}

/// Awaits `future`, but not beyond `deadline`; the future is dropped then.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut limit = sleep_until(deadline);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut limit).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Awaits `future` for at most `duration`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(now() + duration, future).await
}

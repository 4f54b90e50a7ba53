//! What a core tells of its work: counters that it writes once per turn and any thread may read.
//! No histories, no rates: readers take differences.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Written by the core only, once per turn.
#[derive(Default)]
pub(crate) struct Counts {
    turns: AtomicU64,
    tasks: AtomicU64,
    submissions: AtomicU64,
    enters: AtomicU64,
    completions: AtomicU64,
    busy_nanos: AtomicU64,
    polling_nanos: AtomicU64,
    asleep_nanos: AtomicU64,
}

/// What a core did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoreStats {
    /// Rounds of its loop.
    pub turns: u64,
    /// Times that a task was run.
    pub tasks: u64,
    /// Operations handed to the ring.
    pub submissions: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    pub completions: u64,
    /// Time in turns that found work.
    pub busy: Duration,
    /// Time in turns that found none.
    pub polling: Duration,
    /// Time asleep in the kernel.
    pub asleep: Duration,
}

impl CoreStats {
    /// The part of the time that was spent on work, 0.0 to 1.0.
    pub fn busy_share(&self) -> f64 {
        let all = self.busy + self.polling + self.asleep;
        if all.is_zero() {
            return 0.0;
        }
        self.busy.as_secs_f64() / all.as_secs_f64()
    }

    /// What was added since an earlier reading.
    pub fn since(&self, earlier: &CoreStats) -> CoreStats {
        CoreStats {
            turns: self.turns.saturating_sub(earlier.turns),
            tasks: self.tasks.saturating_sub(earlier.tasks),
            submissions: self.submissions.saturating_sub(earlier.submissions),
            enters: self.enters.saturating_sub(earlier.enters),
            completions: self.completions.saturating_sub(earlier.completions),
            busy: self.busy.saturating_sub(earlier.busy),
            polling: self.polling.saturating_sub(earlier.polling),
            asleep: self.asleep.saturating_sub(earlier.asleep),
        }
    }
}

impl Counts {
    pub(crate) fn publish(&self, stats: &CoreStats) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        for (place, value) in [
            (&self.turns, stats.turns),
            (&self.tasks, stats.tasks),
            (&self.submissions, stats.submissions),
            (&self.enters, stats.enters),
            (&self.completions, stats.completions),
            (&self.busy_nanos, nanos(stats.busy)),
            (&self.polling_nanos, nanos(stats.polling)),
            (&self.asleep_nanos, nanos(stats.asleep)),
        ] {
            place.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> CoreStats {
        let get = |place: &AtomicU64| place.load(Ordering::Relaxed);
        let time = |place: &AtomicU64| Duration::from_nanos(get(place));
        CoreStats {
            turns: get(&self.turns),
            tasks: get(&self.tasks),
            submissions: get(&self.submissions),
            enters: get(&self.enters),
            completions: get(&self.completions),
            busy: time(&self.busy_nanos),
            polling: time(&self.polling_nanos),
            asleep: time(&self.asleep_nanos),
        }
    }
}

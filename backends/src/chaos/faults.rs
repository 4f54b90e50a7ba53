//! Which call gets which fault: armed for the k-th call or by probability, and the counts of calls.

use crate::ErrorKind;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// The types of operations, as faults and counts see them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    Read,
    Write,
    WriteZeroes,
    /// `sync` and `sync_all`.
    Sync,
    Delete,
    Stat,
    List,
    Copy,
    Capacity,
    /// `reserved_generations`.
    Reserved,
    /// `reserve_generations`.
    Reserve,
}

impl Op {
    pub const ALL: [Op; 11] = [
        Op::Read,
        Op::Write,
        Op::WriteZeroes,
        Op::Sync,
        Op::Delete,
        Op::Stat,
        Op::List,
        Op::Copy,
        Op::Capacity,
        Op::Reserved,
        Op::Reserve,
    ];

    fn changes_blocks(self) -> bool {
        matches!(self, Op::Write | Op::WriteZeroes | Op::Copy)
    }
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails and is not done. A failed `sync` moreover loses what it was to make durable: some
    /// of it at once, the rest at the next crash, whatever later syncs say.
    Error(ErrorKind),
    /// It is done, and reported as failed.
    ErrorAfter(ErrorKind),
    /// It stands still until [`super::ChaosHandle::release`], then goes on.
    Hang,
    /// The caller gets `Timeout` at once; it is done so much later. Operations that change an
    /// object only.
    LateLanding { after: Duration },
    /// `sync` only: reported as done, nothing made durable.
    LostSync,
    /// One bit is wrong: in what a read returns, or in what a write stores.
    Corrupt,
}

impl Fault {
    fn fits(self, op: Op) -> bool {
        match self {
            Fault::Error(_) | Fault::ErrorAfter(_) | Fault::Hang => true,
            Fault::LateLanding { .. } => op.changes_blocks() || op == Op::Delete,
            Fault::LostSync => op == Op::Sync,
            Fault::Corrupt => matches!(op, Op::Read | Op::Write),
        }
    }
}

/// What was decided for one call.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) fault: Option<Fault>,
    pub(crate) before: Duration,
    pub(crate) after: Duration,
}

#[derive(Default)]
pub(crate) struct Plan {
    calls: BTreeMap<Op, u64>,
    armed: BTreeMap<(Op, u64), Fault>,
    likely: Vec<(Op, f64, Fault)>,
    delays: BTreeMap<Op, Range<Duration>>,
}

impl Plan {
    pub(crate) fn calls(&self, op: Op) -> u64 {
        self.calls.get(&op).copied().unwrap_or(0)
    }

    pub(crate) fn arm(&mut self, op: Op, kth: u64, fault: Fault) {
        assert!(fault.fits(op), "{fault:?} does not exist for {op:?}");
        assert!(kth >= 1, "the next call is the first");
        self.armed.insert((op, self.calls(op) + kth), fault);
    }

    pub(crate) fn likely(&mut self, op: Op, probability: f64, fault: Fault) {
        assert!(fault.fits(op), "{fault:?} does not exist for {op:?}");
        assert!((0.0..=1.0).contains(&probability), "{probability}");
        self.likely.push((op, probability, fault));
    }

    pub(crate) fn delay(&mut self, op: Op, range: Range<Duration>) {
        self.delays.insert(op, range);
    }

    /// No more faults and delays; counts stay.
    pub(crate) fn clear(&mut self) {
        self.armed.clear();
        self.likely.clear();
        self.delays.clear();
    }

    /// Counts a call and decides about it.
    pub(crate) fn next(&mut self, op: Op, rng: &mut ChaCha8Rng) -> Turn {
        let call = self.calls.entry(op).or_insert(0);
        *call += 1;
        let armed = self.armed.remove(&(op, *call));
        let fault = armed.or_else(|| {
            let mut mine = self.likely.iter().filter(|(of, _, _)| *of == op);
            mine.find(|(_, probability, _)| rng.random_bool(*probability))
                .map(|(_, _, fault)| *fault)
        });
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        if let Some(range) = self.delays.get(&op).filter(|range| !range.is_empty()) {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let whole = rng.random_range(nanos(range.start)..nanos(range.end));
            let first = rng.random_range(0..=whole);
            before = Duration::from_nanos(first);
            after = Duration::from_nanos(whole - first);
        }
        Turn {
            fault,
            before,
            after,
        }
    }
}

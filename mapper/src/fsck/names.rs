//! Names of objects over all pools as one line of numbers, and the runs of names that maps and
//! tables use. A pass over a store keeps a window of that line, as large as memory allows.

use atoll_backends::{Generation, ObjectId, ObjectIndex};
use std::fmt;

pub(super) const INDEX_BITS: u32 = 40;
pub(super) const GENERATION_BITS: u32 = 52;

/// pool << 92 | generation << 40 | index. Keys of tables 50 and 70 have the same order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Name(u128);

impl Name {
    /// One above the last name.
    pub(super) const END: u128 = 1 << (32 + GENERATION_BITS + INDEX_BITS);

    /// `None` for a generation of 0 or more than 52 bits, and for an index of more than 40 bits.
    pub(super) fn new(pool: u32, generation: u64, index: u64) -> Option<Name> {
        let good =
            generation != 0 && generation >> GENERATION_BITS == 0 && index >> INDEX_BITS == 0;
        let raw = u128::from(pool) << (GENERATION_BITS + INDEX_BITS)
            | u128::from(generation) << INDEX_BITS
            | u128::from(index);
        good.then_some(Name(raw))
    }

    /// Of a place on the line; a bound of a window may have a generation of 0.
    pub(super) fn at(raw: u128) -> Name {
        Name(raw)
    }

    pub(super) fn raw(self) -> u128 {
        self.0
    }

    pub(super) fn pool(self) -> u32 {
        (self.0 >> (GENERATION_BITS + INDEX_BITS)) as u32
    }

    pub(super) fn generation(self) -> u64 {
        (self.0 >> INDEX_BITS) as u64 & ((1 << GENERATION_BITS) - 1)
    }

    pub(super) fn index(self) -> u64 {
        self.0 as u64 & ((1 << INDEX_BITS) - 1)
    }

    /// As the pool knows it; `None` is not possible for a name that `new` made.
    pub(super) fn object(self) -> Option<ObjectId> {
        let generation = Generation::new(self.generation())?;
        Some(ObjectId::new(generation, ObjectIndex::new(self.index())?))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pool, generation, index) = (self.pool(), self.generation(), self.index());
        write!(f, "pool {pool} object {generation:013x}.{index:010x}")
    }
}

/// How a run of objects is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    /// By entries of a resource's map.
    Entry,
    /// By entries that are being dropped after a shrink.
    Trimmed,
    /// By entries of a dying node.
    Dying,
    /// By a row of table 60.
    Counted,
    /// By what lies below a partial object.
    Below,
    /// By what lies below a partial object that is being dropped. The walk gives such runs beside
    /// those of the same objects as [`Role::Below`].
    DyingBelow,
    /// By a row of table 70.
    Dead,
}

impl Role {
    /// Nothing else with such a role may name the object.
    pub(super) fn is_exclusive(self) -> bool {
        self != Role::Dead
    }

    pub(super) fn is_below(self) -> bool {
        matches!(self, Role::Below | Role::DyingBelow)
    }

    /// Deleted at the store first: it may be missing, and dead.
    pub(super) fn is_dying(self) -> bool {
        matches!(self, Role::Dying | Role::DyingBelow)
    }

    /// A map has an entry for it.
    pub(super) fn is_entry(self) -> bool {
        matches!(self, Role::Entry | Role::Trimmed | Role::Dying)
    }

    /// The object must be in its pool.
    pub(super) fn must_exist(self) -> bool {
        matches!(self, Role::Entry | Role::Counted | Role::Below)
    }
}

/// Objects that are named one after the other by one node or row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) start: u128,
    pub(super) count: u64,
    /// The node of an entry, the ref of a counted object.
    pub(super) by: u64,
    pub(super) role: Role,
    pub(super) partial: bool,
    /// In a head, and written in place by it.
    pub(super) own: bool,
}

impl Run {
    pub(super) fn end(&self) -> u128 {
        self.start + u128::from(self.count)
    }

    pub(super) fn first(&self) -> Name {
        Name(self.start)
    }

    pub(super) fn holds(&self, name: u128) -> bool {
        self.start <= name && name < self.end()
    }

    /// It is made of entries of this node's map.
    pub(super) fn is_in_map_of(&self, node: u64) -> bool {
        self.role.is_entry() && self.by == node
    }

    /// By what the runs of a window are sorted.
    pub(super) fn order(&self) -> (u128, Role, u64, u64) {
        (self.start, self.role, self.by, self.count)
    }

    fn is_continued_by(&self, next: &Run) -> bool {
        self.end() == next.start
            && (self.by, self.role, self.partial, self.own)
                == (next.by, next.role, next.partial, next.own)
            && self.count.checked_add(next.count).is_some()
    }

    /// The part of it from `from` to `to`, if any.
    pub(super) fn clip(mut self, from: u128, to: u128) -> Option<Run> {
        let (start, end) = (self.start.max(from), self.end().min(to));
        if start >= end {
            return None;
        }
        self.start = start;
        self.count = u64::try_from(end - start).ok()?;
        Some(self)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Entry => write!(f, "node {}", self.by),
            Role::Trimmed => write!(f, "node {} (being trimmed)", self.by),
            Role::Dying => write!(f, "dying node {}", self.by),
            Role::Counted => write!(f, "ref {}", self.by),
            Role::Below => f.write_str("a partial record"),
            Role::DyingBelow => f.write_str("a partial record of a dying node"),
            Role::Dead => f.write_str("a dead range"),
        }
    }
}

/// Memory that a run is counted with over a whole pass, in bytes: itself, and the interval that
/// the listing is compared with.
const RUN_COST: u64 = 96;
/// Objects whose bit in the comparison fits into one byte.
const OBJECTS_PER_BYTE: u64 = 8;

/// The runs inside of a window. When they outgrow the limit the window's end moves down, and what
/// lies beyond is left to another pass.
#[derive(Debug)]
pub(super) struct Window {
    from: u128,
    to: u128,
    limit: u64,
    runs: Vec<Run>,
    cost: u64,
}

impl Window {
    /// From here on, with this much memory in bytes.
    pub(super) fn new(from: u128, limit: u64) -> Window {
        Window {
            from,
            to: Name::END,
            limit,
            runs: Vec::new(),
            cost: 0,
        }
    }

    pub(super) fn from(&self) -> u128 {
        self.from
    }

    /// One above the last name of the window.
    pub(super) fn to(&self) -> u128 {
        self.to
    }

    pub(super) fn add(&mut self, run: Run) {
        let Some(run) = run.clip(self.from, self.to) else {
            return;
        };
        self.cost += object_cost(&run);
        match self.runs.last_mut() {
            Some(last) if last.is_continued_by(&run) => last.count += run.count,
            _ => {
                self.runs.push(run);
                self.cost += RUN_COST;
            }
        }
        if self.cost > self.limit && self.to - self.from > 1 {
            self.narrow();
        }
    }

    /// The runs, sorted by their starts.
    pub(super) fn into_sorted(mut self) -> Vec<Run> {
        self.sort();
        self.runs
    }

    fn sort(&mut self) {
        self.runs.sort_unstable_by_key(Run::order);
        self.runs.dedup_by(|next, last| {
            let joined = last.is_continued_by(next);
            if joined {
                last.count += next.count;
            }
            joined
        });
        let objects: u64 = self.runs.iter().map(object_cost).sum();
        self.cost = objects + self.runs.len() as u64 * RUN_COST;
    }

    fn narrow(&mut self) {
        self.sort();
        let budget = self.limit / 2;
        let mut kept = 0;
        let cut = self.runs.iter().find_map(|run| {
            kept += RUN_COST + object_cost(run);
            let over = kept.checked_sub(budget).filter(|over| *over > 0)?;
            // In the middle of a run that is long enough to be the reason.
            let beyond = over.saturating_mul(OBJECTS_PER_BYTE).min(run.count);
            Some(run.end() - u128::from(beyond))
        });
        let Some(cut) = cut else { return };
        self.to = cut.max(self.from + 1);
        let (from, to) = (self.from, self.to);
        let runs = std::mem::take(&mut self.runs).into_iter();
        self.runs = runs.filter_map(|run| run.clip(from, to)).collect();
        self.sort();
    }
}

fn object_cost(run: &Run) -> u64 {
    if run.role.must_exist() {
        run.count.div_ceil(OBJECTS_PER_BYTE)
    } else {
        0
    }
}

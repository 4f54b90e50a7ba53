//! The memory budget of one core's resident map: a clock over everything that can be evicted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Weak;

/// What became of an attempt to give something up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    Done,
    /// Somebody holds it, or something of it is unsaved.
    Kept,
    /// The owner gave it up before, and discharged it.
    Forgotten,
}

/// Holds things that can be given up, by token.
pub(crate) trait Evictable {
    /// True if it was used since it was last asked.
    fn was_used(&self, token: u64) -> bool;
    /// Gives it up if nobody holds it and nothing of it is unsaved.
    fn evict(&self, token: u64) -> Eviction;
}

struct Charged {
    owner: Weak<dyn Evictable>,
    token: u64,
    cost: usize,
}

pub(crate) struct Budget {
    limit: usize,
    used: Cell<usize>,
    clock: RefCell<VecDeque<Charged>>,
}

impl Budget {
    /// `limit` in bytes.
    pub(crate) fn new(limit: usize) -> Budget {
        Budget {
            limit,
            used: Cell::new(0),
            clock: RefCell::default(),
        }
    }

    /// True while more is resident than allowed, because too much of it is unsaved.
    pub(crate) fn is_over(&self) -> bool {
        self.used.get() > self.limit
    }

    /// Counts a new resident thing, and evicts others until the limit is kept, as far as they can.
    pub(crate) fn charge(&self, owner: Weak<dyn Evictable>, token: u64, cost: usize) {
        self.used.set(self.used.get() + cost);
        // Before it is in the clock: a new thing is not given up before it was of use.
        self.shrink();
        self.clock
            .borrow_mut()
            .push_back(Charged { owner, token, cost });
    }

    /// An owner is gone with this much in it. Its places in the clock go when the hand comes by.
    pub(crate) fn discharge(&self, cost: usize) {
        self.used.set(self.used.get() - cost);
    }

    /// Evicts until the limit is kept or the hand has gone round twice.
    fn shrink(&self) {
        let mut left = self.clock.borrow().len() * 2;
        while self.is_over() && left > 0 {
            left -= 1;
            let Some(charged) = self.clock.borrow_mut().pop_front() else {
                return;
            };
            let Some(owner) = charged.owner.upgrade() else {
                continue;
            };
            let outcome = match owner.was_used(charged.token) {
                true => Eviction::Kept,
                false => owner.evict(charged.token),
            };
            match outcome {
                Eviction::Done => self.discharge(charged.cost),
                Eviction::Kept => self.clock.borrow_mut().push_back(charged),
                Eviction::Forgotten => {}
            }
        }
    }
}

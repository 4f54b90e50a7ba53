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
    /// True while it is resident.
    fn holds(&self, token: u64) -> bool;
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
    /// Length of the clock at which places of things that are gone are taken out of it.
    sweep_at: Cell<usize>,
}

/// Places in the clock below which it is not worth sweeping.
const MIN_SWEEP: usize = 64;

impl Budget {
    /// `limit` in bytes.
    pub(crate) fn new(limit: usize) -> Budget {
        Budget {
            limit,
            used: Cell::new(0),
            clock: RefCell::default(),
            sweep_at: Cell::new(MIN_SWEEP),
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
        self.sweep();
        self.clock
            .borrow_mut()
            .push_back(Charged { owner, token, cost });
    }

    /// Takes out what its owners gave up by themselves, when the clock has doubled since the last
    /// time: it does not grow while the limit is far.
    fn sweep(&self) {
        let mut clock = self.clock.borrow_mut();
        if clock.len() < self.sweep_at.get() {
            return;
        }
        clock.retain(|charged| {
            let owner = charged.owner.upgrade();
            owner.is_some_and(|owner| owner.holds(charged.token))
        });
        self.sweep_at.set((clock.len() * 2).max(MIN_SWEEP));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// Holds only the thing it was given last.
    struct Forgetful(Cell<u64>);

    impl Evictable for Forgetful {
        fn was_used(&self, _token: u64) -> bool {
            false
        }

        fn holds(&self, token: u64) -> bool {
            self.0.get() == token
        }

        fn evict(&self, _token: u64) -> Eviction {
            Eviction::Forgotten
        }
    }

    #[test]
    fn the_clock_does_not_grow_by_things_that_their_owner_gave_up() {
        let budget = Budget::new(1000);
        let owner = Rc::new(Forgetful(Cell::new(0)));
        let weak: Weak<dyn Evictable> = Rc::<Forgetful>::downgrade(&owner);
        for token in 0..100_000 {
            owner.0.set(token);
            budget.charge(weak.clone(), token, 1);
            budget.discharge(1);
        }
        assert!(budget.clock.borrow().len() <= 2 * MIN_SWEEP);
    }
}

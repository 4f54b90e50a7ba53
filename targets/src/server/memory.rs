//! The memory of one core for commands under way, over all its connections: who may hold how much (R3). It holds nothing
//! itself and knows no command.
//!
//! Each connection has [`GUARANTEED_BYTES`], so that none starves. What it holds beyond comes from what the core's
//! connections share: never more than half of what others leave, by connection and by target, so that what stalls (a
//! peer that sends no data, a pool that hangs) leaves room for those that come later, however many stall.

use super::limits::GUARANTEED_BYTES;
use super::state::LocalTarget;
use super::wait::Signal;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// What the connections of one core share.
pub(super) struct Memory {
    total: usize,
    used: Cell<usize>,
    /// Some of it was given back.
    pub(super) freed: Signal,
}

impl Memory {
    pub(super) fn new(total: usize) -> Memory {
        Memory {
            total,
            used: Cell::new(0),
            freed: Signal::default(),
        }
    }

    /// Bytes that connections hold beyond their guaranteed ones.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.used.get()
    }
}

/// One connection's part of it; given back when it is dropped.
pub(super) struct Share {
    memory: Rc<Memory>,
    /// Once the session is let in.
    target: OnceCell<Rc<LocalTarget>>,
    taken: Cell<usize>,
}

impl Share {
    pub(super) fn of(memory: Rc<Memory>) -> Share {
        Share {
            memory,
            target: OnceCell::new(),
            taken: Cell::new(0),
        }
    }

    /// From now on it counts as the target's too.
    pub(super) fn belong_to(&self, target: Rc<LocalTarget>) {
        let held = target.held.get() + self.taken.get();
        if self.target.set(target.clone()).is_ok() {
            target.held.set(held);
        }
    }

    /// Says how much the connection holds.
    pub(super) fn settle(&self, held: usize) {
        let now = held.saturating_sub(GUARANTEED_BYTES);
        let before = self.taken.replace(now);
        if now == before {
            return;
        }
        let used = self.memory.used.get() - before + now;
        self.memory.used.set(used);
        if let Some(target) = self.target.get() {
            target.held.set(target.held.get() - before + now);
        }
        if now < before {
            self.memory.freed.notify();
        }
    }

    /// Bytes that nobody holds, the connection's guaranteed ones among them if it holds nothing.
    pub(super) fn spare(&self) -> usize {
        GUARANTEED_BYTES + self.memory.total.saturating_sub(self.memory.used.get())
    }

    /// Whether the connection may hold this much, all together. `settle` comes first.
    pub(super) fn allows(&self, held: usize) -> bool {
        let wanted = held.saturating_sub(GUARANTEED_BYTES);
        if wanted == 0 {
            return true;
        }
        let (total, used, taken) = (self.memory.total, self.memory.used.get(), self.taken.get());
        let half_of_the_rest = |taken: usize| total.saturating_sub(used - taken) / 2;
        let by_target = self.target.get().map_or(0, |target| target.held.get());
        wanted <= half_of_the_rest(taken)
            && (self.target.get().is_none()
                || by_target - taken + wanted <= half_of_the_rest(by_target))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn share(memory: &Rc<Memory>) -> Share {
        Share::of(memory.clone())
    }

    #[test]
    fn whoever_comes_late_finds_room_however_many_hold_theirs() {
        let memory = Rc::new(Memory::new(64 * MIB));
        let mut kept = Vec::new();
        for _ in 0..200 {
            let one = share(&memory);
            while one.allows(one.taken.get() + GUARANTEED_BYTES + MIB / 16) {
                one.settle(one.taken.get() + GUARANTEED_BYTES + MIB / 16);
            }
            assert!(one.allows(GUARANTEED_BYTES));
            kept.push(one);
        }
        assert!(memory.used() < 64 * MIB);
        kept.truncate(5);
        // Half, a quarter and so on: with five that hold all they may, 1/32 is left, half of it for the next.
        assert!(memory.used() <= 62 * MIB);
        assert!(share(&memory).allows(GUARANTEED_BYTES + MIB));
        kept.clear();
        assert_eq!(memory.used(), 0);
    }
}

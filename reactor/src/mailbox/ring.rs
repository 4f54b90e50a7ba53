//! A bounded ring that many threads push to and one takes from. Neither side ever waits for the
//! other: a push that is under way hides what lies behind it until it has ended.

use crate::sync::shim::{AtomicUsize, Ordering, UnsafeCell};

struct Slot<T> {
    /// Twice the position that may be pushed here next; plus one once it holds its value.
    stamp: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

pub(super) struct Ring<T> {
    slots: Box<[Slot<T>]>,
    /// Next position to push.
    tail: AtomicUsize,
    /// Next position to take; changed by the taker only.
    head: AtomicUsize,
}

// SAFETY: a slot's value is touched by the pusher that won its position until it sets the stamp,
// then by the one taker until it sets it again; values move between threads, hence T: Send.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    pub(super) fn new(capacity: usize) -> Ring<T> {
        assert!(capacity > 0, "a mailbox holds at least one message");
        let slot = |position: usize| Slot {
            stamp: AtomicUsize::new(position * 2),
            value: UnsafeCell::new(None),
        };
        Ring {
            slots: (0..capacity).map(slot).collect(),
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
        }
    }

    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position % self.slots.len()]
    }

    /// Gives the value back if there is no room.
    pub(super) fn push(&self, value: T) -> Result<(), T> {
        let mut position = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            if slot.stamp.load(Ordering::Acquire) != position * 2 {
                // Taken by another pusher, or not emptied yet. A stamp that is ahead was published
                // after the tail moved, so that the tail is seen to have moved.
                let now = self.tail.load(Ordering::Relaxed);
                if now == position {
                    return Err(value);
                }
                position = now;
                continue;
            }
            match self.tail.compare_exchange_weak(
                position,
                position + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // SAFETY: the position is ours alone and its slot empty (the stamp says so).
                    slot.value.with_mut(|place| unsafe { *place = Some(value) });
                    slot.stamp.store(position * 2 + 1, Ordering::Release);
                    return Ok(());
                }
                Err(now) => position = now,
            }
        }
    }

    /// Whether the next position holds its value.
    pub(super) fn is_ready(&self) -> bool {
        let position = self.head.load(Ordering::Relaxed);
        self.slot(position).stamp.load(Ordering::Acquire) == position * 2 + 1
    }

    /// Takes the oldest value, if its push has ended.
    ///
    /// # Safety
    /// One caller at a time.
    pub(super) unsafe fn pop(&self) -> Option<T> {
        let position = self.head.load(Ordering::Relaxed);
        let slot = self.slot(position);
        if slot.stamp.load(Ordering::Acquire) != position * 2 + 1 {
            return None;
        }
        // SAFETY: the stamp gives the slot to the taker, which is the caller alone.
        let value = slot.value.with_mut(|place| unsafe { (*place).take() });
        self.head.store(position + 1, Ordering::Relaxed);
        let next = (position + self.slots.len()) * 2;
        slot.stamp.store(next, Ordering::Release);
        value
    }
}

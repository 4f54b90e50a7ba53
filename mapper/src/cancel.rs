//! Cancellation of operations by whoever asked for them, from any core: a table of slots, one for each operation that
//! may run at a time, and tokens that operations carry. Nothing is allocated per operation. It stops nothing by itself:
//! who runs an operation asks its token before each step that would have an effect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The slots of one requester, such as a connection. An operation takes the slot that its requester has free for it; a
/// slot may be taken again while a cancelled operation of it still runs.
#[derive(Clone, Default)]
pub struct CancelSlots {
    /// A token is valid as long as its slot has the generation that it was made with.
    generations: Arc<[AtomicU32]>,
}

/// Says whether the operation that carries it is still wanted. Once cancelled it stays so.
///
/// The token of an operation that nobody can cancel is [`Cancel::never`].
#[derive(Clone, Default)]
pub struct Cancel {
    slot: Option<Slot>,
}

#[derive(Clone)]
struct Slot {
    generations: Arc<[AtomicU32]>,
    index: usize,
    generation: u32,
}

impl CancelSlots {
    /// With so many slots, numbered from 0.
    pub fn new(slots: usize) -> CancelSlots {
        CancelSlots {
            generations: (0..slots).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.generations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// The token for an operation that begins in a slot. Panics if there is no such slot.
    pub fn token(&self, slot: usize) -> Cancel {
        // Only our own cancellations change it.
        let generation = self.generations[slot].load(Ordering::Relaxed);
        Cancel {
            slot: Some(Slot {
                generations: self.generations.clone(),
                index: slot,
                generation,
            }),
        }
    }

    /// Cancels the operation that took the slot last, if it has not ended. A slot that does not exist has none.
    ///
    /// What has been handed to a store by then goes on there; everything that the operation had still to do is left out
    /// as soon as the core that runs it asks its token.
    pub fn cancel(&self, slot: usize) {
        if let Some(generation) = self.generations.get(slot) {
            // What the requester did before is seen by who finds the operation cancelled. A token would be mistaken for
            // valid again only after 2^32 cancellations of its slot while it runs.
            generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl Cancel {
    /// Of an operation that nobody cancels.
    pub const fn never() -> Cancel {
        Cancel { slot: None }
    }

    /// Whether nothing of the operation that has not begun is to begin any more.
    pub fn is_cancelled(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| {
            slot.generations[slot.index].load(Ordering::Acquire) != slot.generation
        })
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.slot {
            None => f.write_str("Cancel::never"),
            Some(slot) => write!(
                f,
                "Cancel({}, {})",
                slot.index,
                if self.is_cancelled() {
                    "cancelled"
                } else {
                    "wanted"
                }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_operation_stays_cancelled_and_its_slots_next_one_is_wanted() {
        let slots = CancelSlots::new(3);
        let (first, other) = (slots.token(1), slots.token(2));
        let copy = first.clone();
        assert!(!first.is_cancelled());
        slots.cancel(1);
        let second = slots.token(1);
        assert!(first.is_cancelled() && copy.is_cancelled());
        assert!(!second.is_cancelled() && !other.is_cancelled());
        slots.cancel(1);
        assert!(first.is_cancelled() && second.is_cancelled());
        assert!(!slots.token(1).is_cancelled() && !other.is_cancelled());
    }

    #[test]
    fn what_never_ends_early_and_slots_that_do_not_exist_do_no_harm() {
        assert!(!Cancel::never().is_cancelled());
        CancelSlots::default().cancel(7);
        assert!(CancelSlots::default().is_empty());
    }

    #[test]
    fn a_token_is_seen_cancelled_by_another_thread() {
        let slots = CancelSlots::new(1);
        let token = slots.token(0);
        let seen = std::thread::scope(|scope| {
            let watch = scope.spawn(move || {
                while !token.is_cancelled() {
                    std::hint::spin_loop();
                }
                true
            });
            slots.cancel(0);
            watch.join()
        });
        assert!(seen.expect("it ends"));
    }
}

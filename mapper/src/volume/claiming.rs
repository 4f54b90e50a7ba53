//! How writes of several cores keep off each other's blocks: every place is a piece of an object, and
//! one core at a time writes inside of it. Inside of one core the range locks do the rest.
//!
//! **Invariant:** the home core has blocks for itself when it holds their range lock, no other core
//! goes into their places any more, and each that was inside has said that it is not at these blocks.

use atoll_backends::{BlockRange, ObjectIndex, ObjectSize};
use atoll_reactor::sync::Claims;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Words of one volume: objects' pieces share them by a hash, which costs at most a detour.
const PLACES: usize = 4096;
/// Blocks of one piece: 64 KiB, so that a large write has few of them.
const PIECE_BLOCKS: u32 = 16;

/// The places of a write of 1 MiB, whatever its alignment, without heap.
pub(super) type Places = SmallVec<[u16; 18]>;

const _: () = assert!(PLACES <= 1 << u16::BITS);

/// Where a range of an object falls.
pub(super) fn places(size: ObjectSize, index: ObjectIndex, blocks: BlockRange) -> Places {
    let per_object = u64::from(size.blocks().div_ceil(PIECE_BLOCKS));
    let first = blocks.first / PIECE_BLOCKS;
    let end = blocks.end().div_ceil(PIECE_BLOCKS);
    (first..end)
        .map(|piece| place(index.get() * per_object + u64::from(piece)))
        .collect()
}

fn place(piece: u64) -> u16 {
    // Fibonacci hashing: strides fall apart.
    let hash = piece.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u16::try_from(hash >> (u64::BITS - PLACES.trailing_zeros())).expect("fewer than 2^16 places")
}

/// The home core's side.
pub(super) struct HomeClaims {
    words: Arc<Claims>,
    /// Operations of this core by the places that they want.
    held: RefCell<HashMap<u16, u32>>,
}

/// Places that no other core goes into while this lives.
pub(super) struct HomeClaim {
    claims: Rc<HomeClaims>,
    places: Places,
}

impl HomeClaims {
    pub(super) fn new() -> Rc<HomeClaims> {
        Rc::new(HomeClaims {
            words: Arc::new(Claims::new(PLACES)),
            held: RefCell::default(),
        })
    }

    pub(super) fn words(&self) -> &Arc<Claims> {
        &self.words
    }

    /// Lets no other core into these places from now on; and whether none of them is inside. Where
    /// one is, it may be at other blocks: it is asked.
    pub(super) fn take(self: &Rc<Self>, places: Places) -> (HomeClaim, bool) {
        let mut held = self.held.borrow_mut();
        let mut free = true;
        for place in &places {
            *held.entry(*place).or_default() += 1;
            free &= self.words.want(usize::from(*place));
        }
        drop(held);
        let claim = HomeClaim {
            claims: self.clone(),
            places,
        };
        (claim, free)
    }
}

impl Drop for HomeClaim {
    fn drop(&mut self) {
        let mut held = self.claims.held.borrow_mut();
        for place in &self.places {
            let count = held.get_mut(place).expect("held");
            *count -= 1;
            if *count == 0 {
                held.remove(place);
                self.claims.words.unwant(usize::from(*place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_that_overlap_share_a_place(
            index in 0_u64..1 << 28, a in 0_u32..1024, b in 0_u32..1024, len_a in 1_u32..64, len_b in 1_u32..64
        ) {
            let size = ObjectSize::new(4 << 20).expect("valid");
            let index = ObjectIndex::new(index).expect("small");
            let a = BlockRange::new(a.min(1024 - len_a), len_a);
            let b = BlockRange::new(b.min(1024 - len_b), len_b);
            let (in_a, in_b) = (places(size, index, a), places(size, index, b));
            prop_assert!(in_a.len() <= 5 && !in_a.is_empty());
            if a.overlaps(b) {
                prop_assert!(in_a.iter().any(|place| in_b.contains(place)));
            }
        }
    }
}

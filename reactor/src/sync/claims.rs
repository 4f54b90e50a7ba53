//! Which core may work on which place, for places that one core (the home) may close to all others.
//! One word per place, no lock, nobody waits here: who is refused goes another way, and the home asks
//! those that are still inside. Model-checked with loom.

use super::shim::{AtomicU64, Ordering};
use crate::CoreId;

/// The home wants the place: nobody else gets in any more.
const WANTED: u64 = 1 << 63;
/// The core whose operations are inside; of no meaning while there are none.
const OWNER_SHIFT: u32 = 32;
/// Operations inside.
const INSIDE: u64 = (1 << OWNER_SHIFT) - 1;

/// A fixed number of places.
///
/// **Invariant:** operations of at most one core are inside of a place, and none goes inside from
/// [`Claims::want`] to [`Claims::unwant`].
pub struct Claims {
    words: Box<[AtomicU64]>,
}

impl Claims {
    pub fn new(places: usize) -> Claims {
        Claims {
            words: (0..places).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn places(&self) -> usize {
        self.words.len()
    }

    /// One more operation of `core` goes inside; false if another core's are there or the home
    /// wants the place. For cores that are not the home.
    pub fn enter(&self, place: usize, core: CoreId) -> bool {
        let word = &self.words[place];
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let (owner, inside) = (seen >> OWNER_SHIFT, seen & INSIDE);
            if seen & WANTED != 0 || (inside > 0 && owner != u64::from(core.0)) || inside == INSIDE
            {
                return false;
            }
            let next = u64::from(core.0) << OWNER_SHIFT | (inside + 1);
            // Acquire: what the home or another core did inside is seen.
            match word.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// An operation that went inside has ended.
    pub fn leave(&self, place: usize) {
        let before = self.words[place].fetch_sub(1, Ordering::Release);
        debug_assert!(before & INSIDE > 0, "left once");
    }

    /// The home keeps all others from going inside from now on; true if nobody is inside.
    pub fn want(&self, place: usize) -> bool {
        self.words[place].fetch_or(WANTED, Ordering::Acquire) & INSIDE == 0
    }

    /// The home lets others inside again.
    pub fn unwant(&self, place: usize) {
        self.words[place].fetch_and(!WANTED, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_core_at_a_time_is_inside_and_none_that_comes_while_the_home_wants_it() {
        let claims = Claims::new(2);
        assert!(claims.enter(0, CoreId(1)));
        assert!(claims.enter(0, CoreId(1)));
        assert!(!claims.enter(0, CoreId(2)), "another core");
        assert!(claims.enter(1, CoreId(2)), "another place");
        assert!(!claims.want(0), "two are inside");
        assert!(!claims.enter(0, CoreId(1)), "the home wants it");
        claims.leave(0);
        assert!(!claims.want(0), "one is left");
        claims.leave(0);
        assert!(claims.want(0));
        assert!(!claims.enter(0, CoreId(2)));
        claims.unwant(0);
        assert!(claims.enter(0, CoreId(2)));
    }
}

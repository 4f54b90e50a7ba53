//! Tests of the whole core: a model target that answers every event, an initiator that checks every
//! byte it gets, replays of real initiators. Mutated streams are in `tests/fuzz`; wire types are tested in their
//! own files.
mod initiator;
mod keys;
mod logins;
mod model;
mod replay;
mod requests;
mod rules;
mod transfers;

/// A small seeded generator, so that a seed in a message reproduces a case.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

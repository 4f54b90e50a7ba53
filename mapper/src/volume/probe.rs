//! Look-ups without anything around them, for measurements: the same that reads make of resident pages.

use super::Volume;
use super::outpost::Outpost;
use crate::format::Entry;
use atoll_backends::ObjectIndex;

impl Volume {
    pub(crate) fn probe(&self, objects: u64, count: u64, seed: u64) -> u64 {
        look_up(objects, count, seed, |index| self.effective_resident(index))
    }
}

impl Outpost {
    pub(crate) fn probe(&self, objects: u64, count: u64, seed: u64) -> u64 {
        look_up(objects, count, seed, |index| self.resident(index))
    }
}

/// How many of `count` random entries below `objects` are resident and name an object.
fn look_up(
    objects: u64,
    count: u64,
    seed: u64,
    resident: impl Fn(ObjectIndex) -> Option<Entry>,
) -> u64 {
    let mut random = seed;
    let mut found = 0;
    for _ in 0..count {
        // The upper bits of a multiplicative sequence, scaled: cheap, as it is part of what is measured.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let number = ((u128::from(random) * u128::from(objects)) >> 64) as u64;
        let entry = ObjectIndex::new(number).and_then(&resident);
        found += u64::from(entry.is_some_and(Entry::names_object));
    }
    found
}

//! Changes to bytes that know nothing of what they mean. Those that know PDUs are in `iscsi::mutator`.
use crate::random::Random;

/// Values at which lengths and counts go wrong.
pub const EDGES: [u32; 16] = [
    0,
    1,
    2,
    3,
    4,
    47,
    48,
    255,
    256,
    511,
    512,
    8192,
    65535,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

/// One change somewhere: a bit, a byte, a word, a gap, an insertion, a copy from elsewhere, an end.
pub fn bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(random.number() as u8);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(12) {
        0..=3 => bytes[at] ^= 1 << random.below(8),
        4..=5 => bytes[at] = random.number() as u8,
        6 => word(random, bytes, at & !3),
        7 => {
            let end = (at + 1 + random.below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        8 => {
            let value = random.number() as u8;
            let count = 1 + random.below(8);
            bytes.splice(at..at, std::iter::repeat_n(value, count));
        }
        9 => {
            let from = random.below(bytes.len());
            let count = (1 + random.below(16)).min(bytes.len() - from.max(at));
            bytes.copy_within(from..from + count, at);
        }
        10 => bytes.truncate(at),
        _ => {
            let end = (at + 4).min(bytes.len());
            bytes[at..end].fill(if random.one_in(2) { 0xff } else { 0 });
        }
    }
}

/// A big-endian word becomes an edge value, or one near to what it was.
pub fn word(random: &mut Random, bytes: &mut [u8], at: usize) {
    let Some(place) = bytes.get_mut(at..at + 4) else {
        return;
    };
    let old = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
    let new = match random.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => *random.pick(&EDGES),
        _ => random.number() as u32,
    };
    place.copy_from_slice(&new.to_be_bytes());
}

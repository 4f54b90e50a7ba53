//! Which blocks of some bytes are zeros: neither stored nor sent.

use std::ops::Range;

use super::format::UNIT;

/// A part of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub range: Range<usize>,
    /// All of it is zero.
    pub zero: bool,
}

/// The bytes as alternating runs of whole blocks that are zero and that are not. A last part of a
/// block counts as one.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut blocks = bytes.get(at..)?.chunks(UNIT as usize);
        let first = blocks.next()?;
        let zero = is_zero(first);
        let more = blocks.take_while(|block| is_zero(block) == zero);
        let length = first.len() + more.map(<[u8]>::len).sum::<usize>();
        let range = at..at + length;
        at = range.end;
        Some(Run { range, zero })
    })
}

/// Whether all bytes are 0.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_le_bytes(*chunk) == 0) && rest.iter().all(|b| *b == 0)
}

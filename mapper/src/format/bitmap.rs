//! Which blocks of an object are valid: one bit each.

use super::codec::{FormatError, Result};
use atoll_backends::{BlockRange, MAX_OBJECT_SIZE, MIN_OBJECT_SIZE, ObjectSize};
use smallvec::SmallVec;
use std::fmt;

const WORD_BITS: u32 = u64::BITS;

/// Bit b is block b. Bits beyond the object are 0.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    size: ObjectSize,
    words: SmallVec<[u64; 16]>,
}

impl Bitmap {
    /// No block valid.
    pub fn new(size: ObjectSize) -> Bitmap {
        let words = size.blocks().div_ceil(WORD_BITS) as usize;
        Bitmap {
            size,
            words: SmallVec::from_elem(0, words),
        }
    }

    /// From words as [`Bitmap::words`] gives them; `None` if there are too many or too few, or a
    /// bit beyond the object is set.
    pub fn from_words(size: ObjectSize, words: &[u64]) -> Option<Bitmap> {
        let blocks = size.blocks();
        if words.len() != blocks.div_ceil(WORD_BITS) as usize {
            return None;
        }
        let used = blocks % WORD_BITS;
        if used != 0 && words.last()? >> used != 0 {
            return None;
        }
        Some(Bitmap {
            size,
            words: SmallVec::from_slice(words),
        })
    }

    /// Of the objects that it describes.
    pub fn object_size(&self) -> ObjectSize {
        self.size
    }

    /// Number of blocks, valid or not.
    pub fn blocks(&self) -> u32 {
        self.size.blocks()
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether this block is valid; no block beyond the object is.
    pub fn contains(&self, block: u32) -> bool {
        self.words
            .get((block / WORD_BITS) as usize)
            .is_some_and(|word| word >> (block % WORD_BITS) & 1 == 1)
    }

    /// Makes blocks valid. Panics beyond the object's end.
    pub fn insert(&mut self, range: BlockRange) {
        assert!(range.end() <= self.blocks(), "blocks beyond the object");
        for block in range.first..range.end() {
            self.words[(block / WORD_BITS) as usize] |= 1 << (block % WORD_BITS);
        }
    }

    /// Makes valid what `other` has valid. Panics if the objects differ in size.
    pub fn union(&mut self, other: &Bitmap) {
        assert_eq!(self.size, other.size, "bitmaps of objects of one size");
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Number of valid blocks.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    pub fn is_full(&self) -> bool {
        self.count() == self.blocks()
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Bytes of the stored form: byte b / 8, bit b mod 8.
    pub(super) fn to_bytes(&self) -> impl Iterator<Item = u8> {
        let len = self.blocks() as usize / 8;
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .take(len)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Bitmap> {
        let blocks = u32::try_from(bytes.len())
            .ok()
            .and_then(|len| len.checked_mul(8));
        let size = blocks
            .and_then(|blocks| blocks.checked_mul(atoll_backends::BLOCK_SIZE))
            .and_then(ObjectSize::new)
            .ok_or(FormatError::new("a bitmap is of no object size"))?;
        let mut map = Bitmap::new(size);
        for (at, byte) in bytes.iter().enumerate() {
            map.words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        Ok(map)
    }
}

const _: () = assert!(MIN_OBJECT_SIZE.is_multiple_of(atoll_backends::BLOCK_SIZE * 8));
const _: () = assert!(MAX_OBJECT_SIZE / atoll_backends::BLOCK_SIZE / 8 <= 512);

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} blocks", self.count(), self.blocks())
    }
}

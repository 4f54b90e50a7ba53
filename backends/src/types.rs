//! Names and quantities of stored objects.

use std::fmt;

/// The unit of validity and of every store operation, in bytes.
pub const BLOCK_SIZE: u32 = 4096;
pub const MIN_OBJECT_SIZE: u32 = 64 << 10;
pub const MAX_OBJECT_SIZE: u32 = 16 << 20;
pub const DEFAULT_OBJECT_SIZE: u32 = 4 << 20;

/// Names objects together with their index; never used twice in a pool. 52 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(u64);

impl Generation {
    pub const BITS: u32 = 52;
    pub const MAX: Generation = Generation((1 << Generation::BITS) - 1);
    /// No object has it; reservations begin above.
    pub const ZERO: Generation = Generation(0);

    /// `None` if it has more than 52 bits.
    pub const fn new(value: u64) -> Option<Generation> {
        if value >> Generation::BITS == 0 {
            Some(Generation(value))
        } else {
            None
        }
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The generation `count` above; `None` when the 52 bits are used up.
    pub const fn plus(self, count: u64) -> Option<Generation> {
        match self.0.checked_add(count) {
            Some(value) => Generation::new(value),
            None => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:013x}", self.0)
    }
}

/// Position of an object in its resource, in objects. 40 bits are enough for 1 PiB of 64 KiB
/// objects with room to spare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectIndex(u64);

impl ObjectIndex {
    pub const BITS: u32 = 40;

    /// `None` if it has more than 40 bits.
    pub const fn new(value: u64) -> Option<ObjectIndex> {
        if value >> ObjectIndex::BITS == 0 {
            Some(ObjectIndex(value))
        } else {
            None
        }
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ObjectIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

/// An object's name inside its pool. In text: 13 hex digits of generation, a dot, 10 of index;
/// stores put the pool owner's prefix before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId {
    pub generation: Generation,
    pub index: ObjectIndex,
}

impl ObjectId {
    pub const fn new(generation: Generation, index: ObjectIndex) -> ObjectId {
        ObjectId { generation, index }
    }

    /// Reads the text form back; `None` for anything else.
    pub fn parse(text: &str) -> Option<ObjectId> {
        let (generation, index) = text.split_once('.')?;
        if generation.len() != 13 || index.len() != 10 {
            return None;
        }
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !lower_hex(generation) || !lower_hex(index) {
            return None;
        }
        Some(ObjectId {
            generation: Generation::new(u64::from_str_radix(generation, 16).ok()?)?,
            index: ObjectIndex::new(u64::from_str_radix(index, 16).ok()?)?,
        })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.index)
    }
}

/// Size of a pool's objects in bytes: a power of two from 64 KiB to 16 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectSize(u32);

impl ObjectSize {
    pub const DEFAULT: ObjectSize = ObjectSize(DEFAULT_OBJECT_SIZE);

    /// `None` unless it is a power of two in range.
    pub const fn new(bytes: u32) -> Option<ObjectSize> {
        let good = bytes.is_power_of_two() && bytes >= MIN_OBJECT_SIZE && bytes <= MAX_OBJECT_SIZE;
        if good { Some(ObjectSize(bytes)) } else { None }
    }

    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Blocks per object.
    pub const fn blocks(self) -> u32 {
        self.0 / BLOCK_SIZE
    }

    /// log2 of the bytes.
    pub const fn shift(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// Blocks of one object: `count` from `first`, in units of [`BLOCK_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockRange {
    pub first: u32,
    pub count: u32,
}

impl BlockRange {
    pub const fn new(first: u32, count: u32) -> BlockRange {
        BlockRange { first, count }
    }

    pub const fn whole(size: ObjectSize) -> BlockRange {
        BlockRange {
            first: 0,
            count: size.blocks(),
        }
    }

    pub const fn end(self) -> u32 {
        self.first + self.count
    }

    /// Offset inside the object in bytes.
    pub const fn byte_offset(self) -> u64 {
        self.first as u64 * BLOCK_SIZE as u64
    }

    pub const fn byte_len(self) -> usize {
        self.count as usize * BLOCK_SIZE as usize
    }

    pub const fn overlaps(self, other: BlockRange) -> bool {
        self.first < other.end() && other.first < self.end()
    }
}

/// A pool's identity: 128 random bits, written into the pool and into the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PoolId(pub [u8; 16]);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = u128::from_be_bytes(self.0);
        let part = |shift: u32, bits: u32| (v >> shift) & ((1_u128 << bits) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        )
    }
}

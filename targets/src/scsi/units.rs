//! Quantities of a block device: block addresses and counts, byte ranges, block sizes.
//! Conversions are checked here, once; nothing in this file knows a command.

use std::fmt;

/// A logical block address, counted from 0 in logical blocks (SBC-3 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// A number of logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub u64);

/// A position in a volume, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

/// A contiguous part of a volume. `start + length` never overflows when it came from this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: ByteOffset,
    /// Number of bytes; never 0 in a volume operation.
    pub length: ByteCount,
}

/// The logical block size of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            BlockSize::B512 => 512,
            BlockSize::B4096 => 4096,
        }
    }

    /// The block size of that many bytes, if it is one that is served.
    pub const fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(BlockSize::B512),
            4096 => Some(BlockSize::B4096),
            _ => None,
        }
    }

    /// How many bytes `blocks` blocks are; saturates, so that a count from a peer compares as too large.
    pub const fn count(self, blocks: Blocks) -> ByteCount {
        ByteCount(blocks.0.saturating_mul(self.bytes() as u64))
    }

    /// How many whole blocks fit in `bytes`.
    pub const fn whole_blocks(self, bytes: ByteCount) -> Blocks {
        Blocks(bytes.0 / self.bytes() as u64)
    }

    /// The bytes of `blocks` blocks from `lba`, or `None` if they do not lie within `capacity`.
    pub fn range(self, lba: Lba, blocks: Blocks, capacity: Blocks) -> Option<ByteRange> {
        let end = lba.0.checked_add(blocks.0)?;
        if end > capacity.0 {
            return None;
        }
        let size = u64::from(self.bytes());
        Some(ByteRange {
            start: ByteOffset(lba.0.checked_mul(size)?),
            length: ByteCount(blocks.0.checked_mul(size)?),
        })
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The big-endian number in the `count` (at most 8) bytes from `at`; bytes beyond the end count as absent.
pub(super) fn be(bytes: &[u8], at: usize, count: usize) -> u64 {
    bytes
        .iter()
        .skip(at)
        .take(count)
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// `value` as `u32`, or `u32::MAX` where it does not fit, as several fields of SBC-3 want it.
pub(super) fn saturate32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_at_the_capacity_and_never_wraps() {
        let size = BlockSize::B512;
        assert!(size.range(Lba(9), Blocks(1), Blocks(10)).is_some());
        assert!(size.range(Lba(10), Blocks(0), Blocks(10)).is_some());
        assert_eq!(size.range(Lba(11), Blocks(0), Blocks(10)), None);
        assert_eq!(size.range(Lba(9), Blocks(2), Blocks(10)), None);
        assert_eq!(size.range(Lba(u64::MAX), Blocks(1), Blocks(10)), None);
        assert_eq!(size.range(Lba(1), Blocks(u64::MAX), Blocks(10)), None);
        assert_eq!(
            size.range(Lba(2), Blocks(3), Blocks(10)),
            Some(ByteRange {
                start: ByteOffset(1024),
                length: ByteCount(1536)
            })
        );
    }
}

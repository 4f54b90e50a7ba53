//! What is written: each sector says which volume, place and write it belongs to, and every byte of it can be checked.

use super::{Lba, SECTOR};

const MAGIC: u64 = 0x6174_6f6c_6c21_7374;
const WORD: usize = 8;

/// Tells volumes (and runs) apart, so that another's data is recognised as foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// Number of a write of a volume, counted from 1 and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// What a sector turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Zeros,
    Stamp {
        tag: Tag,
        lba: Lba,
        sequence: Sequence,
    },
    /// Neither zeros nor a whole stamp.
    Garbage,
}

impl Found {
    /// Whether both may come of one write or unmap.
    pub fn is_of_one_write(&self, other: &Found) -> bool {
        match (self, other) {
            (Found::Zeros, Found::Zeros) => true,
            (Found::Stamp { sequence, .. }, Found::Stamp { sequence: o, .. }) => sequence == o,
            _ => false,
        }
    }
}

pub fn write(sector: &mut [u8], tag: Tag, lba: Lba, sequence: Sequence) {
    for (word, value) in sector.chunks_exact_mut(WORD).zip(words(tag, lba, sequence)) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

pub fn read(sector: &[u8]) -> Found {
    if sector.iter().all(|&byte| byte == 0) {
        return Found::Zeros;
    }
    let mut found = sector
        .chunks_exact(WORD)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    let mut next = || found.next().unwrap_or(0);
    let (magic, tag, lba, sequence) = (next(), Tag(next()), Lba(next()), Sequence(next()));
    let whole = magic == MAGIC && found.eq(words(tag, lba, sequence).skip(4));
    if whole {
        Found::Stamp { tag, lba, sequence }
    } else {
        Found::Garbage
    }
}

/// The words of a sector: four that say what it is, then noise that follows from them (splitmix64).
fn words(tag: Tag, lba: Lba, sequence: Sequence) -> impl Iterator<Item = u64> {
    let mut state = tag.0 ^ lba.0.rotate_left(20) ^ sequence.0.rotate_left(40);
    let noise = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    });
    [MAGIC, tag.0, lba.0, sequence.0]
        .into_iter()
        .chain(noise)
        .take(SECTOR / WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_any_flipped_bit_makes_it_garbage() {
        let mut sector = [0; SECTOR];
        assert_eq!(read(&sector), Found::Zeros);
        let stamp = (Tag(1), Lba(2), Sequence(3));
        write(&mut sector, stamp.0, stamp.1, stamp.2);
        assert_eq!(
            read(&sector),
            Found::Stamp {
                tag: stamp.0,
                lba: stamp.1,
                sequence: stamp.2
            }
        );
        for bit in 0..SECTOR * 8 {
            sector[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&sector), Found::Garbage, "bit {bit}");
            sector[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

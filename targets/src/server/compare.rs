//! Comparing what was read, which comes in segments, with what an initiator sent. No I/O.

use atoll_mapper::Segments;

/// Where the bytes of `stored` first differ from as many others.
pub(super) fn first_difference(stored: &Segments, other: &[u8]) -> Option<u64> {
    let mut at = 0;
    for segment in stored {
        let own = other.get(at..at + segment.len()).unwrap_or_default();
        if segment[..] != *own {
            let same = segment.iter().zip(own).take_while(|(a, b)| a == b).count();
            return Some((at + same) as u64);
        }
        at += segment.len();
    }
    None
}

/// Where in the pattern the first block that is not like it differs. Blocks are as long as the pattern, and begin with
/// the first byte.
pub(super) fn pattern_difference(stored: &Segments, pattern: &[u8]) -> Option<u64> {
    let mut inside = 0;
    for segment in stored {
        let mut rest = &segment[..];
        while !rest.is_empty() {
            let wanted = &pattern[inside..];
            let length = wanted.len().min(rest.len());
            let (now, later) = rest.split_at(length);
            if *now != wanted[..length] {
                let same = now.iter().zip(wanted).take_while(|(a, b)| a == b).count();
                return Some((inside + same) as u64);
            }
            inside = (inside + length) % pattern.len();
            rest = later;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::{SharedBuf, sim::Sim};

    /// The bytes in segments of these lengths.
    fn segments(bytes: &[u8], lengths: &[usize]) -> Segments {
        let mut at = 0;
        let parts = lengths.iter().map(|length| {
            at += length;
            SharedBuf::copy_of(&bytes[at - length..at])
        });
        parts.collect()
    }

    #[test]
    fn every_single_difference_is_found_at_its_place_whatever_the_segments() {
        Sim::new(1, 1).block_on(async {
            let bytes: Vec<u8> = (0..60).collect();
            for lengths in [&[60][..], &[1, 58, 1], &[20, 20, 20], &[7, 13, 40]] {
                let stored = segments(&bytes, lengths);
                assert_eq!(first_difference(&stored, &bytes), None);
                for place in 0..60 {
                    let mut other = bytes.clone();
                    other[place..].fill(0xFF);
                    assert_eq!(first_difference(&stored, &other), Some(place as u64));
                }
            }
        });
    }

    #[test]
    fn a_block_unlike_the_pattern_is_found_at_its_first_differing_byte() {
        Sim::new(1, 1).block_on(async {
            let pattern: Vec<u8> = (0..20).collect();
            let bytes = pattern.repeat(3);
            for lengths in [&[60][..], &[20, 20, 20], &[7, 13, 40], &[30, 30]] {
                let stored = segments(&bytes, lengths);
                assert_eq!(pattern_difference(&stored, &pattern), None);
                for place in 0..60 {
                    let mut wrong = bytes.clone();
                    wrong[place] ^= 0x80;
                    let stored = segments(&wrong, lengths);
                    let inside = Some(place as u64 % 20);
                    assert_eq!(pattern_difference(&stored, &pattern), inside);
                }
            }
        });
    }
}

//! How a byte range of a volume falls on objects, whole blocks and parts of blocks.

use atoll_backends::{BLOCK_SIZE, BlockRange, ObjectIndex, ObjectSize};
use atoll_reactor::SharedBuf;
use std::ops::Range;

/// The part of a request that lies in one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) index: ObjectIndex,
    /// Bytes inside of the object.
    pub(super) bytes: Range<u32>,
    /// Where the piece begins in the request's data.
    pub(super) at: usize,
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        (self.bytes.end - self.bytes.start) as usize
    }

    /// All blocks that it touches.
    pub(super) fn blocks(&self) -> BlockRange {
        let first = self.bytes.start / BLOCK_SIZE;
        BlockRange::new(first, self.bytes.end.div_ceil(BLOCK_SIZE) - first)
    }

    pub(super) fn is_aligned(&self) -> bool {
        self.bytes.start.is_multiple_of(BLOCK_SIZE) && self.bytes.end.is_multiple_of(BLOCK_SIZE)
    }

    /// What of it lies in these blocks, which are some of its own.
    pub(super) fn within(&self, blocks: BlockRange) -> Piece {
        let start = (blocks.first * BLOCK_SIZE).max(self.bytes.start);
        let end = (blocks.end() * BLOCK_SIZE).min(self.bytes.end);
        Piece {
            index: self.index,
            bytes: start..end,
            at: self.at + (start - self.bytes.start) as usize,
        }
    }

    /// The piece of the request's data.
    pub(super) fn of(&self, request: &SharedBuf) -> SharedBuf {
        request.slice(self.at..self.at + self.len())
    }

    /// The piece of the data of its blocks.
    pub(super) fn cut(&self, blocks: SharedBuf) -> SharedBuf {
        let start = (self.bytes.start % BLOCK_SIZE) as usize;
        match start == 0 && blocks.len() == self.len() {
            true => blocks,
            false => blocks.slice(start..start + self.len()),
        }
    }

    pub(super) fn is_whole_object(&self, size: ObjectSize) -> bool {
        self.bytes == (0..size.bytes())
    }

    /// Cut at block boundaries: a partial block before, whole blocks, a partial block after.
    pub(super) fn split(&self) -> impl Iterator<Item = Piece> + use<> {
        let (start, end) = (self.bytes.start, self.bytes.end);
        let head = start.next_multiple_of(BLOCK_SIZE).min(end);
        let tail = (end - end % BLOCK_SIZE).max(head);
        let (index, at) = (self.index, self.at);
        [start..head, head..tail, tail..end]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(move |part| Piece {
                index,
                at: at + (part.start - start) as usize,
                bytes: part,
            })
    }
}

/// The pieces of a request, in order.
pub(super) fn pieces(
    offset: u64,
    len: u64,
    size: ObjectSize,
) -> impl Iterator<Item = Piece> + use<> {
    let object = u64::from(size.bytes());
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let start = offset + done;
        let inside = start % object;
        let count = (object - inside).min(len - done);
        let piece = Piece {
            index: ObjectIndex::new(start / object)?,
            bytes: u32::try_from(inside).ok()?..u32::try_from(inside + count).ok()?,
            at: usize::try_from(done).ok()?,
        };
        done += count;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_request_once_and_stay_inside_of_objects(
            offset in 0_u64..1 << 26, len in 0_u64..1 << 24
        ) {
            let size = ObjectSize::new(1 << 20).expect("valid");
            let mut at = offset;
            for piece in pieces(offset, len, size) {
                prop_assert_eq!(piece.index.get() << 20 | u64::from(piece.bytes.start), at);
                prop_assert_eq!(piece.at as u64, at - offset);
                prop_assert!(piece.bytes.end <= 1 << 20);
                let mut inner = piece.bytes.start;
                for part in piece.split() {
                    prop_assert_eq!(part.bytes.start, inner);
                    prop_assert!(part.is_aligned() || part.blocks().count == 1);
                    inner = part.bytes.end;
                }
                prop_assert_eq!(inner, piece.bytes.end);
                at += piece.len() as u64;
            }
            prop_assert_eq!(at, offset + len);
        }
    }
}

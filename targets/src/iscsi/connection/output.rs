//! The queue of what is to be sent: small owned bytes and slices of the caller's payload, in order,
//! digests and padding included. It never copies payload; it does not know what a PDU means.
use std::collections::VecDeque;
use std::ops::Range;

use crate::iscsi::digest::{Crc32c, DigestMode, crc32c};
use crate::iscsi::limits::{BHS_LENGTH, MAX_QUEUED_CHUNKS, MAX_QUEUED_OUTPUT, MAX_QUEUED_OWNED};
use crate::iscsi::pdu::Bhs;

/// The end of one PDU (padding, data digest) and the header of the next.
const INLINE_LENGTH: usize = 3 + 4 + BHS_LENGTH + 4;

/// A few bytes without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Inline {
    length: u8,
    bytes: [u8; INLINE_LENGTH],
}

/// A piece of output. Send the bytes of all chunks in the order of `poll_transmit`.
#[derive(Clone, Debug)]
pub enum Chunk<P> {
    /// Headers, padding, digests.
    Inline(Inline),
    /// Text, sense data, echoed pings.
    Owned(Vec<u8>),
    /// A part of a payload that was handed to `complete`.
    Payload(P, Range<usize>),
}

impl<P: AsRef<[u8]>> Chunk<P> {
    /// The bytes to send, never empty.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(inline) => &inline.bytes[..usize::from(inline.length)],
            Self::Owned(bytes) => bytes,
            Self::Payload(payload, range) => &payload.as_ref()[range.clone()],
        }
    }
}

/// Output of one connection.
#[derive(Debug)]
pub(super) struct Output<P> {
    chunks: VecDeque<Chunk<P>>,
    bytes: usize,
    /// Capacity of the owned chunks.
    owned: usize,
    header_digest: DigestMode,
    data_digest: DigestMode,
}

impl<P: AsRef<[u8]> + Clone> Output<P> {
    pub fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            owned: 0,
            header_digest: DigestMode::None,
            data_digest: DigestMode::None,
        }
    }

    pub fn set_digests(&mut self, header: DigestMode, data: DigestMode) {
        (self.header_digest, self.data_digest) = (header, data);
    }

    pub fn is_full(&self) -> bool {
        self.bytes > MAX_QUEUED_OUTPUT
            || self.owned > MAX_QUEUED_OWNED
            || self.chunks.len() > MAX_QUEUED_CHUNKS
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn queued_bytes(&self) -> usize {
        self.bytes
    }

    /// Memory, without the payloads.
    pub fn held_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Chunk<P>>() + self.owned
    }

    pub fn clear(&mut self) {
        self.chunks.clear();
        (self.bytes, self.owned) = (0, 0);
    }

    pub fn pop(&mut self) -> Option<Chunk<P>> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.bytes().len();
        if let Chunk::Owned(bytes) = &chunk {
            self.owned -= bytes.capacity();
        }
        Some(chunk)
    }

    fn push_small(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(Chunk::Inline(inline)) = self.chunks.back_mut() {
            let start = usize::from(inline.length);
            if let Some(room) = inline.bytes.get_mut(start..start + bytes.len()) {
                room.copy_from_slice(bytes);
                inline.length += bytes.len() as u8;
                return;
            }
        }
        let mut inline = Inline {
            length: bytes.len() as u8,
            bytes: [0; INLINE_LENGTH],
        };
        inline.bytes[..bytes.len()].copy_from_slice(bytes);
        self.chunks.push_back(Chunk::Inline(inline));
    }

    fn push_header(&mut self, bhs: &Bhs) {
        let mut bytes = [0; BHS_LENGTH + 4];
        bytes[..BHS_LENGTH].copy_from_slice(&bhs.0);
        match self.header_digest {
            DigestMode::None => self.push_small(&bytes[..BHS_LENGTH]),
            DigestMode::Crc32c => {
                bytes[BHS_LENGTH..].copy_from_slice(&crc32c(&bhs.0));
                self.push_small(&bytes);
            }
        }
    }

    fn push_trailer(&mut self, data_length: usize, crc: Option<Crc32c>) {
        let mut bytes = [0; 3 + 4];
        let padding = data_length.next_multiple_of(4) - data_length;
        let mut length = padding;
        if let Some(mut crc) = crc {
            crc.update(&bytes[..padding]);
            bytes[padding..padding + 4].copy_from_slice(&crc.wire());
            length += 4;
        }
        if length > 0 {
            self.push_small(&bytes[..length]);
        }
    }

    fn data_crc(&self) -> Option<Crc32c> {
        (self.data_digest == DigestMode::Crc32c).then(Crc32c::new)
    }

    /// A PDU with owned data, or none; the header's DataSegmentLength must be `data.len()`.
    pub fn push(&mut self, bhs: &Bhs, data: Vec<u8>) {
        debug_assert_eq!(bhs.data_segment_length() as usize, data.len());
        self.push_header(bhs);
        if data.is_empty() {
            return;
        }
        let mut crc = self.data_crc();
        if let Some(crc) = &mut crc {
            crc.update(&data);
        }
        let length = data.len();
        self.bytes += length;
        self.owned += data.capacity();
        self.chunks.push_back(Chunk::Owned(data));
        self.push_trailer(length, crc);
    }

    /// A PDU whose data is the next `length` bytes of `cursor`.
    pub fn push_payload(&mut self, bhs: &Bhs, cursor: &mut PayloadCursor<'_, P>, length: usize) {
        self.push_header(bhs);
        let mut crc = self.data_crc();
        let mut left = length;
        while left > 0 {
            let Some((payload, range)) = cursor.take(left) else {
                break;
            };
            if let Some(crc) = &mut crc {
                crc.update(&payload.as_ref()[range.clone()]);
            }
            left -= range.len();
            self.bytes += range.len();
            self.chunks
                .push_back(Chunk::Payload(payload.clone(), range));
        }
        debug_assert_eq!(left, 0, "the caller counted the payload");
        self.push_trailer(length, crc);
    }
}

/// A place in a list of payload segments.
pub(super) struct PayloadCursor<'a, P> {
    segments: &'a [P],
    offset: usize,
}

impl<'a, P: AsRef<[u8]>> PayloadCursor<'a, P> {
    pub fn new(segments: &'a [P]) -> Self {
        Self {
            segments,
            offset: 0,
        }
    }

    fn take(&mut self, most: usize) -> Option<(&'a P, Range<usize>)> {
        loop {
            let (first, rest) = self.segments.split_first()?;
            let left = first.as_ref().len() - self.offset;
            if left == 0 {
                (self.segments, self.offset) = (rest, 0);
                continue;
            }
            let start = self.offset;
            self.offset += left.min(most);
            return Some((first, start..self.offset));
        }
    }
}

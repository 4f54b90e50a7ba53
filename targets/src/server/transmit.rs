//! Makes one send of what a connection has to say: small pieces are gathered by copying, payload leaves from where it
//! is. It sends nothing and knows no PDU.

use super::limits::{SEND_BYTES, SEND_COPY_BYTES, SEND_GATHER_BYTES, SEND_SLICES};
use crate::iscsi::{Chunk, Connection, Timestamp};
use atoll_reactor::{Buf, SharedBuf};
use std::ops::Range;

enum Piece {
    /// A part of a gathering buffer, by its number.
    Gathered(usize, Range<usize>),
    Payload(SharedBuf),
}

/// The working space of a connection's sender.
#[derive(Default)]
pub(super) struct Gatherer {
    pieces: Vec<Piece>,
    buffers: Vec<Buf>,
    /// Bytes used of the last buffer.
    filled: usize,
    /// The full buffers of one send.
    gathered: Vec<SharedBuf>,
    /// One send.
    batch: Vec<SharedBuf>,
}

impl Gatherer {
    /// Takes output of the connection, as much as one send is to have, for [`Gatherer::batch`]; how many bytes.
    pub(super) fn gather(&mut self, protocol: &mut Connection<SharedBuf>, now: Timestamp) -> usize {
        let mut bytes = 0;
        while bytes < SEND_BYTES && self.pieces.len() < SEND_SLICES {
            let Some(chunk) = protocol.poll_transmit(now) else {
                break;
            };
            bytes += chunk.bytes().len();
            self.push(chunk);
        }
        self.finish();
        bytes
    }

    /// What was gathered last.
    pub(super) fn batch(&self) -> &[SharedBuf] {
        &self.batch
    }

    /// The batch was sent: what it holds is given back.
    pub(super) fn sent(&mut self) {
        self.batch.clear();
    }

    fn push(&mut self, chunk: Chunk<SharedBuf>) {
        if chunk.bytes().len() <= SEND_COPY_BYTES {
            return self.copy(chunk.bytes());
        }
        self.pieces.push(Piece::Payload(match chunk {
            Chunk::Inline(_) => SharedBuf::from(chunk.bytes().to_vec()),
            Chunk::Owned(bytes) => SharedBuf::from(bytes),
            Chunk::Payload(payload, range) => payload.slice(range),
        }));
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.buffers.is_empty() || self.filled + bytes.len() > SEND_GATHER_BYTES {
            self.buffers.push(Buf::alloc(SEND_GATHER_BYTES));
            self.filled = 0;
        }
        let number = self.buffers.len() - 1;
        let place = self.filled..self.filled + bytes.len();
        self.filled = place.end;
        self.buffers[number][place.clone()].copy_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Gathered(last, range)) if *last == number && range.end == place.start => {
                range.end = place.end;
            }
            _ => self.pieces.push(Piece::Gathered(number, place)),
        }
    }

    fn finish(&mut self) {
        self.gathered
            .extend(self.buffers.drain(..).map(Buf::freeze));
        self.filled = 0;
        let gathered = &self.gathered;
        let slice = |piece| match piece {
            Piece::Gathered(number, range) => gathered[number].slice(range),
            Piece::Payload(payload) => payload,
        };
        self.batch.extend(self.pieces.drain(..).map(slice));
        self.gathered.clear();
    }
}

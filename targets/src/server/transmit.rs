//! Makes one send of what a connection has to say: small pieces are gathered by copying, payload leaves from where it
//! is. It sends nothing and knows no PDU.

use super::limits::{SEND_BYTES, SEND_COPY_BYTES, SEND_GATHER_BYTES, SEND_SLICES};
use crate::iscsi::{Chunk, Connection, Timestamp};
use atoll_reactor::{Buf, SharedBuf};
use std::ops::Range;

/// One send.
pub(super) struct Batch {
    pub(super) slices: Vec<SharedBuf>,
    pub(super) bytes: usize,
}

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
}

impl Gatherer {
    /// Takes output of the connection, as much as one send is to have; `None` when there is none.
    pub(super) fn gather(
        &mut self,
        protocol: &mut Connection<SharedBuf>,
        now: Timestamp,
    ) -> Option<Batch> {
        let mut bytes = 0;
        while bytes < SEND_BYTES && self.pieces.len() < SEND_SLICES {
            let Some(chunk) = protocol.poll_transmit(now) else {
                break;
            };
            bytes += chunk.bytes().len();
            self.push(chunk);
        }
        (bytes > 0).then(|| Batch {
            slices: self.finish(),
            bytes,
        })
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

    fn finish(&mut self) -> Vec<SharedBuf> {
        let gathered: Vec<SharedBuf> = self.buffers.drain(..).map(Buf::freeze).collect();
        self.filled = 0;
        let slice = |piece| match piece {
            Piece::Gathered(number, range) => gathered[number].slice(range),
            Piece::Payload(payload) => payload,
        };
        self.pieces.drain(..).map(slice).collect()
    }
}

//! The list of changes between two resources, in bytes. Drawn in `FORMAT.md`.

use crc_fast::{CrcAlgorithm, Digest};
use uuid::Uuid;

use super::format::UNIT;
use crate::api::ChangedRange;
use crate::units::ByteSize;

/// What a list of changes begins with.
pub const MAGIC: &[u8; 8] = b"ATOLLDIF";
pub const VERSION: u32 = 1;

/// Where a list is.
pub struct Encoder {
    crc: Digest,
    count: u64,
    at: u64,
}

impl Encoder {
    /// Begins a list; with its first bytes.
    pub fn new(size: ByteSize, from: Uuid, to: Uuid) -> (Self, Vec<u8>) {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(UNIT as u32).to_le_bytes());
        out.extend_from_slice(&size.get().to_le_bytes());
        out.extend_from_slice(from.as_bytes());
        out.extend_from_slice(to.as_bytes());
        let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        crc.update(&out);
        let encoder = Self {
            crc,
            count: 0,
            at: 0,
        };
        (encoder, out)
    }

    /// One change; they ascend, and are whole units.
    pub fn change(&mut self, change: &ChangedRange) -> Vec<u8> {
        let mut out = Vec::with_capacity(8);
        put_varint(&mut out, (change.offset - self.at) / UNIT);
        put_varint(
            &mut out,
            (change.length / UNIT) << 1 | u64::from(change.zero),
        );
        self.at = change.offset + change.length;
        self.count += 1;
        self.crc.update(&out);
        out
    }

    pub fn end(mut self) -> Vec<u8> {
        let mut out = vec![0, 0];
        out.extend_from_slice(&self.count.to_le_bytes());
        self.crc.update(&out);
        // A 32-bit checksum in a u64.
        let crc = self.crc.finalize() as u32;
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

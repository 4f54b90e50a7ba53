//! Writes a stream, record by record; the caller moves the bytes, in the order in which they are
//! given here.

use sha2::{Digest, Sha256};

use super::format::{DIGEST, HEAD, Head, Header, Kind, MAX_PAYLOAD, UNIT, crc32c};

/// What a stream came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub records: u64,
    /// Bytes of content.
    pub data: u64,
    /// Bytes of the stream itself.
    pub written: u64,
}

/// Where a stream is.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub(super) chain: u32,
    pub(super) hash: Sha256,
    pub(super) totals: Totals,
    /// End of the last range.
    pub(super) at: u64,
    pub(super) incremental: bool,
    pub(super) size: u64,
}

impl Encoder {
    /// Begins a stream; with the bytes of its header.
    pub fn new(header: &Header) -> (Self, Vec<u8>) {
        let bytes = header.encode();
        let mut encoder = Self {
            chain: Header::chain(&bytes),
            hash: Sha256::new(),
            totals: Totals::default(),
            at: 0,
            incremental: header.base.is_some(),
            size: header.size.get(),
        };
        encoder.account(&bytes);
        (encoder, bytes)
    }

    /// Where the next range may begin at the earliest.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The head of a record of content, which `payload` follows. Panics on ranges that the format
    /// does not allow: they are our own.
    pub fn data(&mut self, offset: u64, payload: &[u8]) -> [u8; HEAD] {
        assert!(payload.len() <= MAX_PAYLOAD, "a record is too long");
        let length = payload.len() as u64;
        self.advance(offset, length);
        let head = self.head(Head {
            kind: Kind::Data,
            payload: payload.len(),
            offset,
            length,
            payload_crc: crc32c(payload),
        });
        self.account(payload);
        self.totals.data += length;
        head
    }

    /// A record of zeros; of incremental streams only.
    pub fn zeros(&mut self, offset: u64, length: u64) -> [u8; HEAD] {
        assert!(self.incremental, "a whole stream leaves zeros out");
        self.advance(offset, length);
        self.head(Head {
            kind: Kind::Zeros,
            payload: 0,
            offset,
            length,
            payload_crc: 0,
        })
    }

    /// The end, and what the stream came to.
    pub fn end(mut self) -> (Vec<u8>, Totals) {
        let digest: [u8; DIGEST] = self.hash.clone().finalize().into();
        let head = Head {
            kind: Kind::End,
            payload: DIGEST,
            offset: self.totals.records,
            length: self.totals.data,
            payload_crc: crc32c(&digest),
        };
        let mut out = head.encode(self.chain).0.to_vec();
        out.extend_from_slice(&digest);
        self.totals.written += out.len() as u64;
        (out, self.totals)
    }

    fn advance(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        assert!(
            offset >= self.at
                && length > 0
                && offset.is_multiple_of(UNIT)
                && length.is_multiple_of(UNIT)
                && end <= self.size,
            "a record of {offset}+{length} after {}",
            self.at
        );
        self.at = end;
    }

    fn head(&mut self, head: Head) -> [u8; HEAD] {
        let (bytes, chain) = head.encode(self.chain);
        self.chain = chain;
        self.totals.records += 1;
        self.account(&bytes);
        bytes
    }

    fn account(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.totals.written += bytes.len() as u64;
    }
}

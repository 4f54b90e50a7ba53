//! Header and data digests: CRC-32C as RFC 7143 §13.1 lays it on the wire (bytes of the reflected
//! remainder, least significant first). Not the decision whether to use them: that is negotiated.
use crc_fast::{CrcAlgorithm, Digest as Crc};

/// Length of a digest on the wire.
pub const DIGEST_LENGTH: usize = 4;

/// Whether a digest follows a header or a data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DigestMode {
    /// No digest.
    #[default]
    None,
    /// CRC-32C.
    Crc32c,
}

impl DigestMode {
    /// Bytes that the digest adds.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c => DIGEST_LENGTH,
        }
    }
}

/// CRC-32C over pieces.
pub struct Crc32c(Crc);

impl Crc32c {
    /// Over nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Crc::new(CrcAlgorithm::Crc32Iscsi))
    }
    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The four bytes on the wire.
    #[must_use]
    pub fn wire(&self) -> [u8; DIGEST_LENGTH] {
        (self.0.finalize() as u32).to_le_bytes()
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// The digest of one contiguous piece.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> [u8; DIGEST_LENGTH] {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.wire()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7143_appendix_a() {
        assert_eq!(crc32c(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), [0x4e, 0x79, 0xdd, 0x46]);
    }

    #[test]
    fn pieces_equal_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        let mut crc = Crc32c::new();
        bytes.chunks(7).for_each(|piece| crc.update(piece));
        assert_eq!(crc.wire(), crc32c(&bytes));
    }
}

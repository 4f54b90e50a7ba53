//! The bytes of a file pool's label and mark, as `FORMAT.md` draws them. Pure: bytes in, values out.

use crate::{Error, ErrorKind, Generation, ObjectSize, PoolId, Result};
use crc_fast::{CrcAlgorithm, checksum};
use std::fmt;

/// Both files have this length, so that they are read and written with one aligned transfer.
pub(crate) const FILE_LEN: usize = 4096;
const CHECKSUM_AT: usize = FILE_LEN - 4;
const LABEL_MAGIC: [u8; 8] = *b"AtolFile";
const MARK_MAGIC: [u8; 8] = *b"AtolMark";
/// The version written, and the newest one read.
pub const FORMAT_VERSION: u32 = 1;
const OWNER_LEN: usize = 8;
const OWNER_FIELD: usize = 16;

/// What stands before the names of a pool's objects: the first 8 hex digits of the pool's id.
/// Objects of another pool that were copied into the directory are not taken for its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OwnerPrefix([u8; OWNER_LEN]);

impl OwnerPrefix {
    pub fn of(pool: PoolId) -> OwnerPrefix {
        let mut text = [0; OWNER_LEN];
        for (place, byte) in text.chunks_mut(2).zip(pool.0) {
            place[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            place[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        OwnerPrefix(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits")
    }
}

impl fmt::Display for OwnerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `pool.label` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    pub pool: PoolId,
    pub object_size: ObjectSize,
    pub owner: OwnerPrefix,
}

fn bad(kind: ErrorKind, what: &str, why: &str) -> Error {
    Error::new(kind, format!("{what}: {why}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn crc(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("32 bits")
}

/// What both files begin with: magic and version; their ends are checksums.
fn begin(magic: [u8; 8]) -> Vec<u8> {
    let mut bytes = vec![0; FILE_LEN];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Checks length, magic, checksum and version, in that order; every version keeps these places.
fn check(bytes: &[u8], magic: [u8; 8], what: &str) -> Result<()> {
    if bytes.len() != FILE_LEN {
        let why = format!("{} bytes long, must be {FILE_LEN}", bytes.len());
        return Err(bad(ErrorKind::Corrupt, what, &why));
    }
    if bytes[..8] != magic {
        return Err(bad(ErrorKind::Corrupt, what, "not written by atoll"));
    }
    if u32_at(bytes, CHECKSUM_AT) != crc(&bytes[..CHECKSUM_AT]) {
        return Err(bad(ErrorKind::Corrupt, what, "its checksum is wrong"));
    }
    let version = u32_at(bytes, 8);
    if version > FORMAT_VERSION {
        let why = format!(
            "format version {version} was written by a newer atoll; this one reads up to \
             {FORMAT_VERSION}"
        );
        return Err(bad(ErrorKind::Invalid, what, &why));
    }
    if version == 0 {
        return Err(bad(ErrorKind::Corrupt, what, "format version 0"));
    }
    Ok(())
}

impl Label {
    pub fn new(pool: PoolId, object_size: ObjectSize) -> Label {
        Label {
            pool,
            object_size,
            owner: OwnerPrefix::of(pool),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = begin(LABEL_MAGIC);
        bytes[12..16].copy_from_slice(&self.object_size.bytes().to_le_bytes());
        bytes[16..32].copy_from_slice(&self.pool.0);
        bytes[32..32 + OWNER_LEN].copy_from_slice(&self.owner.0);
        seal(bytes)
    }

    /// `what` names the file in errors. `Corrupt`, or `Invalid` for a newer version.
    pub fn decode(bytes: &[u8], what: &str) -> Result<Label> {
        check(bytes, LABEL_MAGIC, what)?;
        let size = u32_at(bytes, 12);
        let object_size = ObjectSize::new(size).ok_or_else(|| {
            let why = format!("{size} bytes are no object size");
            bad(ErrorKind::Corrupt, what, &why)
        })?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        let label = Label::new(PoolId(id), object_size);
        let mut owner = [0; OWNER_FIELD];
        owner[..OWNER_LEN].copy_from_slice(&label.owner.0);
        if bytes[32..32 + OWNER_FIELD] != owner {
            return Err(bad(ErrorKind::Corrupt, what, "its owner prefix is wrong"));
        }
        Ok(label)
    }
}

/// The file of a mark.
pub fn encode_mark(pool: PoolId, mark: Generation) -> Vec<u8> {
    let mut bytes = begin(MARK_MAGIC);
    bytes[16..32].copy_from_slice(&pool.0);
    bytes[32..40].copy_from_slice(&mark.get().to_le_bytes());
    seal(bytes)
}

/// `what` names the file in errors. `Corrupt`, also for the mark of another pool, or `Invalid` for a newer version.
pub fn decode_mark(bytes: &[u8], pool: PoolId, what: &str) -> Result<Generation> {
    check(bytes, MARK_MAGIC, what)?;
    if bytes[16..32] != pool.0 {
        return Err(bad(ErrorKind::Corrupt, what, "it belongs to another pool"));
    }
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[32..40]);
    Generation::new(u64::from_le_bytes(word))
        .ok_or_else(|| bad(ErrorKind::Corrupt, what, "its generation has over 52 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: PoolId = PoolId([
        0x12, 0x34, 0xab, 0xcd, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ]);

    fn label() -> Label {
        Label::new(POOL, ObjectSize::DEFAULT)
    }

    fn mark() -> Generation {
        Generation::new(0x000f_edcb_a987_6543).expect("52 bits")
    }

    #[test]
    fn golden_bytes() {
        let golden = include_bytes!("../../../tests/vectors/backends/pool.label");
        assert_eq!(label().encode(), golden);
        assert_eq!(Label::decode(golden, "label").expect("reads"), label());
        let golden = include_bytes!("../../../tests/vectors/backends/pool.mark");
        assert_eq!(encode_mark(POOL, mark()), golden);
        assert_eq!(decode_mark(golden, POOL, "mark").expect("reads"), mark());
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_noticed() {
        let (label, mark) = (label().encode(), encode_mark(POOL, mark()));
        for bit in 0..FILE_LEN * 8 {
            for (bytes, is_label) in [(&label, true), (&mark, false)] {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                let refused = match is_label {
                    true => Label::decode(&wrong, "label").is_err(),
                    false => decode_mark(&wrong, POOL, "mark").is_err(),
                };
                assert!(refused, "bit {bit}");
            }
        }
        for len in [0, 1, 8, FILE_LEN - 1] {
            assert!(Label::decode(&label[..len], "label").is_err());
            assert!(decode_mark(&mark[..len], POOL, "mark").is_err());
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such_and_a_foreign_mark_refused() {
        let mut newer = label().encode();
        newer[8] = 2;
        let error = Label::decode(&seal(newer), "x/pool.label").expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("version 2"), "{error}");
        let error = decode_mark(&encode_mark(PoolId([9; 16]), mark()), POOL, "m");
        assert_eq!(error.expect_err("foreign").kind(), ErrorKind::Corrupt);
    }
}

//! A file pool's label and mark under any bytes, with right checksums: refused, or read as what would be written.
use atoll_backends::PoolId;
use atoll_backends::file::{Label, decode_mark, encode_mark};
use atoll_targets::iscsi::digest::crc32c;

use crate::vectors;

const FILE_LENGTH: usize = 4096;

/// Any bytes as either file, as they are and, in the right length, with the checksum that belongs there.
pub fn label(input: &[u8]) {
    either(input);
    let mut sealed = input.to_vec();
    sealed.resize(FILE_LENGTH, 0);
    let sum = crc32c(&sealed[..FILE_LENGTH - 4]);
    sealed[FILE_LENGTH - 4..].copy_from_slice(&sum);
    either(&sealed);
}

fn either(bytes: &[u8]) {
    if let Ok(label) = Label::decode(bytes, "label") {
        // What is reserved may be anything: a later version may use it.
        let again = Label::decode(&label.encode(), "label");
        assert_eq!(again.ok(), Some(label));
    }
    let pool = bytes.get(16..32).and_then(|id| id.try_into().ok());
    let pool = PoolId(pool.unwrap_or_default());
    if let Ok(mark) = decode_mark(bytes, pool, "mark") {
        let again = decode_mark(&encode_mark(pool, mark), pool, "mark");
        assert_eq!(again.ok(), Some(mark));
    }
}

/// Both golden files, cut to where they say something.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = vectors::pool_files();
    files.iter().map(|file| file[..64].to_vec()).collect()
}

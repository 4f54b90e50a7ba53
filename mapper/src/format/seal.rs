//! Sealed values: layout, body, and a CRC-32C over key, layout and body, so that a value under a
//! wrong key is as corrupt as one with a flipped bit.

use super::codec::{FormatError, Result};
use super::key::describe;
use super::rows::Row;
use crate::error::{Error, ErrorKind};
use crc_fast::{CrcAlgorithm, Digest};

const LAYOUT: u8 = 1;
const CRC_LEN: usize = 4;

fn checksum(key: &[u8], sealed: &[u8]) -> [u8; CRC_LEN] {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(key);
    digest.update(sealed);
    // A 32-bit sum comes in the low half.
    (digest.finalize() as u32).to_le_bytes()
}

/// The value, or merge operand, that holds `body` under `key`.
pub fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + body.len() + CRC_LEN);
    value.push(LAYOUT);
    value.extend_from_slice(body);
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum);
    value
}

/// The body of a sealed value.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8]> {
    let (sealed, sum) = value
        .split_last_chunk::<CRC_LEN>()
        .ok_or(FormatError::new("it is too short to be sealed"))?;
    if checksum(key, sealed) != *sum {
        return Err(FormatError::new("its checksum is wrong"));
    }
    match sealed.split_first() {
        Some((&LAYOUT, body)) => Ok(body),
        Some(_) => Err(FormatError::new("its layout is unknown")),
        None => Err(FormatError::new("it is too short to be sealed")),
    }
}

/// The row of a sealed value; `Corrupt`, naming the key, if it is none.
pub fn open_row<R: Row>(key: &[u8], value: &[u8]) -> std::result::Result<R, Error> {
    unseal(key, value)
        .and_then(R::decode)
        .map_err(|error| corrupt(key, error))
}

/// The error of a row that cannot be read.
pub(crate) fn corrupt(key: &[u8], error: FormatError) -> Error {
    Error::with_source(
        ErrorKind::Corrupt,
        format!("metadata row {}", describe(key)),
        error,
    )
}

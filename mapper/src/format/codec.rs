//! The small pieces that bodies are made of: little-endian integers, varints, strings.

use std::fmt;

/// Why bytes are not a canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatError(&'static str);

impl FormatError {
    pub const fn new(why: &'static str) -> FormatError {
        FormatError(why)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for FormatError {}

pub(super) type Result<T> = std::result::Result<T, FormatError>;

const TRUNCATED: FormatError = FormatError("it ends too early");

/// Reads a body from its front.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A u8 that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError("a flag is neither 0 nor 1")),
        }
    }

    /// LEB128 in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError("a varint has more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(FormatError("a varint is longer than it needs to be"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(FormatError("a varint has more than 64 bits"))
    }

    pub(super) fn zigzag(&mut self) -> Result<i64> {
        self.varint()
            .map(|value| (value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A u8 length and that many bytes of UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a str> {
        let len = self.u8()?;
        utf8(self.bytes(usize::from(len))?)
    }

    /// A u16 length and that many bytes of UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let len = self.u16()?;
        utf8(self.bytes(usize::from(len))?)
    }

    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError("bytes follow its end"))
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| FormatError("a text is not UTF-8"))
}

/// Appends the pieces of a body.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn with_capacity(capacity: usize) -> Writer {
        Writer {
            bytes: Vec::with_capacity(capacity),
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    pub(super) fn zigzag(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// Panics above 255 bytes: what is written was checked when it was made.
    pub(super) fn string(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).expect("a string has at most 255 bytes"));
        self.bytes(text.as_bytes());
    }

    /// Panics above 65535 bytes: what is written was checked when it was made.
    pub(super) fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("a text has at most 65535 bytes"));
        self.bytes(text.as_bytes());
    }
}

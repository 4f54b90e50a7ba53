//! Header and heads of the stream as values, and their bytes; the limits. What order they come in
//! is `encode`'s and `decode`'s business.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest, checksum};
use uuid::Uuid;

use crate::api::{BlockSize, MAX_VOLUME_SIZE};
use crate::error::Error;
use crate::name::{MAX_NAME, ResourceName};
use crate::units::{ByteSize, UnixSeconds};

/// What a stream begins with.
pub const MAGIC: &[u8; 8] = b"ATOLLEXP";
pub const VERSION: u16 = 1;
/// Offsets and lengths are multiples of this.
pub const UNIT: u64 = 4096;
/// Longest payload of a record in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Bytes of a record's head.
pub const HEAD: usize = 32;
/// Bytes of the end's payload: SHA-256.
pub const DIGEST: usize = 32;

/// Bytes of the header before the names.
const FIXED: usize = 72;
const CRC: usize = 4;
/// Bytes of the shortest and the longest header.
pub const MIN_HEADER: usize = FIXED + 2 + 1 + CRC;
pub const MAX_HEADER: usize = FIXED + 2 * (1 + MAX_NAME) + CRC;
/// Bytes after which the header's length is known.
pub const HEADER_LENGTH_END: usize = 16;

const INCREMENTAL: u16 = 1;
const TEMPORARY: u16 = 2;

/// Why bytes are no stream, or not the one that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as a stream does.
    NotAStream,
    /// Written by a newer version, which is given.
    Newer(u16),
    /// Ends before its end.
    Truncated,
    /// What is wrong.
    Broken(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAStream => f.write_str("this is no export of Atoll"),
            Self::Newer(version) => write!(
                f,
                "it has format version {version}, and this command knows {VERSION} only"
            ),
            Self::Truncated => f.write_str("it is incomplete: its end is missing"),
            Self::Broken(what) => write!(f, "it is damaged: {what}"),
        }
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        match damage {
            Damage::NotAStream => Self::invalid(damage.to_string()),
            Damage::Newer(_) => Self::refused(damage.to_string())
                .hint("read it with the version that wrote it, or a newer one"),
            Damage::Truncated | Damage::Broken(_) => Self::internal(damage.to_string()),
        }
    }
}

/// The snapshot that a stream is the difference to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub id: Uuid,
    pub name: ResourceName,
}

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: ResourceName,
    pub id: Uuid,
    pub size: ByteSize,
    pub block_size: BlockSize,
    pub created: UnixSeconds,
    /// None: it is whole.
    pub base: Option<Base>,
    /// The snapshot was made for this export only.
    pub temporary: bool,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let incremental = if self.base.is_some() { INCREMENTAL } else { 0 };
        let temporary = if self.temporary { TEMPORARY } else { 0 };
        let base_name = self.base.as_ref().map_or("", |base| base.name.as_str());
        let base_id = self.base.as_ref().map_or(Uuid::nil(), |base| base.id);
        let name = self.name.as_str();
        let length = FIXED + 2 + name.len() + base_name.len() + CRC;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(incremental | temporary).to_le_bytes());
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&self.size.get().to_le_bytes());
        out.extend_from_slice(&u32::from(self.block_size).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(base_id.as_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        for name in [name, base_name] {
            // At most 200: the rule of names.
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// From exactly its bytes, whose length [`header_length`] has told.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let wrong = Damage::Broken;
        if header_length(bytes)? != bytes.len() {
            return Err(wrong("the header's length"));
        }
        let (body, crc) = bytes.split_at(bytes.len() - CRC);
        if u32_at(crc, 0) != crc32c(body) {
            return Err(wrong("the header's checksum is wrong"));
        }
        let flags = u16_at(body, 10);
        if flags & !(INCREMENTAL | TEMPORARY) != 0 || body[28..32] != [0; 4] {
            return Err(wrong("the header says what is not known"));
        }
        let mut rest = &body[FIXED..];
        let name = take_name(&mut rest)?.ok_or(wrong("the name is empty"))?;
        let base_name = take_name(&mut rest)?;
        let base_id = uuid_at(body, 48);
        let base = match (flags & INCREMENTAL != 0, base_name) {
            (true, Some(name)) => Some(Base { id: base_id, name }),
            (false, None) if base_id.is_nil() => None,
            _ => return Err(wrong("the header's base")),
        };
        let size = ByteSize::bytes(u64_at(body, 16));
        let legal = size.get().is_multiple_of(UNIT) && size.get() > 0 && size <= MAX_VOLUME_SIZE;
        if !rest.is_empty() || !legal {
            return Err(wrong("the header"));
        }
        Ok(Self {
            name,
            id: uuid_at(body, 32),
            size,
            block_size: u32_at(body, 24)
                .try_into()
                .map_err(|_| wrong("the block size"))?,
            created: UnixSeconds(u64_at(body, 64)),
            base,
            temporary: flags & TEMPORARY != 0,
        })
    }

    /// What the chain of records begins with.
    pub fn chain(encoded: &[u8]) -> u32 {
        u32_at(encoded, encoded.len() - CRC)
    }
}

/// Bytes of the header that begins with these, at least [`HEADER_LENGTH_END`].
pub fn header_length(start: &[u8]) -> Result<usize, Damage> {
    if !start.starts_with(MAGIC) {
        return Err(Damage::NotAStream);
    }
    let version = u16_at(start, 8);
    if version == 0 {
        return Err(Damage::Broken("the version is 0"));
    }
    if version > VERSION {
        return Err(Damage::Newer(version));
    }
    let length = u32_at(start, 12) as usize;
    if !(MIN_HEADER..=MAX_HEADER).contains(&length) {
        return Err(Damage::Broken("the header's length"));
    }
    Ok(length)
}

fn take_name(rest: &mut &[u8]) -> Result<Option<ResourceName>, Damage> {
    let wrong = || Damage::Broken("a name in the header");
    let (length, after) = rest.split_first().ok_or_else(wrong)?;
    let (name, after) = after
        .split_at_checked(usize::from(*length))
        .ok_or_else(wrong)?;
    *rest = after;
    if name.is_empty() {
        return Ok(None);
    }
    let name = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok());
    name.map(Some).ok_or_else(wrong)
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Data = 1,
    Zeros = 2,
    End = 3,
}

/// What a record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub payload: usize,
    pub offset: u64,
    pub length: u64,
    pub payload_crc: u32,
}

impl Head {
    /// The bytes, and the chain after them.
    pub fn encode(&self, chain: u32) -> ([u8; HEAD], u32) {
        let mut out = [0; HEAD];
        out[0] = self.kind as u8;
        // At most `MAX_PAYLOAD`.
        out[4..8].copy_from_slice(&(self.payload as u32).to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.length.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let next = chained(chain, &out[..28]);
        out[28..].copy_from_slice(&next.to_le_bytes());
        (out, next)
    }

    /// The head, and the chain after it. What its numbers may be is not looked at.
    pub fn decode(bytes: &[u8; HEAD], chain: u32) -> Result<(Self, u32), Damage> {
        let next = chained(chain, &bytes[..28]);
        if u32_at(bytes, 28) != next {
            return Err(Damage::Broken("a record's checksum is wrong"));
        }
        let kind = match bytes[0] {
            1 => Kind::Data,
            2 => Kind::Zeros,
            3 => Kind::End,
            _ => return Err(Damage::Broken("a record of a kind that is not known")),
        };
        if bytes[1..4] != [0; 3] {
            return Err(Damage::Broken("a record says what is not known"));
        }
        let head = Self {
            kind,
            payload: u32_at(bytes, 4) as usize,
            offset: u64_at(bytes, 8),
            length: u64_at(bytes, 16),
            payload_crc: u32_at(bytes, 24),
        };
        Ok((head, next))
    }
}

fn chained(chain: u32, head: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&chain.to_le_bytes());
    digest.update(head);
    // A 32-bit checksum in a u64.
    digest.finalize() as u32
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    // A 32-bit checksum in a u64.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes(array_at(bytes, at))
}

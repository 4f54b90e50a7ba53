//! Rows of the catalogue: the store itself, pools, resources, names, exports.

use super::{Row, body, flags, whole};
use crate::format::FORMAT_VERSION;
use crate::format::codec::{FormatError, Reader, Result};
use crate::types::{InstanceId, NodeId, PoolNumber, ResourceId, ResourceName};
use atoll_backends::{Generation, ObjectSize, PoolId};

const MAGIC: &[u8; 8] = b"ATOLLMET";
/// Longest pool name in bytes.
const MAX_POOL_NAME: usize = 200;

/// Table 01.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// A daemon refuses a store whose format is above [`FORMAT_VERSION`].
    pub format: u32,
    pub instance: InstanceId,
    /// Seconds since 1970.
    pub created: u64,
}

impl Superblock {
    pub fn new(instance: InstanceId, created: u64) -> Superblock {
        Superblock {
            format: FORMAT_VERSION,
            instance,
            created,
        }
    }
}

impl Row for Superblock {
    fn encode(&self) -> Vec<u8> {
        body(|out| {
            out.bytes(MAGIC);
            out.u32(self.format);
            out.bytes(&self.instance.0);
            out.u64(self.created);
        })
    }

    fn decode(body: &[u8]) -> Result<Superblock> {
        whole(body, |r| {
            if r.array()? != *MAGIC {
                return Err(FormatError::new("it is no superblock of Atoll's"));
            }
            Ok(Superblock {
                format: r.u32()?,
                instance: InstanceId(r.array()?),
                created: r.u64()?,
            })
        })
    }
}

/// Table 02.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunState {
    /// True only between a clean stop and the next start.
    pub clean: bool,
    /// Number of starts.
    pub starts: u64,
    /// Number of the last start that followed an unclean stop; 0 if there was none.
    pub unclean: u64,
}

impl Row for RunState {
    fn encode(&self) -> Vec<u8> {
        body(|out| {
            out.u8(self.clean.into());
            out.u64(self.starts);
            out.u64(self.unclean);
        })
    }

    fn decode(body: &[u8]) -> Result<RunState> {
        whole(body, |r| {
            Ok(RunState {
                clean: r.flag()?,
                starts: r.u64()?,
                unclean: r.u64()?,
            })
        })
    }
}

/// Table 03.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterRow {
    /// The number to give out next.
    pub next: u64,
}

impl Row for CounterRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.u64(self.next))
    }

    fn decode(body: &[u8]) -> Result<CounterRow> {
        whole(body, |r| Ok(CounterRow { next: r.u64()? }))
    }
}

/// What a pool's objects are kept in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PoolKind {
    File = 1,
    Memory = 2,
    Null = 3,
    Block = 4,
    Rados = 5,
    Gluster = 6,
    S3 = 7,
}

impl PoolKind {
    fn from_byte(byte: u8) -> Result<PoolKind> {
        Ok(match byte {
            1 => PoolKind::File,
            2 => PoolKind::Memory,
            3 => PoolKind::Null,
            4 => PoolKind::Block,
            5 => PoolKind::Rados,
            6 => PoolKind::Gluster,
            7 => PoolKind::S3,
            _ => return Err(FormatError::new("the kind of pool is unknown")),
        })
    }
}

/// Table 10.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolRow {
    pub id: PoolId,
    pub kind: PoolKind,
    pub object_size: ObjectSize,
    /// At most 200 bytes; follows the rule of resources' names.
    pub name: ResourceName,
    /// JSON; at most 65535 bytes.
    pub options: String,
}

impl Row for PoolRow {
    /// Panics if the options are longer than 65535 bytes.
    fn encode(&self) -> Vec<u8> {
        body(|out| {
            out.bytes(&self.id.0);
            out.u8(self.kind as u8);
            out.u8(self.object_size.shift() as u8);
            out.string(self.name.as_str());
            out.text(&self.options);
        })
    }

    fn decode(body: &[u8]) -> Result<PoolRow> {
        whole(body, |r| {
            Ok(PoolRow {
                id: PoolId(r.array()?),
                kind: PoolKind::from_byte(r.u8()?)?,
                object_size: object_size(r.u8()?)?,
                name: name(r)?,
                options: r.text()?.to_owned(),
            })
        })
    }
}

const _: () = assert!(MAX_POOL_NAME <= ResourceName::MAX_LEN);

fn object_size(shift: u8) -> Result<ObjectSize> {
    1_u32
        .checked_shl(u32::from(shift))
        .and_then(ObjectSize::new)
        .ok_or(FormatError::new("the object size is out of range"))
}

fn name(reader: &mut Reader<'_>) -> Result<ResourceName> {
    ResourceName::from_bytes(reader.string()?.as_bytes())
        .ok_or(FormatError::new("the name breaks the rule of names"))
}

/// Table 11. Every generation below the mark may have been used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkRow {
    pub reserved_below: Generation,
}

impl Row for MarkRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.u64(self.reserved_below.get()))
    }

    fn decode(body: &[u8]) -> Result<MarkRow> {
        whole(body, |r| {
            Ok(MarkRow {
                reserved_below: super::maps::generation(r)?,
            })
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ResourceKind {
    Volume = 1,
    Snapshot = 2,
    Image = 3,
    File = 4,
}

impl ResourceKind {
    fn from_byte(byte: u8) -> Result<ResourceKind> {
        Ok(match byte {
            1 => ResourceKind::Volume,
            2 => ResourceKind::Snapshot,
            3 => ResourceKind::Image,
            4 => ResourceKind::File,
            _ => return Err(FormatError::new("the kind of resource is unknown")),
        })
    }
}

/// The block that initiators address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum LogicalBlock {
    Bytes512 = 9,
    Bytes4096 = 12,
}

impl LogicalBlock {
    /// log2 of the bytes.
    pub const fn shift(self) -> u32 {
        self as u32
    }

    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// `None` unless it is 512 or 4096.
    pub const fn from_bytes(bytes: u32) -> Option<LogicalBlock> {
        match bytes {
            512 => Some(LogicalBlock::Bytes512),
            4096 => Some(LogicalBlock::Bytes4096),
            _ => None,
        }
    }
}

const READ_ONLY: u8 = 1 << 0;
const PROTECTED: u8 = 1 << 1;

/// Table 20.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceRow {
    pub kind: ResourceKind,
    pub read_only: bool,
    pub protected: bool,
    pub block: LogicalBlock,
    pub pool: PoolNumber,
    pub node: NodeId,
    /// Bytes, a multiple of 4096.
    pub size: u64,
    /// Seconds since 1970.
    pub created: u64,
    pub name: ResourceName,
}

impl Row for ResourceRow {
    fn encode(&self) -> Vec<u8> {
        let read_only = if self.read_only { READ_ONLY } else { 0 };
        let protected = if self.protected { PROTECTED } else { 0 };
        body(|out| {
            out.u8(self.kind as u8);
            out.u8(read_only | protected);
            out.u8(self.block as u8);
            out.u32(self.pool.get());
            out.u64(self.node.get());
            out.u64(self.size);
            out.u64(self.created);
            out.string(self.name.as_str());
        })
    }

    fn decode(body: &[u8]) -> Result<ResourceRow> {
        whole(body, |r| {
            let kind = ResourceKind::from_byte(r.u8()?)?;
            let flags = flags(r, READ_ONLY | PROTECTED)?;
            Ok(ResourceRow {
                kind,
                read_only: flags & READ_ONLY != 0,
                protected: flags & PROTECTED != 0,
                block: match r.u8()? {
                    9 => LogicalBlock::Bytes512,
                    12 => LogicalBlock::Bytes4096,
                    _ => return Err(FormatError::new("the block size is neither 512 nor 4096")),
                },
                pool: super::maps::pool(r)?,
                node: super::maps::node(r)?,
                size: r.u64()?,
                created: r.u64()?,
                name: name(r)?,
            })
        })
    }
}

/// Table 21.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameRow {
    pub id: ResourceId,
}

impl Row for NameRow {
    fn encode(&self) -> Vec<u8> {
        self.id.0.to_vec()
    }

    fn decode(body: &[u8]) -> Result<NameRow> {
        whole(body, |r| {
            Ok(NameRow {
                id: ResourceId(r.array()?),
            })
        })
    }
}

/// Table 22.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportRow {
    pub read_only: bool,
}

impl Row for ExportRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.u8(if self.read_only { READ_ONLY } else { 0 }))
    }

    fn decode(body: &[u8]) -> Result<ExportRow> {
        whole(body, |r| {
            Ok(ExportRow {
                read_only: flags(r, READ_ONLY)? != 0,
            })
        })
    }
}

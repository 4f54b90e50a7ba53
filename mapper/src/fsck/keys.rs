//! Keys of all tables, read as FORMAT.md draws them, and how they read in a report.

use super::bytes::{Damage, Decoded, Input, name, require};
use super::names::Name;
use std::fmt;

/// Groups that hold the entries of 40-bit indices.
const GROUPS: u32 = 1 << 22;
const REF_BITS: u32 = 52;

pub(super) mod table {
    pub const POOL: u8 = 0x10;
    pub const MARK: u8 = 0x11;
    pub const STORE_RECORD: u8 = 0x12;
    pub const RESOURCE: u8 = 0x20;
    pub const NAME: u8 = 0x21;
    pub const EXPORT: u8 = 0x22;
    pub const NODE: u8 = 0x30;
    pub const CHILD: u8 = 0x31;
    pub const USAGE: u8 = 0x32;
    pub const GROUP: u8 = 0x40;
    pub const PAGE: u8 = 0x41;
    pub const PARTIAL: u8 = 0x50;
    pub const OBJECT: u8 = 0x60;
    pub const COUNT: u8 = 0x61;
    pub const CONTENT: u8 = 0x62;
    pub const DEAD: u8 = 0x70;
    /// Read one after the other before the maps.
    pub const CATALOGUE: [u8; 11] = [
        0x01,
        0x02,
        0x03,
        POOL,
        MARK,
        STORE_RECORD,
        RESOURCE,
        NAME,
        EXPORT,
        NODE,
        CHILD,
    ];
    /// Read with the maps.
    pub const MAPS: [u8; 8] = [USAGE, GROUP, PAGE, PARTIAL, OBJECT, COUNT, CONTENT, DEAD];
}

/// A UUID, in the order of its text form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:032x}", u128::from_be_bytes(self.0));
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &text[range]);
        f.write_str(&parts.join("-"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Counter {
    Node,
    Pool,
    Ref,
}

impl Counter {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Counter::Node => "node",
            Counter::Pool => "pool",
            Counter::Ref => "ref",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Iscsi,
    NvmeTcp,
}

/// What a row is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Superblock,
    RunState,
    Counter(Counter),
    Pool(u32),
    Mark(u32),
    StoreRecord(u32),
    Resource(Uuid),
    Name(String),
    Export(Uuid, Protocol),
    Node(u64),
    Child { parent: u64, child: u64 },
    Usage(u64),
    Group { node: u64, group: u32 },
    Page { node: u64, page: u32 },
    Partial(Name),
    Object { pool: u32, id: u64 },
    Count { pool: u32, id: u64 },
    Content { pool: u32, sha256: [u8; 32] },
    Dead(Name),
}

impl Key {
    /// The key of a known table.
    pub(super) fn parse(bytes: &[u8]) -> Decoded<Key> {
        let mut input = Input(bytes);
        let key = match input.u8()? {
            0x01 => Key::Superblock,
            0x02 => Key::RunState,
            0x03 => Key::Counter(match input.u8()? {
                1 => Counter::Node,
                2 => Counter::Pool,
                3 => Counter::Ref,
                _ => return Err(Damage::Form("the counter is unknown")),
            }),
            table::POOL => Key::Pool(pool(input.key_u32()?)?),
            table::MARK => Key::Mark(pool(input.key_u32()?)?),
            table::STORE_RECORD => return Ok(Key::StoreRecord(pool(input.key_u32()?)?)),
            table::RESOURCE => Key::Resource(Uuid(input.array()?)),
            table::NAME => return Ok(Key::Name(name(input.0)?)),
            table::EXPORT => Key::Export(
                Uuid(input.array()?),
                match input.u8()? {
                    1 => Protocol::Iscsi,
                    2 => Protocol::NvmeTcp,
                    _ => return Err(Damage::Form("the protocol is unknown")),
                },
            ),
            table::NODE => Key::Node(node(input.key_u64()?)?),
            table::CHILD => Key::Child {
                parent: node(input.key_u64()?)?,
                child: node(input.key_u64()?)?,
            },
            table::USAGE => Key::Usage(node(input.key_u64()?)?),
            table::GROUP => {
                let (node, group) = (node(input.key_u64()?)?, input.key_u32()?);
                require(group < GROUPS, "there is no such group")?;
                Key::Group { node, group }
            }
            table::PAGE => {
                let (node, page) = (node(input.key_u64()?)?, input.key_u32()?);
                require(page < GROUPS * 512, "there is no such page")?;
                Key::Page { node, page }
            }
            table::PARTIAL => Key::Partial(key_object(&mut input)?),
            table::OBJECT => Key::Object {
                pool: pool(input.key_u32()?)?,
                id: id(input.key_u64()?)?,
            },
            table::COUNT => Key::Count {
                pool: pool(input.key_u32()?)?,
                id: id(input.key_u64()?)?,
            },
            table::CONTENT => Key::Content {
                pool: pool(input.key_u32()?)?,
                sha256: input.array()?,
            },
            table::DEAD => Key::Dead(key_object(&mut input)?),
            _ => return Err(Damage::Form("the table is unknown")),
        };
        input.end()?;
        Ok(key)
    }

    pub(super) fn node_row(node: u64) -> Vec<u8> {
        [&[table::NODE][..], &node.to_be_bytes()].concat()
    }

    pub(super) fn usage_row(node: u64) -> Vec<u8> {
        [&[table::USAGE][..], &node.to_be_bytes()].concat()
    }

    pub(super) fn pool_row(pool: u32) -> Vec<u8> {
        [&[table::POOL][..], &pool.to_be_bytes()].concat()
    }

    pub(super) fn resource_row(id: Uuid) -> Vec<u8> {
        [&[table::RESOURCE][..], &id.0].concat()
    }

    pub(super) fn name_row(name: &str) -> Vec<u8> {
        [&[table::NAME][..], name.as_bytes()].concat()
    }

    /// In table 60 or 61.
    pub(super) fn ref_row(table: u8, pool: u32, id: u64) -> Vec<u8> {
        [&[table][..], &pool.to_be_bytes(), &id.to_be_bytes()].concat()
    }

    pub(super) fn content_row(pool: u32, sha256: &[u8; 32]) -> Vec<u8> {
        [&[table::CONTENT][..], &pool.to_be_bytes(), sha256].concat()
    }

    /// In table 50 or 70.
    pub(super) fn object_row(table: u8, name: Name) -> Vec<u8> {
        let (generation, index) = (name.generation().to_be_bytes(), name.index().to_be_bytes());
        [
            &[table][..],
            &name.pool().to_be_bytes(),
            &generation,
            &index,
        ]
        .concat()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Superblock => f.write_str("superblock"),
            Key::RunState => f.write_str("run state"),
            Key::Counter(counter) => write!(f, "{} counter", counter.noun()),
            Key::Pool(pool) => write!(f, "pool {pool}"),
            Key::Mark(pool) => write!(f, "generation mark of pool {pool}"),
            Key::StoreRecord(pool) => write!(f, "a store record of pool {pool}"),
            Key::Resource(id) => write!(f, "resource {id}"),
            Key::Name(name) => write!(f, "name {name:?}"),
            Key::Export(id, Protocol::Iscsi) => write!(f, "iSCSI export of {id}"),
            Key::Export(id, Protocol::NvmeTcp) => write!(f, "NVMe/TCP export of {id}"),
            Key::Node(node) => write!(f, "node {node}"),
            Key::Child { parent, child } => write!(f, "child {child} of node {parent}"),
            Key::Usage(node) => write!(f, "usage of node {node}"),
            Key::Group { node, group } => write!(f, "node {node} group {group}"),
            Key::Page { node, page } => write!(f, "node {node} page {page}"),
            Key::Partial(name) => write!(f, "partial record of {name}"),
            Key::Object { pool, id } => write!(f, "pool {pool} ref {id}"),
            Key::Count { pool, id } => write!(f, "count of pool {pool} ref {id}"),
            Key::Content { pool, sha256 } => {
                write!(f, "content of pool {pool} {}", hex(sha256, sha256.len()))
            }
            Key::Dead(name) => write!(f, "dead range from {name}"),
        }
    }
}

/// Bytes shown of a key that cannot be read.
const SHOWN: usize = 40;

fn hex(bytes: &[u8], most: usize) -> String {
    let mut text: String = bytes
        .iter()
        .take(most)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > most {
        text.push_str("..");
    }
    text
}

/// The key in words, or its bytes.
pub(super) fn describe(key: &[u8]) -> String {
    match Key::parse(key) {
        Ok(key) => key.to_string(),
        Err(_) => format!("key {}", hex(key, SHOWN)),
    }
}

pub(super) fn pool(number: u32) -> Decoded<u32> {
    require(number != 0, "a pool's number is 0")?;
    Ok(number)
}

pub(super) fn node(number: u64) -> Decoded<u64> {
    require(number != 0, "a node's number is 0")?;
    Ok(number)
}

pub(super) fn id(number: u64) -> Decoded<u64> {
    require(
        number != 0 && number >> REF_BITS == 0,
        "a ref is 0 or has more than 52 bits",
    )?;
    Ok(number)
}

pub(super) const NO_OBJECT: Damage =
    Damage::Form("an object's generation is 0 or has more than 52 bits, or its index more than 40");

fn key_object(input: &mut Input<'_>) -> Decoded<Name> {
    let (pool, generation) = (pool(input.key_u32()?)?, input.key_u64()?);
    Name::new(pool, generation, input.key_u64()?).ok_or(NO_OBJECT)
}

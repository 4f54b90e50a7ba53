//! Keys and rows of all tables but groups and pages, read as FORMAT.md draws them.

use super::bytes::{Damage, Decoded, Input, name, require};
use super::names::{GENERATION_BITS, INDEX_BITS, Name};
use std::fmt;

pub(super) const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"ATOLLMET";
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
    pub const MAPS: [u8; 7] = [GROUP, PAGE, PARTIAL, OBJECT, COUNT, CONTENT, DEAD];
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

fn pool(number: u32) -> Decoded<u32> {
    require(number != 0, "a pool's number is 0")?;
    Ok(number)
}

fn node(number: u64) -> Decoded<u64> {
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

fn generation(number: u64) -> Decoded<u64> {
    require(
        number >> GENERATION_BITS == 0,
        "a generation has more than 52 bits",
    )?;
    Ok(number)
}

const NO_OBJECT: Damage =
    Damage::Form("an object's generation is 0 or has more than 52 bits, or its index more than 40");

fn key_object(input: &mut Input<'_>) -> Decoded<Name> {
    let (pool, generation) = (pool(input.key_u32()?)?, input.key_u64()?);
    Name::new(pool, generation, input.key_u64()?).ok_or(NO_OBJECT)
}

/// An object in a value belongs to the pool of the key.
fn object(pool: u32, input: &mut Input<'_>) -> Decoded<Name> {
    let generation = input.u64()?;
    Name::new(pool, generation, input.u64()?).ok_or(NO_OBJECT)
}

fn all<'a, T>(body: &'a [u8], read: impl FnOnce(&mut Input<'a>) -> Decoded<T>) -> Decoded<T> {
    let mut input = Input(body);
    let value = read(&mut input)?;
    input.end()?;
    Ok(value)
}

fn flags(byte: u8, known: u8) -> Decoded<u8> {
    require(byte & !known == 0, "a reserved bit is set")?;
    Ok(byte)
}

/// The format version.
pub(super) fn superblock(body: &[u8]) -> Decoded<u32> {
    let mut input = Input(body);
    require(input.array()? == MAGIC, "it is no superblock of Atoll's")?;
    let format = input.u32()?;
    // A later version may draw the rest otherwise.
    if format == FORMAT_VERSION {
        let (_instance, _created) = (input.array::<16>()?, input.u64()?);
        input.end()?;
    }
    Ok(format)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunState {
    pub(super) starts: u64,
    pub(super) unclean: u64,
}

pub(super) fn run_state(body: &[u8]) -> Decoded<RunState> {
    all(body, |input| {
        require(input.u8()? <= 1, "clean is neither 0 nor 1")?;
        Ok(RunState {
            starts: input.u64()?,
            unclean: input.u64()?,
        })
    })
}

/// The one u64 of a counter.
pub(super) fn counter(body: &[u8]) -> Decoded<u64> {
    all(body, |input| input.u64())
}

pub(super) fn mark(body: &[u8]) -> Decoded<u64> {
    all(body, |input| generation(input.u64()?))
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pool {
    pub(super) id: Uuid,
    pub(super) shift: u32,
    pub(super) name: String,
}

impl Pool {
    /// Bytes.
    pub(super) fn object_size(&self) -> u64 {
        1 << self.shift
    }
}

pub(super) fn pool_body(body: &[u8]) -> Decoded<Pool> {
    all(body, |input| {
        let id = Uuid(input.array()?);
        require(
            (1..=7).contains(&input.u8()?),
            "the kind of pool is unknown",
        )?;
        let shift = u32::from(input.u8()?);
        require(
            (16..=24).contains(&shift),
            "the object size is not 64 KiB to 16 MiB",
        )?;
        let name = input.name()?;
        input.text()?;
        Ok(Pool { id, shift, name })
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ResourceKind {
    Volume,
    Snapshot,
    Image,
    File,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Resource {
    pub(super) kind: ResourceKind,
    pub(super) pool: u32,
    pub(super) node: u64,
    pub(super) size: u64,
    pub(super) name: String,
}

pub(super) fn resource(body: &[u8]) -> Decoded<Resource> {
    all(body, |input| {
        let kind = match input.u8()? {
            1 => ResourceKind::Volume,
            2 => ResourceKind::Snapshot,
            3 => ResourceKind::Image,
            4 => ResourceKind::File,
            _ => return Err(Damage::Form("the kind of resource is unknown")),
        };
        flags(input.u8()?, 0b11)?;
        require(
            matches!(input.u8()?, 9 | 12),
            "the block is neither 512 nor 4096 bytes",
        )?;
        let (pool, node, size) = (pool(input.u32()?)?, node(input.u64()?)?, input.u64()?);
        let _created = input.u64()?;
        Ok(Resource {
            kind,
            pool,
            node,
            size,
            name: input.name()?,
        })
    })
}

pub(super) fn name_body(body: &[u8]) -> Decoded<Uuid> {
    all(body, |input| Ok(Uuid(input.array()?)))
}

pub(super) fn export(body: &[u8]) -> Decoded<()> {
    all(body, |input| flags(input.u8()?, 0b1).map(|_| ()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Head,
    Frozen,
    Dying,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Head => "a head",
            State::Frozen => "frozen",
            State::Dying => "dying",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) pool: u32,
    pub(super) state: State,
    pub(super) faulted: bool,
    /// 0: none.
    pub(super) parent: u64,
    pub(super) inherit_end: u64,
    pub(super) cut: u64,
    /// 0: none.
    pub(super) current: u64,
    pub(super) run: u64,
    pub(super) trim: Option<u64>,
    pub(super) depth: u16,
}

pub(super) fn node_body(body: &[u8]) -> Decoded<Node> {
    all(body, |input| {
        let pool = pool(input.u32()?)?;
        let state = match input.u8()? {
            1 => State::Head,
            2 => State::Frozen,
            3 => State::Dying,
            _ => return Err(Damage::Form("the node's state is unknown")),
        };
        let flags = flags(input.u8()?, 1)?;
        require(flags == 0 || state == State::Head, "only a head is faulted")?;
        Ok(Node {
            pool,
            state,
            faulted: flags & 1 != 0,
            parent: input.u64()?,
            inherit_end: input.u64()?,
            cut: generation(input.u64()?)?,
            current: generation(input.u64()?)?,
            run: input.u64()?,
            trim: Some(input.u64()?).filter(|trim| *trim != u64::MAX),
            depth: input.u16()?,
        })
    })
}

pub(super) fn child(body: &[u8]) -> Decoded<()> {
    Input(body).end()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Partial {
    /// What is named explicitly.
    pub(super) below: Option<Name>,
    /// Bytes of the bitmap.
    pub(super) len: usize,
    pub(super) full: bool,
}

pub(super) fn partial(pool: u32, body: &[u8]) -> Decoded<Partial> {
    let mut input = Input(body);
    let below = match input.u8()? {
        0 | 1 => None,
        2 => Some(object(pool, &mut input)?),
        _ => return Err(Damage::Form("what lies below is unknown")),
    };
    let bitmap = input.0;
    Ok(Partial {
        below,
        len: bitmap.len(),
        full: bitmap.iter().all(|byte| *byte == 0xff),
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    pub(super) name: Name,
    /// SHA-256 and length in bytes.
    pub(super) content: Option<([u8; 32], u32)>,
}

pub(super) fn counted(pool: u32, body: &[u8]) -> Decoded<Counted> {
    all(body, |input| {
        let name = object(pool, input)?;
        let content = match flags(input.u8()?, 0b1)? {
            0 => None,
            _ => Some((input.array()?, input.u32()?)),
        };
        Ok(Counted { name, content })
    })
}

pub(super) fn count(body: &[u8]) -> Decoded<i64> {
    all(body, |input| Ok(input.u64()?.cast_signed()))
}

pub(super) fn content(body: &[u8]) -> Decoded<u64> {
    all(body, |input| id(input.u64()?))
}

/// How many objects are dead from this one on.
pub(super) fn dead(first: Name, body: &[u8]) -> Decoded<u64> {
    let count = all(body, |input| input.u64())?;
    let room = (1 << INDEX_BITS) - first.index();
    require(
        (1..=room).contains(&count),
        "the range is empty or ends beyond the last index",
    )?;
    Ok(count)
}

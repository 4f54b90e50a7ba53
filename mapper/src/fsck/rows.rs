//! Rows of all tables but groups and pages, read as FORMAT.md draws them.

use super::bytes::{Damage, Decoded, Input, require};
use super::keys::{NO_OBJECT, Uuid, id, node, pool};
use super::names::{GENERATION_BITS, INDEX_BITS, Name};
use std::fmt;

pub(super) const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"ATOLLMET";

fn generation(number: u64) -> Decoded<u64> {
    require(
        number >> GENERATION_BITS == 0,
        "a generation has more than 52 bits",
    )?;
    Ok(number)
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
    /// Nothing has been changed since the last stop.
    pub(super) clean: bool,
    pub(super) starts: u64,
    pub(super) unclean: u64,
}

pub(super) fn run_state(body: &[u8]) -> Decoded<RunState> {
    all(body, |input| {
        let clean = input.u8()?;
        require(clean <= 1, "clean is neither 0 nor 1")?;
        Ok(RunState {
            clean: clean == 1,
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

/// What is read where a partial object's blocks are not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Below {
    /// What the ancestors of the node that holds the chain have at its index.
    Implicit,
    Zeros,
    Object(Name),
    /// This one's object.
    Ref(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Partial<'a> {
    pub(super) below: Below,
    pub(super) bitmap: &'a [u8],
}

impl Partial<'_> {
    /// The next object of the chain.
    pub(super) fn object(&self) -> Option<Name> {
        match self.below {
            Below::Object(name) => Some(name),
            Below::Implicit | Below::Zeros | Below::Ref(_) => None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bitmap.iter().all(|byte| *byte == 0xff)
    }
}

pub(super) fn partial(pool: u32, body: &[u8]) -> Decoded<Partial<'_>> {
    let mut input = Input(body);
    let below = match input.u8()? {
        0 => Below::Implicit,
        1 => Below::Zeros,
        2 => Below::Object(object(pool, &mut input)?),
        3 => Below::Ref(id(input.u64()?)?),
        _ => return Err(Damage::Form("what lies below is unknown")),
    };
    Ok(Partial {
        below,
        bitmap: input.0,
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

/// Of tables 32 and 61.
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

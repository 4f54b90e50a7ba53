//! Rows of the maps: nodes and their tree, partial records, refs, dead ranges.

use super::{Row, body, flags, whole};
use crate::format::bitmap::Bitmap;
use crate::format::codec::{FormatError, Reader, Result, Writer};
use crate::types::{NodeId, PoolNumber, RefId};
use atoll_backends::{Generation, ObjectId, ObjectIndex};

pub(super) fn generation(r: &mut Reader<'_>) -> Result<Generation> {
    Generation::new(r.u64()?).ok_or(FormatError::new("a generation has more than 52 bits"))
}

pub(super) fn pool(r: &mut Reader<'_>) -> Result<PoolNumber> {
    PoolNumber::new(r.u32()?).ok_or(FormatError::new("a pool's number is 0"))
}

pub(super) fn node(r: &mut Reader<'_>) -> Result<NodeId> {
    NodeId::new(r.u64()?).ok_or(FormatError::new("a node's number is 0"))
}

fn object(r: &mut Reader<'_>) -> Result<ObjectId> {
    Ok(ObjectId {
        generation: generation(r)?,
        index: ObjectIndex::new(r.u64()?)
            .ok_or(FormatError::new("an object's index has more than 40 bits"))?,
    })
}

fn write_object(out: &mut Writer, object: ObjectId) {
    out.u64(object.generation.get());
    out.u64(object.index.get());
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum NodeState {
    /// A volume writes to it.
    Head = 1,
    /// Nothing in it changes any more.
    Frozen = 2,
    /// It belongs to no resource, and its objects are being deleted.
    Dying = 3,
}

/// Nothing is being dropped after a shrink.
const NO_TRIM: u64 = u64::MAX;

/// Flag of a node: see [`NodeRow::faulted`].
const FAULTED: u8 = 1;

/// Table 30.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRow {
    pub pool: PoolNumber,
    pub state: NodeState,
    /// Of a head only: a sync or commit of it has failed, and no check has looked at it since.
    pub faulted: bool,
    /// The node whose entries show where this one's are absent.
    pub parent: Option<NodeId>,
    /// Bytes; nothing is inherited beyond. 0 if there is no parent.
    pub inherit_end: u64,
    /// Objects from this generation on are the node's own.
    pub cut: Generation,
    /// Where the head creates objects; `None`: none taken yet.
    pub current: Option<Generation>,
    /// Number of the start that left `current`.
    pub run: u64,
    /// Bytes, a multiple of the object size: entries at or beyond are being dropped. Panics, when
    /// encoded, on `u64::MAX`, which means none.
    pub trim: Option<u64>,
    /// At least as many as there are ancestors; fewer are above once nodes between were merged.
    pub depth: u16,
}

impl Row for NodeRow {
    fn encode(&self) -> Vec<u8> {
        assert_ne!(self.trim, Some(NO_TRIM), "no multiple of an object size");
        assert_ne!(
            self.current,
            Some(Generation::ZERO),
            "no object has generation 0"
        );
        body(|out| {
            out.u32(self.pool.get());
            out.u8(self.state as u8);
            out.u8(if self.faulted { FAULTED } else { 0 });
            out.u64(self.parent.map_or(0, NodeId::get));
            out.u64(self.inherit_end);
            out.u64(self.cut.get());
            out.u64(self.current.map_or(0, Generation::get));
            out.u64(self.run);
            out.u64(self.trim.unwrap_or(NO_TRIM));
            out.u16(self.depth);
        })
    }

    fn decode(body: &[u8]) -> Result<NodeRow> {
        whole(body, |r| {
            let pool = pool(r)?;
            let state = match r.u8()? {
                1 => NodeState::Head,
                2 => NodeState::Frozen,
                3 => NodeState::Dying,
                _ => return Err(FormatError::new("a node's state is unknown")),
            };
            let faulted = flags(r, FAULTED)? & FAULTED != 0;
            if faulted && state != NodeState::Head {
                return Err(FormatError::new("a node that is no head is faulted"));
            }
            Ok(NodeRow {
                pool,
                state,
                faulted,
                parent: NodeId::new(r.u64()?),
                inherit_end: r.u64()?,
                cut: generation(r)?,
                current: Some(generation(r)?).filter(|current| *current != Generation::ZERO),
                run: r.u64()?,
                trim: Some(r.u64()?).filter(|trim| *trim != NO_TRIM),
                depth: r.u16()?,
            })
        })
    }
}

/// Table 31: the key says it all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildRow;

impl Row for ChildRow {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(body: &[u8]) -> Result<ChildRow> {
        whole(body, |_| Ok(ChildRow))
    }
}

/// What is read where a partial object's blocks are not valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Below {
    /// The entry at the same index of the nearest ancestor of the node that holds the chain.
    Implicit,
    Zeros,
    /// This object, which may be partial itself.
    Object(ObjectId),
    /// The object of this ref, which is complete and counts the record as one that names it.
    Ref(RefId),
}

/// Table 50.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartialRow {
    pub below: Below,
    /// Bit b: block b is valid in this object.
    pub bitmap: Bitmap,
}

impl PartialRow {
    /// What a later record of the same object says is added; `below` stays. False, and nothing
    /// happens, if they are of different object sizes.
    pub(in crate::format) fn merge(&mut self, later: &PartialRow) -> bool {
        let same = self.bitmap.object_size() == later.bitmap.object_size();
        if same {
            self.bitmap.union(&later.bitmap);
        }
        same
    }
}

impl Row for PartialRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| {
            match self.below {
                Below::Implicit => out.u8(0),
                Below::Zeros => out.u8(1),
                Below::Object(id) => {
                    out.u8(2);
                    write_object(out, id);
                }
                Below::Ref(id) => {
                    out.u8(3);
                    out.u64(id.get());
                }
            }
            self.bitmap.to_bytes().for_each(|byte| out.u8(byte));
        })
    }

    fn decode(body: &[u8]) -> Result<PartialRow> {
        whole(body, |r| {
            let below = match r.u8()? {
                0 => Below::Implicit,
                1 => Below::Zeros,
                2 => Below::Object(object(r)?),
                3 => Below::Ref(
                    RefId::new(r.u64()?).ok_or(FormatError::new("a ref is out of range"))?,
                ),
                _ => return Err(FormatError::new("what lies below is unknown")),
            };
            Ok(PartialRow {
                below,
                bitmap: Bitmap::from_bytes(r.rest())?,
            })
        })
    }
}

/// What a counted object contains, trailing zeros stripped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentHash {
    pub sha256: [u8; 32],
    /// Bytes before the trailing zeros.
    pub length: u32,
}

const HASHED: u8 = 1 << 0;

/// Table 60.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectRow {
    pub object: ObjectId,
    pub content: Option<ContentHash>,
}

impl Row for ObjectRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| {
            write_object(out, self.object);
            match self.content {
                None => out.u8(0),
                Some(content) => {
                    out.u8(HASHED);
                    out.bytes(&content.sha256);
                    out.u32(content.length);
                }
            }
        })
    }

    fn decode(body: &[u8]) -> Result<ObjectRow> {
        whole(body, |r| {
            let object = object(r)?;
            let content = match flags(r, HASHED)? {
                0 => None,
                _ => Some(ContentHash {
                    sha256: r.array()?,
                    length: r.u32()?,
                }),
            };
            Ok(ObjectRow { object, content })
        })
    }
}

/// Table 61: how many entries and records name a ref; table 32: how many entries of a node name an
/// object or a ref. In a merge operand: by how many that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountRow {
    pub count: i64,
}

impl Row for CountRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.i64(self.count))
    }

    fn decode(body: &[u8]) -> Result<CountRow> {
        whole(body, |r| Ok(CountRow { count: r.i64()? }))
    }
}

/// Table 62.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentRow {
    pub id: RefId,
}

impl Row for ContentRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.u64(self.id.get()))
    }

    fn decode(body: &[u8]) -> Result<ContentRow> {
        whole(body, |r| {
            Ok(ContentRow {
                id: RefId::new(r.u64()?).ok_or(FormatError::new("a ref is out of range"))?,
            })
        })
    }
}

/// Table 70: this many objects, from the key's index on, are in no map any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadRow {
    pub count: u64,
}

impl Row for DeadRow {
    fn encode(&self) -> Vec<u8> {
        body(|out| out.u64(self.count))
    }

    fn decode(body: &[u8]) -> Result<DeadRow> {
        whole(body, |r| Ok(DeadRow { count: r.u64()? }))
    }
}

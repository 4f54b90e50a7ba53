//! One entry of a map: 64 bits that say where the data of one object-sized piece is.

use crate::types::RefId;
use atoll_backends::Generation;
use std::fmt;

const KIND_SHIFT: u32 = 60;
const PARTIAL: u64 = 1 << 59;
const FROZEN: u64 = 1 << 58;
const PAYLOAD: u64 = (1 << 52) - 1;

pub(super) const KIND_ABSENT: u64 = 0;
pub(super) const KIND_HOLE: u64 = 1;
pub(super) const KIND_OBJECT: u64 = 2;
pub(super) const KIND_REF: u64 = 3;
pub(super) const KIND_ROW: u64 = 4;

const _: () = assert!(Generation::BITS == 52 && RefId::BITS == 52);

/// Always one of the valid bit patterns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry(u64);

/// What an entry means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    /// Ask the parent; zeros if there is none.
    Absent,
    /// Zeros; masks the parent.
    Hole,
    /// The object of this generation and the entry's index.
    Object(Generation),
    /// A counted object.
    Ref(RefId),
    /// Groups only: the page has a row of its own.
    Row,
}

impl Entry {
    pub const ABSENT: Entry = Entry(KIND_ABSENT << KIND_SHIFT);
    pub const HOLE: Entry = Entry(KIND_HOLE << KIND_SHIFT);
    pub const ROW: Entry = Entry(KIND_ROW << KIND_SHIFT);

    pub const fn object(generation: Generation) -> Entry {
        Entry(KIND_OBJECT << KIND_SHIFT | generation.get())
    }

    pub const fn reference(id: RefId) -> Entry {
        Entry(KIND_REF << KIND_SHIFT | id.get())
    }

    pub const fn kind(self) -> EntryKind {
        let payload = self.0 & PAYLOAD;
        match (
            self.0 >> KIND_SHIFT,
            Generation::new(payload),
            RefId::new(payload),
        ) {
            (KIND_HOLE, ..) => EntryKind::Hole,
            (KIND_OBJECT, Some(generation), _) => EntryKind::Object(generation),
            (KIND_REF, _, Some(id)) => EntryKind::Ref(id),
            (KIND_ROW, ..) => EntryKind::Row,
            _ => EntryKind::Absent,
        }
    }

    pub const fn is_absent(self) -> bool {
        self.0 == Entry::ABSENT.0
    }

    pub const fn is_partial(self) -> bool {
        self.0 & PARTIAL != 0
    }

    pub const fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// Panics if an entry that names no object is made partial.
    pub const fn with_partial(self, partial: bool) -> Entry {
        self.with_flag(PARTIAL, partial)
    }

    /// Panics if an entry that names no object is frozen.
    pub const fn with_frozen(self, frozen: bool) -> Entry {
        self.with_flag(FROZEN, frozen)
    }

    const fn with_flag(self, flag: u64, on: bool) -> Entry {
        if !on {
            return Entry(self.0 & !flag);
        }
        assert!(self.names_object(), "only objects and refs have flags");
        Entry(self.0 | flag)
    }

    /// Object or ref.
    pub const fn names_object(self) -> bool {
        matches!(self.0 >> KIND_SHIFT, KIND_OBJECT | KIND_REF)
    }

    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// `None` unless the bits are an entry's: known kind, reserved bits 0, payload and flags only
    /// where they mean something.
    pub const fn from_bits(bits: u64) -> Option<Entry> {
        let rest = bits & !(PAYLOAD | PARTIAL | FROZEN) & ((1 << KIND_SHIFT) - 1);
        let good = match bits >> KIND_SHIFT {
            KIND_ABSENT | KIND_HOLE | KIND_ROW => bits & ((1 << KIND_SHIFT) - 1) == 0,
            KIND_OBJECT => rest == 0,
            KIND_REF => rest == 0 && bits & PAYLOAD != 0,
            _ => false,
        };
        if good { Some(Entry(bits)) } else { None }
    }

    pub(super) const fn payload(self) -> u64 {
        self.0 & PAYLOAD
    }

    /// Kind, partial and frozen as a run's head has them (bits 0 to 4).
    pub(super) const fn head(self) -> u8 {
        ((self.0 >> KIND_SHIFT) as u8 & 7)
            | (self.is_partial() as u8) << 3
            | (self.is_frozen() as u8) << 4
    }

    /// The entry of a run's head and payload.
    pub(super) const fn from_head(head: u8, payload: u64) -> Option<Entry> {
        if payload & !PAYLOAD != 0 {
            return None;
        }
        let partial = if head & 1 << 3 != 0 { PARTIAL } else { 0 };
        let frozen = if head & 1 << 4 != 0 { FROZEN } else { 0 };
        Entry::from_bits(((head & 7) as u64) << KIND_SHIFT | partial | frozen | payload)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            EntryKind::Absent => f.write_str("absent"),
            EntryKind::Hole => f.write_str("hole"),
            EntryKind::Row => f.write_str("row"),
            EntryKind::Object(generation) => write!(f, "object {generation}"),
            EntryKind::Ref(id) => write!(f, "{id}"),
        }?;
        f.write_str(if self.is_partial() { " partial" } else { "" })?;
        f.write_str(if self.is_frozen() { " frozen" } else { "" })
    }
}

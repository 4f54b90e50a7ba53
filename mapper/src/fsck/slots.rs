//! Bodies of groups and pages: 512 slots as runs.

use super::bytes::{Damage, Decoded, Input, require};

pub(super) const SLOTS: u64 = 512;
const PAYLOAD_BITS: u32 = 52;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Absent,
    Hole,
    Object,
    Ref,
    Row,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) partial: bool,
    pub(super) frozen: bool,
    /// Generation or ref; 0 for the other kinds.
    pub(super) payload: u64,
}

/// Slots that are all this entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotRun {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) entry: Entry,
}

/// The runs of a body, in order, without those of absent. A delta that was never merged into a
/// whole body lies over 512 times absent.
pub(super) fn slots(body: &[u8]) -> Decoded<Vec<SlotRun>> {
    let mut input = Input(body);
    let whole = match input.u8()? {
        0 => true,
        1 => false,
        _ => return Err(Damage::Form("the body is neither whole nor a delta")),
    };
    let mut runs = Vec::new();
    let (mut next, mut payload) = (0, 0);
    let mut before: Option<Entry> = None;
    while !input.0.is_empty() {
        let head = input.u8()?;
        require(head & 0x80 == 0, "a reserved bit of a run is set")?;
        let skip = if head & 0x20 != 0 { input.varint()? } else { 0 };
        require(
            (skip > 0) == (head & 0x20 != 0),
            "a skip of 0 is written out",
        )?;
        let count = if head & 0x40 != 0 { input.varint()? } else { 1 };
        require(
            count > 1 || head & 0x40 == 0,
            "a length below 2 is written out",
        )?;
        let first = skip.checked_add(next).filter(|first| *first < SLOTS);
        let first = first.ok_or(Damage::Form("a run begins beyond the last slot"))?;
        require(count <= SLOTS - first, "a run ends beyond the last slot")?;
        let entry = entry(head, &mut payload, &mut input)?;
        require(
            !whole || entry.kind != Kind::Absent,
            "a whole body has a run of absent",
        )?;
        require(
            skip > 0 || before != Some(entry),
            "two neighbouring runs are equal",
        )?;
        (next, before) = (first + count, Some(entry));
        if entry.kind != Kind::Absent {
            runs.push(SlotRun {
                first,
                count,
                entry,
            });
        }
    }
    Ok(runs)
}

fn entry(head: u8, payload: &mut u64, input: &mut Input<'_>) -> Decoded<Entry> {
    let (partial, frozen) = (head & 0x08 != 0, head & 0x10 != 0);
    let kind = match head & 0x07 {
        0 => Kind::Absent,
        1 => Kind::Hole,
        2 => Kind::Object,
        3 => Kind::Ref,
        4 => Kind::Row,
        _ => return Err(Damage::Form("the kind of an entry is unknown")),
    };
    if !matches!(kind, Kind::Object | Kind::Ref) {
        require(!partial && !frozen, "an entry without an object has flags")?;
        return Ok(Entry {
            kind,
            partial,
            frozen,
            payload: 0,
        });
    }
    let next = payload.checked_add_signed(input.zigzag()?);
    *payload = next
        .filter(|payload| *payload != 0 && payload >> PAYLOAD_BITS == 0)
        .ok_or(Damage::Form(
            "a generation or ref is 0 or has more than 52 bits",
        ))?;
    Ok(Entry {
        kind,
        partial,
        frozen,
        payload: *payload,
    })
}

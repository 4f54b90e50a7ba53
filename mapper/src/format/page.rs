//! Pages and groups as runs: the whole of 512 entries, or a delta that sets some of them.

use super::codec::{FormatError, Reader, Result, Writer};
use super::entry::{Entry, EntryKind};
use crate::types::ENTRIES_PER_PAGE;

/// The entries of a page, or of a group.
pub type Slots = [Entry; ENTRIES_PER_PAGE];

const WHOLE: u8 = 0;
const DELTA: u8 = 1;

const ENTRY_BITS: u8 = 0b0001_1111;
const SKIP: u8 = 1 << 5;
const LENGTH: u8 = 1 << 6;
const ZERO: u8 = 1 << 7;

/// What a body says: everything, or changes. Deltas are `None` where they change nothing.
pub(super) enum Body {
    Whole(Box<Slots>),
    Delta(Box<[Option<Entry>; ENTRIES_PER_PAGE]>),
}

/// The entry that all slots are equal to, if they are.
pub fn uniform(slots: &Slots) -> Option<Entry> {
    let first = slots[0];
    slots.iter().all(|entry| *entry == first).then_some(first)
}

/// The body that says all 512 slots.
pub fn encode_whole(slots: &Slots) -> Vec<u8> {
    let present = slots
        .iter()
        .map(|entry| (!entry.is_absent()).then_some(*entry));
    encode_runs(WHOLE, present)
}

/// The body that sets these slots and leaves the others. Where a slot is given twice the later
/// entry counts. Panics if a slot is above 511.
pub fn encode_delta(changes: impl Iterator<Item = (u16, Entry)>) -> Vec<u8> {
    let mut slots = [None; ENTRIES_PER_PAGE];
    for (slot, entry) in changes {
        slots[usize::from(slot)] = Some(entry);
    }
    encode_runs(DELTA, slots.into_iter())
}

pub(super) fn encode(body: &Body) -> Vec<u8> {
    match body {
        Body::Whole(slots) => encode_whole(slots),
        Body::Delta(slots) => encode_runs(DELTA, slots.iter().copied()),
    }
}

fn encode_runs(form: u8, slots: impl Iterator<Item = Option<Entry>>) -> Vec<u8> {
    let mut out = Writer::with_capacity(64);
    out.u8(form);
    let mut last_payload = 0;
    let mut skipped = 0;
    let mut slots = slots.peekable();
    while let Some(slot) = slots.next() {
        let Some(entry) = slot else {
            skipped += 1;
            continue;
        };
        let mut length = 1;
        while slots.next_if_eq(&Some(entry)).is_some() {
            length += 1;
        }
        let skip = if skipped > 0 { SKIP } else { 0 };
        let long = if length > 1 { LENGTH } else { 0 };
        out.u8(entry.head() | skip | long);
        if skipped > 0 {
            out.varint(skipped);
        }
        if length > 1 {
            out.varint(length);
        }
        if entry.names_object() {
            let payload = entry.payload().cast_signed();
            out.zigzag(payload - last_payload);
            last_payload = payload;
        }
        skipped = 0;
    }
    out.into_bytes()
}

/// All 512 slots of a body of either form; those that a delta does not set are absent, as where
/// deltas were merged without a base.
pub fn decode_whole(body: &[u8]) -> Result<Box<Slots>> {
    match decode(body)? {
        Body::Whole(slots) => Ok(slots),
        Body::Delta(slots) => {
            let mut whole = Box::new([Entry::ABSENT; ENTRIES_PER_PAGE]);
            lay_over(&mut whole, &slots);
            Ok(whole)
        }
    }
}

/// [`decode_whole`] for table 41, where no entry is a row.
pub fn decode_page(body: &[u8]) -> Result<Box<Slots>> {
    let slots = decode_whole(body)?;
    if slots.contains(&Entry::ROW) {
        return Err(FormatError::new("a page has an entry of kind row"));
    }
    Ok(slots)
}

/// The slots that a delta sets, in ascending order.
pub fn decode_delta(body: &[u8]) -> Result<Vec<(u16, Entry)>> {
    match decode(body)? {
        Body::Whole(_) => Err(FormatError::new("a whole page where a delta is expected")),
        Body::Delta(slots) => Ok((0..)
            .zip(slots.iter())
            .filter_map(|(n, e)| Some((n, (*e)?)))
            .collect()),
    }
}

pub(super) fn lay_over(slots: &mut Slots, delta: &[Option<Entry>; ENTRIES_PER_PAGE]) {
    for (slot, change) in slots.iter_mut().zip(delta) {
        *slot = change.unwrap_or(*slot);
    }
}

pub(super) fn decode(body: &[u8]) -> Result<Body> {
    let mut reader = Reader::new(body);
    match reader.u8()? {
        WHOLE => {
            let mut slots = Box::new([Entry::ABSENT; ENTRIES_PER_PAGE]);
            decode_runs(reader, |first, end, entry| {
                if entry.is_absent() {
                    return Err(FormatError::new("a whole page has a run of absent entries"));
                }
                slots[first..end].fill(entry);
                Ok(())
            })?;
            Ok(Body::Whole(slots))
        }
        DELTA => {
            let mut slots = Box::new([None; ENTRIES_PER_PAGE]);
            decode_runs(reader, |first, end, entry| {
                slots[first..end].fill(Some(entry));
                Ok(())
            })?;
            Ok(Body::Delta(slots))
        }
        _ => Err(FormatError::new("a page is neither whole nor a delta")),
    }
}

fn decode_runs(
    mut reader: Reader<'_>,
    mut each: impl FnMut(usize, usize, Entry) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    let mut last_payload = 0_i64;
    let mut before = None;
    while !reader.is_empty() {
        let head = reader.u8()?;
        if head & ZERO != 0 {
            return Err(FormatError::new("a reserved bit of a run is set"));
        }
        let skip = counted(&mut reader, head & SKIP != 0, 0)?;
        let length = counted(&mut reader, head & LENGTH != 0, 1)?;
        let mut payload = 0;
        if is_named(head) {
            last_payload = last_payload
                .checked_add(reader.zigzag()?)
                .ok_or(FormatError::new("a payload is out of range"))?;
            payload = u64::try_from(last_payload)
                .map_err(|_| FormatError::new("a payload is out of range"))?;
        }
        let entry = Entry::from_head(head & ENTRY_BITS, payload)
            .ok_or(FormatError::new("a run is of no valid entry"))?;
        if skip == 0 && before == Some(entry) {
            return Err(FormatError::new("neighbouring equal runs are not joined"));
        }
        let first = at + skip;
        at = first + length;
        if at > ENTRIES_PER_PAGE {
            return Err(FormatError::new("a run ends beyond the page"));
        }
        each(first, at, entry)?;
        before = Some(entry);
    }
    Ok(())
}

/// A count that is written only if it is above `default`; at most a page's.
fn counted(reader: &mut Reader<'_>, written: bool, default: usize) -> Result<usize> {
    if !written {
        return Ok(default);
    }
    match usize::try_from(reader.varint()?) {
        Ok(count) if count <= default => Err(FormatError::new("a count that goes without saying")),
        Ok(count) if count <= ENTRIES_PER_PAGE => Ok(count),
        _ => Err(FormatError::new("a run ends beyond the page")),
    }
}

fn is_named(head: u8) -> bool {
    Entry::from_head(head & ENTRY_BITS, 1)
        .is_some_and(|entry| matches!(entry.kind(), EntryKind::Object(_) | EntryKind::Ref(_)))
}

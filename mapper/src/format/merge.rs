//! The merge operator of the store: pages and groups, partial records, counts. It works on sealed
//! values and is associative, so that a store may merge operands in any grouping.

use super::Entry;
use super::codec::{FormatError, Result};
use super::key::Table;
use super::page::{self, Body};
use super::rows::{CountRow, PartialRow, Row};
use super::seal::{seal, unseal};

/// Lays `operands` over `base`, in order. `None`, for the store to report corruption, if anything
/// is not sealed for this key, breaks the format, or the table has no merge.
pub fn merge(
    key: &[u8],
    base: Option<&[u8]>,
    operands: &mut dyn Iterator<Item = &[u8]>,
) -> Option<Vec<u8>> {
    let mut values = base
        .into_iter()
        .chain(operands.map(|operand| -> &[u8] { operand }))
        .map(|value| unseal(key, value));
    let body = match Table::from_byte(*key.first()?)? {
        Table::Group => merge_pages(&mut values, true),
        Table::Page => merge_pages(&mut values, false),
        Table::Partial => merge_partials(&mut values),
        Table::Count | Table::Usage => merge_counts(&mut values),
        _ => return None,
    };
    Some(seal(key, &body.ok()?))
}

type Bodies<'a, 'b> = &'a mut dyn Iterator<Item = Result<&'b [u8]>>;

const NOTHING: FormatError = FormatError::new("there is nothing to merge");

fn merge_pages(bodies: Bodies<'_, '_>, rows_allowed: bool) -> Result<Vec<u8>> {
    let mut decoded = bodies.map(|body| checked_page(page::decode(body?)?, rows_allowed));
    let mut merged = decoded.next().ok_or(NOTHING)??;
    for later in decoded {
        match (&mut merged, later?) {
            (_, Body::Whole(slots)) => merged = Body::Whole(slots),
            (Body::Whole(slots), Body::Delta(delta)) => page::lay_over(slots, &delta),
            (Body::Delta(slots), Body::Delta(delta)) => {
                for (slot, change) in slots.iter_mut().zip(delta.iter()) {
                    *slot = change.or(*slot);
                }
            }
        }
    }
    Ok(page::encode(&merged))
}

fn checked_page(body: Body, rows_allowed: bool) -> Result<Body> {
    let has_row = match &body {
        Body::Whole(slots) => slots.contains(&Entry::ROW),
        Body::Delta(slots) => slots.contains(&Some(Entry::ROW)),
    };
    if has_row && !rows_allowed {
        return Err(FormatError::new("a page has an entry of kind row"));
    }
    Ok(body)
}

fn merge_partials(bodies: Bodies<'_, '_>) -> Result<Vec<u8>> {
    let mut merged = PartialRow::decode(bodies.next().ok_or(NOTHING)??)?;
    for body in bodies {
        if !merged.merge(&PartialRow::decode(body?)?) {
            return Err(FormatError::new("bitmaps of different object sizes"));
        }
    }
    Ok(merged.encode())
}

fn merge_counts(bodies: Bodies<'_, '_>) -> Result<Vec<u8>> {
    let mut count = 0_i64;
    for body in bodies {
        count = count
            .checked_add(CountRow::decode(body?)?.count)
            .ok_or(FormatError::new("a count is out of range"))?;
    }
    Ok(CountRow { count }.encode())
}

//! The mapper's metadata: keys, rows, pages and merging, under any bytes. What is read is what would be written again.
use std::fmt::Debug;

use atoll_mapper::format::{
    ChildRow, ContentRow, CountRow, CounterRow, DeadRow, ExportRow, Key, MarkRow, NameRow, NodeRow,
    ObjectRow, PartialRow, PoolRow, ResourceRow, Row, RunState, Superblock, decode_delta,
    decode_page, decode_whole, encode_delta, encode_whole, key, merge, seal, unseal,
};

use crate::vectors;

fn canonical<R: Row + Debug>(body: &[u8]) {
    if let Ok(row) = R::decode(body) {
        assert_eq!(row.encode(), body, "{row:?}");
    }
}

/// Any bytes as a key, and as the row of every table.
pub fn rows(input: &[u8]) {
    if Key::parse(input).is_some() {
        assert!(!key::describe(input).is_empty());
        let next = Key::after(input);
        assert!(next.as_bytes() > input);
    }
    canonical::<Superblock>(input);
    canonical::<RunState>(input);
    canonical::<CounterRow>(input);
    canonical::<PoolRow>(input);
    canonical::<MarkRow>(input);
    canonical::<ResourceRow>(input);
    canonical::<NameRow>(input);
    canonical::<ExportRow>(input);
    canonical::<NodeRow>(input);
    canonical::<ChildRow>(input);
    canonical::<PartialRow>(input);
    canonical::<ObjectRow>(input);
    canonical::<CountRow>(input);
    canonical::<ContentRow>(input);
    canonical::<DeadRow>(input);
    let _ = unseal(b"key", input);
}

/// Golden keys and bodies.
pub fn row_seeds() -> Vec<Vec<u8>> {
    [vectors::keys(), vectors::bodies()].concat()
}

/// Any bytes as a page, a group and a delta: longer than their shortest form they are refused or come back.
pub fn pages(input: &[u8]) {
    let whole = decode_whole(input);
    if let Ok(slots) = &whole {
        let again = encode_whole(slots);
        assert_eq!(decode_whole(&again).as_ref(), Ok(slots));
        assert!(again.len() <= input.len().max(1) || input[0] == 1);
    }
    if let Ok(page) = decode_page(input) {
        assert_eq!(whole.as_ref(), Ok(&page));
    }
    if let Ok(delta) = decode_delta(input) {
        assert!(delta.is_sorted_by(|a, b| a.0 < b.0));
        let again = encode_delta(delta.iter().copied());
        assert_eq!(decode_delta(&again), Ok(delta));
        assert!(again.len() <= input.len());
    }
}

/// Golden pages.
pub fn page_seeds() -> Vec<Vec<u8>> {
    vectors::bodies()
}

/// Splits into up to four pieces, each after a byte that says how long it is.
fn pieces(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = input.split_first() {
        if pieces.len() == 4 {
            break;
        }
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        pieces.push(piece);
        input = rest;
    }
    pieces
}

/// A key of the tables that merge, chosen by the first byte; then up to four bodies, sealed for it. Merging them in
/// another grouping comes to the same, and to what can be read.
pub fn merges(input: &[u8]) {
    let Some((table, rest)) = input.split_first() else {
        return;
    };
    let key = match table & 3 {
        0 => [&[0x40][..], &[1; 12]].concat(),
        1 => [&[0x41][..], &[1; 12]].concat(),
        2 => [&[0x50][..], &[0; 3], &[1], &[0; 16]].concat(),
        _ => [&[0x61][..], &[0; 3], &[1], &[0; 7], &[1]].concat(),
    };
    let sealed: Vec<_> = pieces(rest)
        .into_iter()
        .map(|body| seal(&key, body))
        .collect();
    let values: Vec<&[u8]> = sealed.iter().map(Vec::as_slice).collect();
    let all = merge(&key, None, &mut values.iter().copied());
    if let Some(all) = &all {
        let body = unseal(&key, all).expect("merging seals");
        let readable = match table & 3 {
            0 => decode_whole(body).is_ok(),
            1 => decode_page(body).is_ok(),
            2 => PartialRow::decode(body).is_ok(),
            _ => CountRow::decode(body).is_ok(),
        };
        assert!(readable, "{body:02x?}");
    }
    let Some((base, operands)) = values.split_first() else {
        return;
    };
    let based = merge(&key, Some(base), &mut operands.iter().copied());
    assert_eq!(based, all, "a base is the first of the operands");
    if operands.is_empty() {
        return;
    }
    // Counts may leave their range in one grouping only.
    if let Some(later) = merge(&key, None, &mut operands.iter().copied()) {
        let grouped = merge(&key, Some(base), &mut [later.as_slice()].into_iter());
        if let (Some(grouped), Some(all)) = (&grouped, &all) {
            assert_eq!(grouped, all, "merging is associative");
        }
    }
}

/// Golden bodies in pairs, for each table.
pub fn merge_seeds() -> Vec<Vec<u8>> {
    let bodies = vectors::bodies();
    let short: Vec<_> = bodies.iter().filter(|body| body.len() < 256).collect();
    let pairs = short.windows(2).enumerate().map(|(number, pair)| {
        let mut input = vec![number as u8];
        for body in pair {
            input.push(body.len() as u8);
            input.extend_from_slice(body);
        }
        input
    });
    pairs.collect()
}

//! The laws of merging: any grouping of operands gives the same bytes, and nothing that is not
//! sound is merged.

use super::strategies::*;
use crate::format::*;
use crate::types::*;
use atoll_backends::{BlockRange, ObjectSize};
use proptest::collection::vec;
use proptest::prelude::*;

fn page_key() -> Key {
    Key::page(NodeId::FIRST, PageNo::ZERO)
}

fn all(key: &Key, base: Option<&[u8]>, operands: &[Vec<u8>]) -> Option<Vec<u8>> {
    merge(key, base, &mut operands.iter().map(Vec::as_slice))
}

/// Merging everything at once, one by one, and with the operands from `first` to `last` merged
/// among themselves before.
fn associative(key: &Key, values: &[Vec<u8>], first: usize, last: usize) -> Vec<u8> {
    let at_once = all(key, None, values).expect("all are sound");
    let one_by_one = values[1..].iter().fold(values[0].clone(), |base, operand| {
        all(key, Some(&base), std::slice::from_ref(operand)).expect("all are sound")
    });
    assert_eq!(at_once, one_by_one);
    let middle = all(key, None, &values[first..=last]).expect("all are sound");
    let grouped = [&values[..first], &[middle], &values[last + 1..]].concat();
    assert_eq!(Some(&at_once), all(key, None, &grouped).as_ref());
    assert_eq!(
        Some(&at_once),
        all(key, Some(&grouped[0]), &grouped[1..]).as_ref()
    );
    at_once
}

fn group(len: usize, a: prop::sample::Index, b: prop::sample::Index) -> (usize, usize) {
    let (a, b) = (a.index(len), b.index(len));
    (a.min(b), a.max(b))
}

/// A whole page, or a delta.
fn page_operand() -> impl Strategy<Value = (bool, Slots, Vec<(u16, Entry)>)> {
    (prop::bool::weighted(0.15), slots(), changes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_merge_the_same_in_any_grouping_as_slots_are_set_in_order(
        operands in vec(page_operand(), 1..8),
        a: prop::sample::Index,
        b: prop::sample::Index,
    ) {
        let key = page_key();
        let mut expected = [Entry::ABSENT; ENTRIES_PER_PAGE];
        let mut values = Vec::new();
        for (is_whole, whole, changes) in operands {
            if is_whole {
                expected = whole;
                values.push(seal(&key, &encode_whole(&whole)));
            } else {
                for (slot, entry) in &changes {
                    expected[usize::from(*slot)] = *entry;
                }
                values.push(seal(&key, &encode_delta(changes.into_iter())));
            }
        }
        let (first, last) = group(values.len(), a, b);
        let merged = associative(&key, &values, first, last);
        let body = unseal(&key, &merged).expect("sealed");
        prop_assert_eq!(&*decode_page(body).expect("a page"), &expected);
    }

    #[test]
    fn partial_records_gather_bits_and_keep_the_first_below(
        rows in object_size().prop_flat_map(|size| vec(partial(size), 1..8)),
        a: prop::sample::Index,
        b: prop::sample::Index,
        pool in pool(),
        object in object(),
    ) {
        let key = Key::partial(pool, object);
        let values: Vec<_> = rows.iter().map(|row| seal(&key, &row.encode())).collect();
        let (first, last) = group(values.len(), a, b);
        let merged = associative(&key, &values, first, last);
        let merged: PartialRow = open_row(&key, &merged).expect("sealed");
        prop_assert_eq!(merged.below, rows[0].below);
        for block in 0..merged.bitmap.blocks() {
            let any = rows.iter().any(|row| row.bitmap.contains(block));
            prop_assert_eq!(merged.bitmap.contains(block), any);
        }
    }

    #[test]
    fn counts_add_up(
        counts in vec(-1000_i64..1000, 1..20),
        a: prop::sample::Index,
        b: prop::sample::Index,
    ) {
        let key = Key::count(PoolNumber::FIRST, RefId::FIRST);
        let values: Vec<_> = counts
            .iter()
            .map(|count| seal(&key, &CountRow { count: *count }.encode()))
            .collect();
        let (first, last) = group(values.len(), a, b);
        let merged = associative(&key, &values, first, last);
        let merged: CountRow = open_row(&key, &merged).expect("sealed");
        prop_assert_eq!(merged.count, counts.iter().sum::<i64>());
    }

    #[test]
    fn arbitrary_operands_never_panic(
        key in key(),
        base in prop::option::of(vec(any::<u8>(), 0..40)),
        bodies in vec(vec(any::<u8>(), 0..40), 0..4),
    ) {
        let base = base.map(|body| seal(&key, &body));
        let values: Vec<_> = bodies.iter().map(|body| seal(&key, body)).collect();
        if let Some(merged) = all(&key, base.as_deref(), &values) {
            prop_assert!(unseal(&key, &merged).is_ok());
        }
        // Unsealed.
        prop_assert!(bodies.is_empty() || all(&key, None, &bodies).is_none());
    }
}

#[test]
fn what_is_not_sound_is_not_merged() {
    let key = page_key();
    let delta = seal(&key, &encode_delta([(0, Entry::HOLE)].into_iter()));
    assert!(all(&key, Some(&delta), std::slice::from_ref(&delta)).is_some());
    let elsewhere = seal(&Key::page(NodeId::FIRST, PageNo::MAX), &[1]);
    assert!(
        all(&key, Some(&delta), &[elsewhere]).is_none(),
        "another key's"
    );
    let mut torn = delta.clone();
    torn.pop();
    assert!(all(&key, Some(&delta), std::slice::from_ref(&torn)).is_none());
    assert!(all(&key, Some(&torn), std::slice::from_ref(&delta)).is_none());
    let row = seal(&key, &encode_delta([(0, Entry::ROW)].into_iter()));
    assert!(all(&key, None, &[row]).is_none(), "a row in a page");
    let group = Key::group(NodeId::FIRST, GroupNo::ZERO);
    let row = seal(&group, &encode_delta([(0, Entry::ROW)].into_iter()));
    assert!(all(&group, None, &[row]).is_some());
    assert!(all(&key, None, &[]).is_none(), "nothing");
    let node = Key::node(NodeId::FIRST);
    assert!(
        all(&node, None, &[seal(&node, &[1])]).is_none(),
        "no merge in table 30"
    );
}

#[test]
fn bitmaps_of_two_object_sizes_and_overflowing_counts_are_not_merged() {
    let object = atoll_backends::ObjectId::parse("0000000000001.0000000000").expect("an id");
    let key = Key::partial(PoolNumber::FIRST, object);
    let row = |size| {
        let mut bitmap = Bitmap::new(ObjectSize::new(size).expect("a size"));
        bitmap.insert(BlockRange::new(0, 3));
        let below = Below::Zeros;
        seal(&key, &PartialRow { below, bitmap }.encode())
    };
    assert!(all(&key, Some(&row(65536)), &[row(65536)]).is_some());
    assert!(all(&key, Some(&row(65536)), &[row(131_072)]).is_none());
    let key = Key::count(PoolNumber::FIRST, RefId::FIRST);
    let count = |count| seal(&key, &CountRow { count }.encode());
    assert!(all(&key, Some(&count(i64::MAX)), &[count(1)]).is_none());
}

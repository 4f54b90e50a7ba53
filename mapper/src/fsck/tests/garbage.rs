//! The mark and sweep on stores made by hand.

use super::store::*;
use super::trees::*;
use crate::error::{ErrorKind, Result};
use crate::fsck::{Fate, Garbage, MEMORY_LIMIT, Options, garbage};
use crate::types::PoolNumber;
use atoll_backends::ObjectId;
use atoll_reactor::sim::Sim;
use proptest::prelude::*;
use proptest::sample::Index;
use std::rc::Rc;

type Objects<'a> = &'a [(u64, u64)];

fn ids(objects: impl IntoIterator<Item = (u64, u64)>) -> Vec<ObjectId> {
    let mut ids: Vec<_> = objects
        .into_iter()
        .map(|(generation, index)| object_id(generation, index))
        .collect();
    ids.sort_unstable();
    ids
}

fn tried(store: &Store) -> Result<Garbage> {
    let rows = Rc::new(store.sealed());
    let pool = PoolNumber::new(1).unwrap();
    Sim::new(1, 1).block_on(async move { garbage(&Reader(rows), pool).await })
}

/// Of a store that a check finds clean.
fn marked(store: &Store) -> Garbage {
    let report = run(store, Options::default(), MEMORY_LIMIT);
    assert_eq!(kinds(&report), [], "{:#?}", report.findings);
    tried(store).unwrap()
}

#[track_caller]
fn expect(garbage: &Garbage, covered: Objects, doomed: Objects, unfinished: &[u64]) {
    let found: Vec<_> = garbage.covered.iter().copied().collect();
    assert_eq!(found, ids(covered.iter().copied()), "covered");
    let found: Vec<_> = garbage.doomed.iter().copied().collect();
    assert_eq!(found, ids(doomed.iter().copied()), "doomed");
    let found: Vec<_> = garbage.unfinished.iter().map(|node| node.get()).collect();
    assert_eq!(found, unfinished);
}

fn unname(store: &mut Store, last: u8, name: &str) {
    store.remove(&key_resource(last));
    store.remove(&key_name(name));
}

/// Its node has gone to the collector.
fn delete_clone(store: &mut Store) {
    unname(store, 2, "clone");
    store.remove(&key_child(10, 12));
    let row = Node {
        state: DYING,
        parent: 0,
        inherit_end: 0,
        depth: 0,
        ..tree_node(12)
    };
    store.set(key_node(12), row.body());
}

#[test]
fn all_that_a_tree_shows_is_reachable_and_what_its_nodes_hide_is_covered() {
    let store = tree();
    let garbage = marked(&store);
    // Hidden: by an entry of each child; by the bits above it; by inherit_end of both children.
    let covered = [(0x60, 1), (0x5b, 1), (0x60, 8)];
    expect(&garbage, &covered, &[], &[]);
    let reachable = store.objects.iter().filter(|id| !covered.contains(id));
    let found: Vec<_> = garbage.reachable.iter().copied().collect();
    assert_eq!(found, ids(reachable.copied()));
    assert_eq!(garbage.left_to_do(&ids(store.objects)), [""; 0]);
}

#[test]
fn inheriting_ends_in_the_middle_of_an_object() {
    let mut store = tree();
    // The snapshot hides entry 7; the clone shows two blocks of it, and hides none or all of them.
    map(&mut store, 11, &[(0, 8, OBJ, 0x63)]);
    for id in [(0x62, 0), (0x62, 1), (0x62, 3)] {
        store.objects.remove(&id);
    }
    store.remove(&key_object(0x50, 0x62, 0));
    store.remove(&key_object(0x50, 0x62, 3));
    store.set(key_ref(0x61, 7), le(2).to_vec());
    store.objects.extend((0..8).map(|index| (0x63, index)));
    let hidden = |bitmap| {
        let mut store = store.clone();
        map(
            &mut store,
            12,
            &[
                (0, 1, OBJ, 0x5a),
                (1, 1, OBJ | PARTIAL, 0x71),
                (4, 1, HOLE, 0),
                (5, 1, OBJ | PARTIAL, 0x71),
                (7, 1, OBJ | PARTIAL, 0x72),
            ],
        );
        record(&mut store, (0x72, 7), IMPLICIT, bitmap);
        store.objects.insert((0x72, 7));
        marked(&store).fate(object_id(0x60, 7))
    };
    assert_eq!(marked(&store).fate(object_id(0x60, 7)), Fate::Reachable);
    assert_eq!(hidden([0x01, 0]), Fate::Reachable);
    assert_eq!(hidden([0x03, 0]), Fate::Covered);
    assert_eq!(hidden([0xfc, 0xff]), Fate::Reachable);
}

#[test]
fn blocks_beyond_the_end_of_a_resource_are_not_read() {
    let mut store = tree();
    let longer = SIZE * OBJECT + 4096 * 8;
    store.set(key_resource(3), resource(1, 13, longer, "vol"));
    map(
        &mut store,
        13,
        &[
            (0, 1, HOLE, 0),
            (1, 1, REF, 7),
            (3, 1, OBJ | PARTIAL, 0x80),
            (SIZE, 1, OBJ | PARTIAL, 0x80),
        ],
    );
    store.objects.extend([(0x80, SIZE), (0x5c, SIZE)]);
    for (bitmap, fate) in [([0x7f, 0], Fate::Reachable), ([0xff, 0], Fate::Covered)] {
        record(&mut store, (0x80, SIZE), &below_object(0x5c, SIZE), bitmap);
        assert_eq!(marked(&store).fate(object_id(0x5c, SIZE)), fate);
    }
}

#[test]
fn the_nodes_of_a_deleted_snapshot_are_merged_into_its_only_child() {
    let mut store = tree();
    unname(&mut store, 1, "snap");
    let garbage = marked(&store);
    let covered = [(0x60, 0), (0x60, 1), (0x5b, 1), (0x60, 8)];
    let doomed = [(0x62, 0), (0x62, 1)];
    expect(&garbage, &covered, &doomed, &[11]);
    assert_eq!(garbage.fate(object_id(0x62, 3)), Fate::Reachable);
    assert!(!garbage.left_to_do(&ids(store.objects.clone())).is_empty());

    // As the collector leaves it.
    for key in [
        key_node(11),
        key_usage(11),
        key_map(0x40, 11, 0),
        key_map(0x41, 11, 0),
        key_child(10, 11),
        key_child(11, 13),
        key_object(0x50, 0x62, 0),
    ] {
        store.remove(&key);
    }
    let row = Node {
        parent: 10,
        ..tree_node(13)
    };
    store.set(key_node(13), row.body());
    store.set(key_child(10, 13), vec![]);
    record(&mut store, (0x80, 3), &below_object(0x62, 3), [0x02, 0]);
    store.set(key_ref(0x61, 7), le(2).to_vec());
    let left = store.objects.clone();
    for id in doomed {
        store.objects.remove(&id);
    }
    let merged = marked(&store);
    // Entry 6 was shown up to inherit_end of the snapshot, and is by the clone.
    expect(&merged, &covered, &[], &[]);
    assert_eq!(merged.reachable, garbage.reachable);
    assert_eq!(merged.left_to_do(&ids(store.objects.clone())), [""; 0]);
    assert_eq!(merged.left_to_do(&ids(left)).len(), 2);
    store.objects.remove(&(0x60, 6));
    assert_eq!(merged.left_to_do(&ids(store.objects)).len(), 1);
}

#[test]
fn a_deleted_clone_goes_and_so_does_what_only_it_showed_of_a_node_with_one_child_left() {
    let mut store = tree();
    delete_clone(&mut store);
    let garbage = marked(&store);
    let doomed = [
        (0x5a, 0),
        (0x71, 1),
        (0x5b, 1),
        (0x5a, 1),
        (0x71, 5),
        // Of the node that the snapshot takes in: what it hides by an entry, and by inherit_end.
        (0x60, 1),
        (0x60, 8),
    ];
    expect(&garbage, &[], &doomed, &[10, 12]);
    assert_eq!(garbage.fate(object_id(0x60, 7)), Fate::Reachable);
    // Its record of ref 7 is not the only one that names it.
    assert_eq!(garbage.fate(object_id(0x66, 40)), Fate::Reachable);
}

#[test]
fn an_object_that_its_child_covers_by_bits_alone_stays_below_it() {
    let mut store = tree();
    unname(&mut store, 1, "snap");
    // Block 0 of the snapshot's object is not shown by the volume, nor is the last one.
    record(&mut store, (0x80, 3), IMPLICIT, [0x03, 0x80]);
    let garbage = marked(&store);
    assert_eq!(garbage.fate(object_id(0x62, 3)), Fate::Covered);
    assert_eq!(garbage.fate(object_id(0x61, 3)), Fate::Reachable);
}

#[test]
fn refs_live_as_long_as_what_names_them_or_their_counts_are_too_high() {
    let mut store = tree();
    store.set(vec![3, 3], le(12).to_vec());
    for (id, count) in [(9, 0_u64), (10, 1), (11, 1)] {
        store.set(key_ref(0x60, id), bytes![le(0x66), le(id), [0]]);
        store.set(key_ref(0x61, id), le(count).to_vec());
        store.objects.insert((0x66, id));
    }
    // Ref 11 is named, by the clone alone.
    map(
        &mut store,
        12,
        &[
            (0, 1, OBJ, 0x5a),
            (1, 1, OBJ | PARTIAL, 0x71),
            (4, 1, HOLE, 0),
            (5, 1, OBJ | PARTIAL, 0x71),
            (9, 1, REF, 11),
        ],
    );
    let fates = |store: &Store| {
        let garbage = marked(store);
        [9, 10, 11].map(|index| garbage.fate(object_id(0x66, index)))
    };
    assert_eq!(
        fates(&store),
        [Fate::Doomed, Fate::Covered, Fate::Reachable]
    );
    delete_clone(&mut store);
    assert_eq!(fates(&store), [Fate::Doomed, Fate::Covered, Fate::Doomed]);
}

#[test]
fn what_is_trimmed_dead_or_leaked_is_not_kept() {
    let store = Store::healthy();
    let garbage = marked(&store);
    let fate = |generation, index| garbage.fate(object_id(generation, index));
    assert_eq!(fate(0x20, 1), Fate::Reachable);
    // Trimmed, of a dying node, dead, leaked.
    assert_eq!(fate(0x21, 20), Fate::Doomed);
    assert_eq!(fate(0x30, 600), Fate::Doomed);
    let dead = [0, 2, 3].map(|index| fate(0x40, index));
    assert_eq!(dead, [Fate::Dead, Fate::Dead, Fate::Leaked]);
    assert_eq!(fate(0x50, 7), Fate::Leaked);
    // A uniform page counts entry by entry, and what lies below a partial object too.
    assert_eq!(
        (fate(1, 1023), fate(9, 5)),
        (Fate::Reachable, Fate::Reachable)
    );
    assert_eq!(fate(3, 40), Fate::Reachable);
    assert_eq!(garbage.dead, [(object_id(0x40, 0), 3)]);
    let unfinished: Vec<_> = garbage.unfinished.iter().map(|node| node.get()).collect();
    assert_eq!(unfinished, [3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_neither_panic_nor_make_it_go_on_for_ever(
        flips in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut store = tree();
        let keys: Vec<_> = store.rows.keys().cloned().collect();
        for (row, at, bits) in flips {
            let body = store.rows.get_mut(row.get(&keys)).unwrap();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] ^= bits;
            }
        }
        if let Err(error) = tried(&store) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a_store_that_is_not_clean_is_refused() {
    for corrupt in [
        |s: &mut Store| s.remove(&key_child(10, 11)),
        |s: &mut Store| s.remove(&key_ref(0x60, 7)),
        |s: &mut Store| record(s, (0x5b, 1), &below_object(0x71, 1), [0x0f, 0]),
        |s: &mut Store| s.set(key_map(0x41, 11, 0), vec![2]),
        |s: &mut Store| s.remove(&key32(0x10, 1)),
    ] as [fn(&mut Store); 5]
    {
        let mut store = tree();
        corrupt(&mut store);
        assert_eq!(tried(&store).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

//! A healthy tree of snapshots and clones, with refs, nested partial objects and merged nodes, and
//! what its rows of table 32 say.

use super::corruptions::{expect_of, set_node};
use super::store::*;
use crate::fsck::{FindingKind as Kind, MEMORY_LIMIT, Options};

/// Smaller than the runs of the tree.
const LITTLE: u64 = 512;
/// Entries of its resources.
pub const SIZE: u64 = 16;

/// Sets the entries of page 0 of a node, and what table 32 says of it.
pub fn map(store: &mut Store, node: u64, entries: &[(u64, u64, u8, u64)]) {
    store.set(key_map(0x40, node, 0), slots(&[(0, 1, ROW, 0)]));
    store.set(key_map(0x41, node, 0), slots(entries));
    let counted = entries.iter().filter(|(_, _, head, _)| head & 7 != HOLE);
    store.usage(node, counted.map(|(_, length, _, _)| length).sum());
}

pub fn record(store: &mut Store, object: (u64, u64), below: &[u8], bitmap: [u8; 2]) {
    store.set(key_object(0x50, object.0, object.1), bytes![below, bitmap]);
}

pub fn below_object(generation: u64, index: u64) -> Vec<u8> {
    bytes![[2], le(generation), le(index)]
}

pub fn below_ref(id: u64) -> Vec<u8> {
    bytes![[3], le(id)]
}

pub const IMPLICIT: &[u8] = &[0];
pub const ZEROS: &[u8] = &[1];

/// A node of the tree.
pub fn tree_node(number: u64) -> Node {
    let plain = Node {
        state: HEAD,
        run: 3,
        ..node(4)
    };
    match number {
        // Its snapshot was deleted; it has two children.
        10 => Node {
            state: FROZEN,
            cut: 0x60,
            current: 0x61,
            ..plain
        },
        // The snapshot. Nodes above it have been merged since it was made.
        11 => Node {
            state: FROZEN,
            parent: 10,
            inherit_end: 8 * OBJECT,
            cut: 0x62,
            current: 0x62,
            depth: 3,
            ..plain
        },
        // A clone of the deleted snapshot, shrunk into its entry 7 and grown again.
        12 => Node {
            parent: 10,
            inherit_end: 7 * OBJECT + 2 * 4096,
            cut: 0x70,
            current: 0x71,
            depth: 2,
            ..plain
        },
        // The volume.
        _ => Node {
            parent: 11,
            inherit_end: 4 * OBJECT,
            cut: 0x80,
            current: 0x80,
            depth: 2,
            ..plain
        },
    }
}

/// The healthy store's catalogue and pool with the tree alone in them.
pub fn tree() -> Store {
    let mut store = Store::healthy();
    let table = |key: &[u8]| key.first().copied().unwrap_or(0);
    store
        .rows
        .retain(|key, _| table(key) < 0x20 && key[..] != [3, 1] && key[..] != [3, 3]);
    store.objects.clear();
    store.set(vec![3, 1], le(14).to_vec());
    store.set(vec![3, 3], le(9).to_vec());
    for number in 10..14 {
        store.set(key_node(number), tree_node(number).body());
    }
    for (parent, child) in [(10, 11), (10, 12), (11, 13)] {
        store.set(key_child(parent, child), vec![]);
    }
    for (last, kind, node, name) in [(1, 2, 11, "snap"), (2, 1, 12, "clone"), (3, 1, 13, "vol")] {
        store.set(
            key_resource(last),
            resource(kind, node, SIZE * OBJECT, name),
        );
        store.set(key_name(name), uuid(last).to_vec());
    }
    map(
        &mut store,
        10,
        &[
            (0, 1, OBJ, 0x60),
            (1, 1, OBJ | PARTIAL, 0x60),
            (2, 1, HOLE, 0),
            (3, 1, OBJ, 0x61),
            (6, 3, OBJ, 0x60),
        ],
    );
    record(&mut store, (0x60, 1), ZEROS, [0xff, 0]);
    map(
        &mut store,
        11,
        &[
            (0, 1, OBJ | PARTIAL, 0x62),
            (1, 1, OBJ, 0x62),
            (3, 1, OBJ | PARTIAL, 0x62),
            (4, 1, REF | FROZEN_FLAG, 7),
        ],
    );
    record(&mut store, (0x62, 0), IMPLICIT, [0xff, 0x7f]);
    record(&mut store, (0x62, 3), IMPLICIT, [0x01, 0x80]);
    // Of the clone, the objects at 0 and below 1 were merged into it.
    map(
        &mut store,
        12,
        &[
            (0, 1, OBJ, 0x5a),
            (1, 1, OBJ | PARTIAL, 0x71),
            (4, 1, HOLE, 0),
            (5, 1, OBJ | PARTIAL, 0x71),
        ],
    );
    record(&mut store, (0x71, 1), &below_object(0x5b, 1), [0xff, 0]);
    record(&mut store, (0x5b, 1), &below_object(0x5a, 1), [0x0f, 0]);
    record(&mut store, (0x71, 5), &below_ref(7), [1, 0]);
    map(
        &mut store,
        13,
        &[(0, 1, HOLE, 0), (1, 1, REF, 7), (3, 1, OBJ | PARTIAL, 0x80)],
    );
    record(&mut store, (0x80, 3), IMPLICIT, [0x02, 0]);
    store.set(key_ref(0x60, 7), bytes![le(0x66), le(40), [0]]);
    store.set(key_ref(0x61, 7), le(3).to_vec());
    store.objects.extend([
        (0x60, 0),
        (0x60, 1),
        (0x61, 3),
        (0x60, 6),
        (0x60, 7),
        (0x60, 8),
        (0x62, 0),
        (0x62, 1),
        (0x62, 3),
        (0x5a, 0),
        (0x71, 1),
        (0x5b, 1),
        (0x5a, 1),
        (0x71, 5),
        (0x80, 3),
        (0x66, 40),
    ]);
    store
}

#[test]
fn a_healthy_tree_has_no_errors_and_what_its_unnamed_node_holds_is_counted() {
    let report = run(&tree(), Options { deep: true }, MEMORY_LIMIT);
    assert_eq!(kinds(&report), [], "{:#?}", report.findings);
    let found: Vec<_> = report.counts.keys().copied().collect();
    assert_eq!(found, [Kind::Collecting]);
    let totals = &report.totals;
    assert_eq!((totals.unnamed_objects, totals.dying_objects), (6, 0));
    assert_eq!(totals.unnamed_bytes, 6 * OBJECT);
    assert_eq!((totals.entries, totals.read), (6 + 4 + 3 + 2, 16));
    let parts = run(&tree(), Options { deep: true }, LITTLE);
    assert_eq!(parts.totals, report.totals);
    assert_eq!(parts.counts, report.counts);
}

#[test]
fn a_store_without_usage_rows_is_one_from_before_and_no_error() {
    let mut store = tree();
    store.rows.retain(|key, _| key[0] != 0x32);
    let report = run(&store, Options::default(), MEMORY_LIMIT);
    assert_eq!(kinds(&report), [], "{:#?}", report.findings);
    assert_eq!(report.counts[&Kind::UsageMissing], 4);
}

#[test]
fn usage_rows_that_say_something_else_than_the_maps() {
    expect_of(
        tree,
        &[
            ("too few", Kind::UsageWrong, |s| s.usage(11, 3)),
            ("too many", Kind::UsageWrong, |s| s.usage(12, 4)),
            ("less than none", Kind::UsageWrong, |s| {
                s.usage(10, u64::MAX)
            }),
            ("objects in an empty map", Kind::UsageWrong, |s| {
                for table in [0x40, 0x41] {
                    s.remove(&key_map(table, 12, 0));
                }
                for (generation, index) in [(0x71, 1), (0x5b, 1), (0x71, 5)] {
                    s.remove(&key_object(0x50, generation, index));
                }
                s.set(key_ref(0x61, 7), le(2).to_vec());
            }),
            ("of no node", Kind::NodeMissing, |s| s.usage(9, 0)),
            ("a short row", Kind::Malformed, |s| {
                s.set(key_usage(11), vec![4])
            }),
            ("a flipped bit", Kind::Unsealed, |s| {
                let mut value = seal(&key_usage(11), 1, &le(4));
                value[1] ^= 1;
                s.raw.insert(key_usage(11), value);
            }),
            ("node 0", Kind::Malformed, |s| s.usage(0, 0)),
        ],
    );
}

#[test]
fn trees_that_break_the_format() {
    expect_of(
        tree,
        &[
            ("a depth without a parent", Kind::Depth, |s| {
                set_tree_node(s, 10, |n| n.depth = 1)
            }),
            ("a volume's head with a child", Kind::NodeState, |s| {
                set_tree_node(s, 11, |n| n.state = HEAD);
                s.set(key_resource(1), resource(1, 11, SIZE * OBJECT, "snap"));
                set_tree_node(s, 11, |n| (n.state, n.current) = (HEAD, 0x62));
            }),
            (
                "an entry that is in parent and child",
                Kind::ObjectShared,
                |s| {
                    map(
                        s,
                        13,
                        &[
                            (0, 1, HOLE, 0),
                            (1, 1, OBJ, 0x62),
                            (3, 1, OBJ | PARTIAL, 0x80),
                        ],
                    );
                    s.set(key_ref(0x61, 7), le(2).to_vec());
                },
            ),
            (
                "a below that the parent's entry names",
                Kind::ObjectShared,
                |s| {
                    record(s, (0x80, 3), &below_object(0x62, 3), [0x02, 0]);
                },
            ),
            (
                "a below that nothing names any more",
                Kind::PartialOrphan,
                |s| {
                    record(s, (0x71, 1), ZEROS, [0xff, 0]);
                },
            ),
        ],
    );
}

fn set_tree_node(store: &mut Store, number: u64, change: impl FnOnce(&mut Node)) {
    let mut row = tree_node(number);
    change(&mut row);
    store.set(key_node(number), row.body());
}

#[test]
fn the_usage_of_a_dying_node_is_what_is_left_of_it() {
    let mut store = Store::healthy();
    store.usage(4, 511);
    let report = run(&store, Options::default(), MEMORY_LIMIT);
    assert_eq!(kinds(&report), [Kind::UsageWrong]);
    // The page at which the deletion is.
    store.set(key_map(0x40, 4, 0), slots(&[(0, 2, ROW, 0)]));
    store.set(key_map(0x41, 4, 1), slots(&[(1, 511, OBJ, 0x30)]));
    let report = run(&store, Options::default(), MEMORY_LIMIT);
    assert_eq!(kinds(&report), [], "{:#?}", report.findings);
    set_node(&mut store, 4, |n| n.state = FROZEN);
    let report = run(&store, Options::default(), MEMORY_LIMIT);
    assert!(kinds(&report).contains(&Kind::NodeUnowned));
}

//! Each corruption of the healthy store gives exactly one kind of finding.

use super::store::*;
use crate::fsck::{FindingKind as Kind, MEMORY_LIMIT, Options};

type Case = (&'static str, Kind, fn(&mut Store));

pub fn expect(cases: &[Case]) {
    expect_of(Store::healthy, cases);
}

/// Corrupts what this makes.
pub fn expect_of(healthy: fn() -> Store, cases: &[Case]) {
    for (name, kind, corrupt) in cases {
        let mut store = healthy();
        corrupt(&mut store);
        let report = run(&store, Options::default(), MEMORY_LIMIT);
        assert_eq!(kinds(&report), [*kind], "{name}: {:#?}", report.findings);
        let finding = report
            .findings
            .iter()
            .find(|finding| finding.kind == *kind)
            .unwrap();
        assert!(
            !finding.place.is_empty() && !finding.text.is_empty(),
            "{name}"
        );
        assert_eq!(finding.severity, kind.severity());
    }
}

pub fn set_node(store: &mut Store, number: u64, change: impl FnOnce(&mut Node)) {
    let mut row = node(number);
    change(&mut row);
    store.set(key_node(number), row.body());
}

fn raw(store: &mut Store, key: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) {
    let mut value = seal(&key, 1, &store.rows[&key]);
    change(&mut value);
    store.raw.insert(key, value);
}

const PAGE1: fn() -> Vec<u8> = || key_map(0x41, 1, 0);

#[test]
fn rows_that_cannot_be_used() {
    expect(&[
        ("a flipped bit in a resource", Kind::Unsealed, |s| {
            raw(s, key_resource(2), |v| v[9] ^= 1)
        }),
        ("a flipped bit in a node", Kind::Unsealed, |s| {
            raw(s, key_node(2), |v| v[9] ^= 1)
        }),
        ("a flipped bit in a pool", Kind::Unsealed, |s| {
            raw(s, key32(0x10, 1), |v| v[9] ^= 1)
        }),
        ("a flipped bit in a page", Kind::Unsealed, |s| {
            raw(s, PAGE1(), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a group", Kind::Unsealed, |s| {
            raw(s, key_map(0x40, 1, 0), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a partial record", Kind::Unsealed, |s| {
            raw(s, key_object(0x50, 2, 3), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a counted object", Kind::Unsealed, |s| {
            raw(s, key_ref(0x60, 1), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a count", Kind::Unsealed, |s| {
            raw(s, key_ref(0x61, 1), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a mark", Kind::Unsealed, |s| {
            raw(s, key32(0x11, 1), |v| v[2] ^= 1)
        }),
        ("a flipped bit in a dead range", Kind::Unsealed, |s| {
            raw(s, key_object(0x70, 0x40, 0), |v| v[1] ^= 1)
        }),
        ("a flipped bit in a store record", Kind::Unsealed, |s| {
            raw(s, bytes![key32(0x12, 1), *b"r"], |v| v[1] ^= 1)
        }),
        ("a value too short for a seal", Kind::Unsealed, |s| {
            raw(s, key_name("vol"), |v| v.truncate(3))
        }),
        ("an empty value", Kind::Unsealed, |s| {
            raw(s, key_child(1, 2), |v| v.clear())
        }),
        ("a value of another key", Kind::Unsealed, |s| {
            s.raw
                .insert(key_name("vol"), seal(&key_name("snap"), 1, &uuid(2)));
        }),
        ("another layout", Kind::Unsealed, |s| {
            s.raw
                .insert(key_name("vol"), seal(&key_name("vol"), 2, &uuid(2)));
        }),
        ("trailing bytes in a resource", Kind::Malformed, |s| {
            s.rows.get_mut(&key_resource(2)).unwrap().push(0)
        }),
        ("a reserved byte in a node", Kind::Malformed, |s| {
            s.rows.get_mut(&key_node(2)).unwrap()[5] = 2
        }),
        ("a faulted node that is no head", Kind::Malformed, |s| {
            s.rows.get_mut(&key_node(1)).unwrap()[5] = 1
        }),
        ("a faulted volume", Kind::VolumeFaulted, |s| {
            s.rows.get_mut(&key_node(2)).unwrap()[5] = 1
        }),
        ("an unknown state of a node", Kind::Malformed, |s| {
            s.rows.get_mut(&key_node(2)).unwrap()[4] = 4
        }),
        ("a reserved flag of an export", Kind::Malformed, |s| {
            s.set(bytes![[0x22], uuid(2), [1]], vec![2])
        }),
        ("a key with trailing bytes", Kind::Malformed, |s| {
            s.set(bytes![key_node(9), [0]], node(1).body())
        }),
        ("pool 0", Kind::Malformed, |s| {
            s.set(key32(0x11, 0), le(5).to_vec())
        }),
        ("a body in table 31", Kind::Malformed, |s| {
            s.set(key_child(1, 2), vec![0])
        }),
        ("a group beyond the last", Kind::Malformed, |s| {
            s.set(key_map(0x40, 1, 1 << 22), vec![0])
        }),
        ("an empty dead range", Kind::Malformed, |s| {
            s.set(key_object(0x70, 0x41, 0), le(0).to_vec())
        }),
        ("a table between the known ones", Kind::UnknownTable, |s| {
            s.set(vec![0x23, 1], vec![])
        }),
        ("a table above the known ones", Kind::UnknownTable, |s| {
            s.set(vec![0xff; 40], vec![])
        }),
        ("an empty key", Kind::UnknownTable, |s| {
            s.set(vec![], vec![])
        }),
    ]);
}

#[test]
fn pages_that_are_not_canonical() {
    // Each stands for the whole of page 0 of node 1: the objects it would name are looked for nowhere.
    for (name, body) in [
        ("no form", vec![]),
        ("an unknown form", vec![2]),
        ("a reserved bit", vec![0, 0x81]),
        ("an unknown kind", vec![0, 5]),
        ("a written skip of 0", vec![0, 0x21, 0]),
        ("a written length of 1", vec![0, 0x41, 1]),
        ("a written length of 0", vec![0, 0x41, 0]),
        ("a run of absent in a whole body", vec![0, 0]),
        ("flags of a hole", vec![0, 0x09]),
        (
            "a varint that is longer than needed",
            vec![0, 0x21, 0x81, 0],
        ),
        (
            "a varint of more than 64 bits",
            bytes![[0, 0x21], [0xff; 9], [2]],
        ),
        ("a varint that does not end", bytes![[0, 0x21], [0xff; 11]]),
        ("a run beyond the last slot", vec![0, 0x61, 0xff, 3, 2]),
        ("a run that begins at slot 512", vec![0, 0x21, 0x80, 4]),
        (
            "a skip that overflows",
            bytes![[0, 0x01, 0x21], [0xff; 9], [1]],
        ),
        ("equal neighbours", vec![0, 1, 1]),
        ("equal neighbouring objects", vec![0, 2, 2, 2, 0]),
        ("generation 0", vec![0, 2, 0]),
        ("a generation below 0", vec![0, 2, 1]),
        ("a generation of 53 bits", bytes![[0, 2], [0x80; 7], [0x40]]),
        ("a payload cut off", vec![0, 2]),
    ] {
        let mut store = Store::healthy();
        store.set(PAGE1(), body);
        let report = run(&store, Options::default(), MEMORY_LIMIT);
        assert_eq!(
            kinds(&report),
            [Kind::Malformed],
            "{name}: {:#?}",
            report.findings
        );
    }
}

#[test]
fn the_store_pools_and_counters() {
    expect(&[
        ("no superblock", Kind::SuperblockMissing, |s| s.remove(&[1])),
        ("a newer format", Kind::FormatVersion, |s| {
            s.set(vec![1], bytes![*b"ATOLLMET", [2, 0, 0, 0], *b"anything"])
        }),
        ("no run state", Kind::RunStateMissing, |s| s.remove(&[2])),
        ("an unclean stop in the future", Kind::RunState, |s| {
            s.set(vec![2], bytes![[1], le(3), le(4)])
        }),
        ("a node of a future run", Kind::RunState, |s| {
            set_node(s, 2, |n| n.run = 4)
        }),
        ("a node counter behind", Kind::Counter, |s| {
            s.set(vec![3, 1], le(4).to_vec())
        }),
        ("no pool counter", Kind::Counter, |s| s.remove(&[3, 2])),
        ("a ref counter behind", Kind::Counter, |s| {
            s.set(vec![3, 3], le(1).to_vec())
        }),
        ("two pools with one UUID", Kind::PoolShared, |s| {
            s.set(key32(0x10, 2), s.rows[&key32(0x10, 1)].clone());
            s.set(vec![3, 2], le(3).to_vec());
        }),
        ("no pool", Kind::PoolMissing, |s| {
            s.remove(&key32(0x10, 1));
            s.remove(&key_map(0x41, 3, 0));
            s.set(key_map(0x40, 3, 0), vec![0]);
            s.usage(3, 0);
            s.set(
                key_node(3),
                Node {
                    trim: NO_TRIM,
                    ..node(3)
                }
                .body(),
            );
        }),
        ("a mark of no pool", Kind::PoolMissing, |s| {
            s.set(key32(0x11, 3), le(5).to_vec())
        }),
        ("a pool of another object size", Kind::PoolMismatch, |s| {
            s.pool_object = 128 << 10
        }),
    ]);
}

#[test]
fn names_resources_and_exports() {
    expect(&[
        ("a resource without a name", Kind::NameMissing, |s| {
            s.remove(&key_name("vol"))
        }),
        ("a name of nothing", Kind::NameDangling, |s| {
            s.set(key_name("ghost"), uuid(7).to_vec())
        }),
        ("a second name", Kind::NameDangling, |s| {
            s.set(key_name("other"), uuid(2).to_vec())
        }),
        ("two resources of one name", Kind::NameShared, |s| {
            s.remove(&key_name("small"));
            s.set(key_resource(3), resource(1, 3, 1 << 20, "vol"));
        }),
        ("an odd size", Kind::ResourceSize, |s| {
            s.set(
                key_resource(2),
                resource(1, 2, ENTRIES * OBJECT + 512, "vol"),
            )
        }),
        ("a small volume", Kind::ResourceSize, |s| {
            s.set(key_resource(3), resource(1, 3, 15 * OBJECT, "small"))
        }),
        ("an export of nothing", Kind::ExportDangling, |s| {
            s.set(bytes![[0x22], uuid(7), [2]], vec![0])
        }),
        ("a resource without a node", Kind::NodeMissing, |s| {
            s.set(key_resource(8), resource(1, 9, 1 << 20, "new"));
            s.set(key_name("new"), uuid(8).to_vec());
        }),
        ("two resources of one node", Kind::NodeShared, |s| {
            s.set(key_resource(8), resource(2, 1, ENTRIES * OBJECT, "new"));
            s.set(key_name("new"), uuid(8).to_vec());
        }),
        ("a snapshot of a head", Kind::NodeState, |s| {
            s.set(key_resource(3), resource(2, 3, 1 << 20, "small"))
        }),
        ("a volume on a frozen node", Kind::NodeState, |s| {
            set_node(s, 3, |n| n.state = FROZEN)
        }),
        ("an image on a head", Kind::NodeState, |s| {
            s.set(key_resource(3), resource(3, 3, 1 << 20, "small"))
        }),
        ("a file on a dying node", Kind::NodeState, |s| {
            s.set(key_resource(8), resource(4, 4, 1 << 30, "new"));
            s.set(key_name("new"), uuid(8).to_vec());
        }),
        ("a volume on a dying node", Kind::NodeState, |s| {
            set_node(s, 3, |n| n.state = DYING)
        }),
    ]);
}

#[test]
fn the_tree_of_nodes() {
    expect(&[
        ("a head without a resource", Kind::NodeUnowned, |s| {
            s.set(key_node(5), node(3).body());
            s.set(
                key_node(5),
                Node {
                    current: 0,
                    ..node(3)
                }
                .body(),
            );
            s.set(vec![3, 1], le(6).to_vec());
        }),
        ("a frozen node without a child", Kind::NodeUnowned, |s| {
            s.set(key_node(5), node(1).body());
            s.set(vec![3, 1], le(6).to_vec());
        }),
        ("a parent that is dying", Kind::NodeState, |s| {
            s.set(key_child(4, 3), vec![]);
            set_node(s, 3, |n| (n.parent, n.depth) = (4, 1));
        }),
        ("no parent", Kind::ParentMissing, |s| {
            s.set(key_child(9, 3), vec![]);
            set_node(s, 3, |n| (n.parent, n.depth) = (9, 1));
        }),
        ("a cycle", Kind::ParentCycle, |s| {
            s.set(key_child(1, 1), vec![]);
            set_node(s, 1, |n| (n.parent, n.depth) = (1, 1));
        }),
        ("a cycle of two", Kind::ParentCycle, |s| {
            s.set(
                key_node(5),
                Node {
                    state: FROZEN,
                    parent: 1,
                    depth: 2,
                    ..node(4)
                }
                .body(),
            );
            s.set(key_child(5, 1), vec![]);
            s.set(key_child(1, 5), vec![]);
            set_node(s, 1, |n| (n.parent, n.depth) = (5, 1));
            set_node(s, 2, |n| n.depth = 2);
            s.usage(5, 0);
            s.set(vec![3, 1], le(6).to_vec());
        }),
        ("no depth below a parent", Kind::Depth, |s| {
            set_node(s, 2, |n| n.depth = 0)
        }),
        ("a dying node with a parent", Kind::NodeState, |s| {
            s.set(key_child(1, 4), vec![]);
            set_node(s, 4, |n| (n.parent, n.depth) = (1, 1));
        }),
        (
            "a dying node with a row of a child",
            Kind::ChildTable,
            |s| s.set(key_child(4, 3), vec![]),
        ),
        ("depth without a parent", Kind::Depth, |s| {
            set_node(s, 3, |n| n.depth = 1)
        }),
        ("no row of the child", Kind::ChildTable, |s| {
            s.remove(&key_child(1, 2))
        }),
        ("a row of no child", Kind::ChildTable, |s| {
            s.set(key_child(1, 3), vec![])
        }),
        ("inheriting without a parent", Kind::InheritEnd, |s| {
            set_node(s, 3, |n| n.inherit_end = 4096)
        }),
        ("inheriting beyond the end", Kind::InheritEnd, |s| {
            set_node(s, 2, |n| n.inherit_end += 4096)
        }),
        ("inheriting more than a volume has", Kind::InheritEnd, |s| {
            s.remove(&key_resource(1));
            s.remove(&key_name("snap"));
            set_node(s, 1, |n| {
                (n.parent, n.depth, n.inherit_end) = (5, 1, (1 << 50) + 4096)
            });
            set_node(s, 2, |n| n.depth = 2);
            s.set(
                key_node(5),
                Node {
                    state: FROZEN,
                    ..node(4)
                }
                .body(),
            );
            s.set(key_child(5, 1), vec![]);
            s.usage(5, 0);
            s.set(vec![3, 1], le(6).to_vec());
        }),
        ("an odd inherit_end", Kind::InheritEnd, |s| {
            set_node(s, 2, |n| n.inherit_end -= 1)
        }),
        ("an odd trim", Kind::Trim, |s| {
            set_node(s, 3, |n| n.trim += 4096)
        }),
        ("trim before the end", Kind::Trim, |s| {
            set_node(s, 3, |n| n.trim -= OBJECT)
        }),
        ("a cut above the mark", Kind::AboveMark, |s| {
            set_node(s, 2, |n| n.cut = MARK)
        }),
        (
            "a current generation above the mark",
            Kind::AboveMark,
            |s| set_node(s, 2, |n| n.current = MARK),
        ),
        (
            "one current generation of two heads",
            Kind::GenerationShared,
            |s| set_node(s, 2, |n| n.current = 0x20),
        ),
    ]);
}

#[test]
fn groups_pages_and_entries() {
    expect(&[
        (
            "a page that its group does not know",
            Kind::PageTable,
            |s| {
                s.set(key_map(0x41, 1, 2), slots(&[(0, 1, HOLE, 0)]));
            },
        ),
        ("a page whose group has no row", Kind::PageTable, |s| {
            s.remove(&key_map(0x40, 2, 0))
        }),
        ("a page without its row", Kind::PageTable, |s| {
            s.set(key_map(0x40, 2, 0), slots(&[(0, 2, ROW, 0)]));
        }),
        ("a map of no node", Kind::NodeMissing, |s| {
            s.set(key_map(0x40, 9, 0), vec![0])
        }),
        ("a page of no node", Kind::NodeMissing, |s| {
            s.set(key_map(0x41, 9, 0), vec![0])
        }),
        ("a row in a page", Kind::EntryKind, |s| {
            s.set(
                PAGE1(),
                slots(&[(0, 2, OBJ, 1), (3, 1, OBJ | PARTIAL, 2), (9, 1, ROW, 0)]),
            );
        }),
        ("a hole beyond the end", Kind::EntryBeyondEnd, |s| {
            s.set(
                key_map(0x40, 2, 0),
                slots(&[(0, 1, ROW, 0), (2, 1, HOLE, 0)]),
            );
        }),
        (
            "an entry between the end and the trim",
            Kind::EntryBeyondEnd,
            |s| set_node(s, 3, |n| n.trim += 5 * OBJECT),
        ),
        ("an entry above the mark", Kind::AboveMark, |s| {
            s.set(
                key_map(0x40, 3, 0),
                slots(&[(0, 1, ROW, 0), (9, 1, OBJ, MARK)]),
            );
            s.usage(3, 3 + 512);
        }),
        ("an entry above the pool's mark", Kind::AboveMark, |s| {
            s.pool_mark = 0x40
        }),
        ("no mark", Kind::AboveMark, |s| s.remove(&key32(0x11, 1))),
    ]);
}

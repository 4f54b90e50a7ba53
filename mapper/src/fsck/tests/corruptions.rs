//! Each corruption of the healthy store gives exactly one kind of finding.

use super::store::*;
use crate::fsck::{FindingKind as Kind, MEMORY_LIMIT, Options};

type Change = (&'static str, fn(&mut Store));
type Case = (&'static str, Kind, fn(&mut Store));

fn expect(cases: &[Case]) {
    for (name, kind, corrupt) in cases {
        let mut store = Store::healthy();
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

fn set_node(store: &mut Store, number: u64, change: impl FnOnce(&mut Node)) {
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
            raw(s, bytes![[0x31], be(1), be(2)], |v| v.clear())
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
            s.set(bytes![[0x31], be(1), be(2)], vec![0])
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
            s.set(bytes![[0x31], be(4), be(3)], vec![]);
            set_node(s, 3, |n| (n.parent, n.depth) = (4, 1));
        }),
        ("no parent", Kind::ParentMissing, |s| {
            s.set(bytes![[0x31], be(9), be(3)], vec![]);
            set_node(s, 3, |n| (n.parent, n.depth) = (9, 1));
        }),
        ("a cycle", Kind::ParentCycle, |s| {
            s.set(bytes![[0x31], be(1), be(1)], vec![]);
            set_node(s, 1, |n| n.parent = 1);
        }),
        ("a wrong depth", Kind::Depth, |s| {
            set_node(s, 2, |n| n.depth = 2)
        }),
        ("depth without a parent", Kind::Depth, |s| {
            set_node(s, 3, |n| n.depth = 1)
        }),
        ("no row of the child", Kind::ChildTable, |s| {
            s.remove(&bytes![[0x31], be(1), be(2)])
        }),
        ("a row of no child", Kind::ChildTable, |s| {
            s.set(bytes![[0x31], be(1), be(3)], vec![])
        }),
        ("inheriting without a parent", Kind::InheritEnd, |s| {
            set_node(s, 3, |n| n.inherit_end = 4096)
        }),
        ("inheriting beyond the end", Kind::InheritEnd, |s| {
            set_node(s, 2, |n| n.inherit_end += 4096)
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
        }),
        ("an entry above the pool's mark", Kind::AboveMark, |s| {
            s.pool_mark = 0x40
        }),
        ("no mark", Kind::AboveMark, |s| s.remove(&key32(0x11, 1))),
    ]);
}

#[test]
fn partial_records() {
    expect(&[
        ("no record", Kind::PartialMissing, |s| {
            s.remove(&key_object(0x50, 2, 3))
        }),
        (
            "records missing in a uniform page",
            Kind::PartialMissing,
            |s| {
                s.set(
                    key_map(0x40, 1, 0),
                    slots(&[(0, 1, ROW, 0), (1, 1, OBJ | PARTIAL, 1)]),
                );
            },
        ),
        ("a record of a complete object", Kind::PartialFlag, |s| {
            s.set(key_object(0x50, 1, 1), vec![1, 1, 0])
        }),
        ("a record of nothing", Kind::PartialOrphan, |s| {
            s.set(key_object(0x50, 1, 2), vec![1, 1, 0])
        }),
        ("a record of a dead object", Kind::PartialOrphan, |s| {
            s.set(key_object(0x50, 0x40, 1), vec![1, 1, 0])
        }),
        ("a record of a complete ref", Kind::PartialFlag, |s| {
            s.set(key_object(0x50, 3, 40), vec![1, 1, 0])
        }),
        ("a short bitmap", Kind::BitmapLength, |s| {
            s.set(key_object(0x50, 2, 3), vec![1, 1])
        }),
        ("a long bitmap", Kind::BitmapLength, |s| {
            s.set(key_object(0x50, 2, 3), vec![1, 1, 0, 0])
        }),
        ("a full bitmap", Kind::BitmapFull, |s| {
            s.set(key_object(0x50, 2, 3), vec![1, 0xff, 0xff])
        }),
        ("an unknown below", Kind::Malformed, |s| {
            s.set(key_object(0x50, 2, 3), vec![3, 1, 0])
        }),
        ("a chain that does not end", Kind::BelowChain, |s| {
            s.set(key_object(0x50, 9, 5), bytes![[2], le(0x10), le(5), [1, 0]]);
        }),
        ("nothing below", Kind::ObjectMissing, |s| {
            s.objects.remove(&(9, 5));
        }),
    ]);
}

#[test]
fn counted_objects() {
    expect(&[
        ("a count too high", Kind::CountWrong, |s| {
            s.set(key_ref(0x61, 1), le(3).to_vec())
        }),
        ("a negative count", Kind::CountWrong, |s| {
            s.set(key_ref(0x61, 1), le(u64::MAX).to_vec())
        }),
        ("no count", Kind::CountWrong, |s| {
            s.remove(&key_ref(0x61, 1))
        }),
        ("a count of nothing", Kind::CountWrong, |s| {
            s.set(key_ref(0x61, 2), le(1).to_vec())
        }),
        ("a below that is not counted", Kind::CountWrong, |s| {
            s.set(
                key_object(0x50, 0x10, 5),
                bytes![[2], le(3), le(40), [1, 0x80]],
            );
            s.objects.remove(&(9, 5));
        }),
        ("a ref that nothing names", Kind::RefUnused, |s| {
            s.set(key_ref(0x60, 2), bytes![le(3), le(41), [0]]);
            s.set(key_ref(0x61, 2), le(0).to_vec());
            s.objects.insert((3, 41));
        }),
        ("an entry of no ref", Kind::RefMissing, |s| {
            s.set(
                key_map(0x40, 3, 0),
                slots(&[(0, 1, ROW, 0), (9, 1, REF, 2)]),
            );
        }),
        (
            "a partial ref without a record",
            Kind::PartialMissing,
            |s| {
                s.set(
                    key_map(0x41, 2, 0),
                    slots(&[
                        (0, 1, OBJ, 0x10),
                        (5, 1, OBJ | PARTIAL, 0x10),
                        (6, 1, REF | PARTIAL, 1),
                        (7, 1, REF, 1),
                    ]),
                );
            },
        ),
        ("content that is not found", Kind::ContentTable, |s| {
            s.remove(&bytes![key32(0x62, 1), SHA])
        }),
        ("content of no ref", Kind::ContentTable, |s| {
            s.set(bytes![key32(0x62, 1), [1; 32]], le(2).to_vec())
        }),
        ("content of another ref", Kind::ContentTable, |s| {
            s.set(bytes![key32(0x62, 1), [1; 32]], le(1).to_vec())
        }),
        ("content larger than an object", Kind::ContentTable, |s| {
            s.set(
                key_ref(0x60, 1),
                bytes![le(3), le(40), [1], SHA, (OBJECT as u32 + 1).to_le_bytes()],
            );
        }),
        ("the object of a ref is gone", Kind::ObjectMissing, |s| {
            s.objects.remove(&(3, 40));
        }),
    ]);
}

#[test]
fn objects_of_maps_and_pools() {
    expect(&[
        ("an object is gone", Kind::ObjectMissing, |s| {
            s.objects.remove(&(1, 800));
        }),
        ("one object of two nodes", Kind::ObjectShared, |s| {
            s.set(
                key_map(0x40, 2, 0),
                slots(&[(0, 1, ROW, 0), (1, 1, OBJ, 1)]),
            );
        }),
        (
            "one object of an entry and a ref",
            Kind::ObjectShared,
            |s| {
                s.set(
                    key_ref(0x60, 1),
                    bytes![le(1), le(40 + 512), [1], SHA, 4096_u32.to_le_bytes()],
                );
                s.objects.remove(&(3, 40));
            },
        ),
        (
            "own objects of one generation in two heads",
            Kind::GenerationShared,
            |s| {
                set_node(s, 2, |n| n.cut = 0x10);
                s.set(
                    key_map(0x40, 2, 0),
                    slots(&[(0, 1, ROW, 0), (1, 1, OBJ, 0x22)]),
                );
                s.set(
                    key_map(0x40, 3, 0),
                    slots(&[(0, 1, ROW, 0), (9, 1, OBJ, 0x22)]),
                );
                s.objects.extend((512..1024).map(|index| (0x22, index)));
            },
        ),
        (
            "own objects of another head's current generation",
            Kind::GenerationShared,
            |s| {
                set_node(s, 3, |n| n.current = 0x10);
            },
        ),
        ("a dead object in a map", Kind::DeadNamed, |s| {
            s.set(key_object(0x70, 1, 900), le(1).to_vec())
        }),
        ("a dead range over a map", Kind::DeadNamed, |s| {
            s.set(key_object(0x70, 1, 100), le(1 << 30).to_vec())
        }),
        ("a dead object below another", Kind::DeadNamed, |s| {
            s.set(key_object(0x70, 9, 5), le(1).to_vec())
        }),
        ("a dead object that is trimmed", Kind::DeadNamed, |s| {
            s.set(key_object(0x70, 0x21, 20), le(1).to_vec())
        }),
        ("an object that is dead twice", Kind::DeadTwice, |s| {
            s.set(key_object(0x70, 0x40, 2), le(9).to_vec())
        }),
        ("a leaked object above the mark", Kind::AboveMark, |s| {
            s.objects.insert((MARK, 0));
        }),
    ]);
}

#[test]
fn what_a_deletion_or_a_crash_leaves_is_no_error() {
    let legal: [Change; 8] = [
        ("no object of a dying node is left", |s| {
            s.objects.retain(|(generation, _)| *generation != 0x30)
        }),
        ("dead objects are gone", |s| {
            s.objects.retain(|(generation, _)| *generation != 0x40)
        }),
        ("a dying node's object is dead too", |s| {
            s.set(key_object(0x70, 0x30, 600), le(1).to_vec())
        }),
        ("a trimmed object is gone", |s| {
            s.objects.remove(&(0x21, 20));
        }),
        ("the pool's mark is higher", |s| s.pool_mark = 2 * MARK),
        ("the catalogue's mark is higher", |s| {
            s.set(key32(0x11, 1), le(2 * MARK).to_vec())
        }),
        ("what lay below a dying node's object is gone", |s| {
            s.set(key_map(0x40, 4, 0), slots(&[(0, 1, ROW, 0)]));
            s.set(key_map(0x41, 4, 0), slots(&[(0, 1, OBJ | PARTIAL, 0x30)]));
            s.set(key_object(0x50, 0x30, 0), bytes![[2], le(8), le(0), [1, 0]]);
        }),
        ("a below of an object that an ancestor's entry names", |s| {
            s.set(
                key_object(0x50, 0x10, 5),
                bytes![[2], le(1), le(513), [1, 0x80]],
            );
        }),
    ];
    for (name, change) in legal {
        let mut store = Store::healthy();
        change(&mut store);
        let report = run(&store, Options::default(), MEMORY_LIMIT);
        assert_eq!(kinds(&report), [], "{name}: {:#?}", report.findings);
    }
}

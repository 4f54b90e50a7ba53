//! Each corruption of partial records, refs, and objects gives one kind of finding; what deletions
//! and crashes leave gives none that is worse than information.

use super::corruptions::{expect, set_node};
use super::store::*;
use crate::fsck::{FindingKind as Kind, MEMORY_LIMIT, Options};

/// Makes the partial object of node 2 have this many below it.
fn long_chain(s: &mut Store, length: u64) {
    for index in 5..5 + length - 1 {
        s.set(
            key_object(0x50, 9, index),
            bytes![[2], le(9), le(index + 1), [1, 0]],
        );
        s.objects.insert((9, index + 1));
    }
}

type Change = (&'static str, fn(&mut Store));

const PAGE2: fn() -> Vec<u8> = || key_map(0x41, 2, 0);
/// Of the partial object of node 2.
const RECORD5: fn() -> Vec<u8> = || key_object(0x50, 0x10, 5);

/// Makes the dying node have an object over two others.
fn dying_chain(s: &mut Store) {
    s.set(key_map(0x40, 4, 0), slots(&[(0, 1, ROW, 0)]));
    s.set(key_map(0x41, 4, 0), slots(&[(0, 1, OBJ | PARTIAL, 0x30)]));
    s.set(key_object(0x50, 0x30, 0), bytes![[2], le(8), le(0), [1, 0]]);
    s.set(key_object(0x50, 8, 0), bytes![[2], le(7), le(0), [2, 0]]);
    s.objects.extend([(8, 0), (7, 0)]);
    s.usage(4, 1);
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
            s.set(key_object(0x50, 2, 3), vec![4, 1, 0])
        }),
        ("ref 0 below", Kind::Malformed, |s| {
            s.set(key_object(0x50, 2, 3), bytes![[3], le(0), [1, 0]])
        }),
        ("a ref below that does not exist", Kind::RefMissing, |s| {
            s.set(key_object(0x50, 2, 3), bytes![[3], le(2), [1, 0]])
        }),
        ("a partial ref below", Kind::PartialFlag, |s| {
            s.set(key_object(0x50, 2, 3), bytes![[3], le(1), [1, 0]]);
            s.set(key_ref(0x61, 1), le(3).to_vec());
            s.set(key_object(0x50, 3, 40), vec![1, 1, 0]);
            s.set(
                PAGE2(),
                slots(&[
                    (0, 1, OBJ, 0x10),
                    (5, 1, OBJ | PARTIAL, 0x10),
                    (6, 2, REF | PARTIAL, 1),
                ]),
            );
        }),
        ("a chain that does not end", Kind::BelowChain, |s| {
            s.set(key_object(0x50, 9, 6), bytes![[2], le(9), le(7), [1, 0]]);
            s.set(key_object(0x50, 9, 7), bytes![[2], le(9), le(6), [1, 0]]);
            s.objects.extend([(9, 6), (9, 7)]);
        }),
        ("a chain that is too long", Kind::BelowChain, |s| {
            long_chain(s, 257)
        }),
        ("nothing below", Kind::ObjectMissing, |s| {
            s.objects.remove(&(9, 5));
        }),
    ]);
}

#[test]
fn counted_objects() {
    expect(&[
        ("a count too low", Kind::CountWrong, |s| {
            s.set(key_ref(0x61, 1), le(1).to_vec())
        }),
        ("a count of 0", Kind::CountWrong, |s| {
            s.set(key_ref(0x61, 1), le(0).to_vec())
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
        ("a record that is not counted", Kind::CountWrong, |s| {
            s.set(key_object(0x50, 2, 3), bytes![[3], le(1), [1, 0]])
        }),
        (
            "a ref that is neither named nor counted",
            Kind::CountWrong,
            |s| {
                s.set(key_ref(0x60, 2), bytes![le(3), le(41), [0]]);
                s.objects.insert((3, 41));
            },
        ),
        ("an entry of no ref", Kind::RefMissing, |s| {
            s.set(
                key_map(0x40, 3, 0),
                slots(&[(0, 1, ROW, 0), (9, 1, REF, 2)]),
            );
            s.usage(3, 3 + 512);
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
            s.usage(2, 4 + 512);
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
                s.usage(2, 4 + 512);
                s.usage(3, 3 + 512);
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
        (
            "an object of a generation in which another head goes on",
            Kind::GenerationShared,
            |s| {
                s.set(
                    key_map(0x40, 1, 0),
                    slots(&[(0, 1, ROW, 0), (1, 1, OBJ, 0x12)]),
                );
                s.objects.extend((512..1024).map(|index| (0x12, index)));
            },
        ),
        (
            "a ref's object of a generation in which a head goes on",
            Kind::GenerationShared,
            |s| {
                s.set(
                    key_ref(0x60, 1),
                    bytes![le(0x20), le(3), [1], SHA, 4096_u32.to_le_bytes()],
                );
                s.objects.insert((0x20, 3));
            },
        ),
        (
            "a dead object of a generation in which a head goes on",
            Kind::GenerationShared,
            |s| s.set(key_object(0x70, 0x20, 3), le(1).to_vec()),
        ),
        (
            "an object that lies below and that an entry names",
            Kind::ObjectShared,
            |s| s.set(RECORD5(), bytes![[2], le(1), le(513), [1, 0x80]]),
        ),
        (
            "an object that lies below two others",
            Kind::ObjectShared,
            |s| s.set(key_object(0x50, 2, 3), bytes![[2], le(9), le(5), [1, 0]]),
        ),
        (
            "an object that lies below and that a ref has",
            Kind::ObjectShared,
            |s| s.set(RECORD5(), bytes![[2], le(3), le(40), [1, 0x80]]),
        ),
        (
            "an object that lies below one that is kept and one that is dropped",
            Kind::ObjectShared,
            |s| {
                dying_chain(s);
                s.set(key_object(0x50, 8, 0), bytes![[2], le(9), le(5), [1, 0]]);
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
    let legal: [Change; 14] = [
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
            dying_chain(s);
            s.objects.remove(&(8, 0));
            s.objects.remove(&(7, 0));
        }),
        ("what lay below a dying node's object is dead", |s| {
            dying_chain(s);
            s.set(key_object(0x70, 7, 0), le(1).to_vec());
        }),
        ("what lay below a trimmed object is gone", |s| {
            s.set(key_map(0x40, 3, 0), slots(&[(0, 1, ROW, 0)]));
            s.set(
                key_map(0x41, 3, 0),
                slots(&[(0, 2, OBJ, 0x20), (20, 1, OBJ | PARTIAL, 0x21)]),
            );
            s.set(
                key_object(0x50, 0x21, 20),
                bytes![[2], le(8), le(20), [1, 0]],
            );
        }),
        ("as many objects below one another as there may be", |s| {
            long_chain(s, 256)
        }),
        ("a ref waits for the collector", |s| {
            s.set(key_ref(0x60, 2), bytes![le(3), le(41), [0]]);
            s.set(key_ref(0x61, 2), le(0).to_vec());
            s.objects.insert((3, 41));
        }),
        ("an unfinished copy has counted a ref", |s| {
            s.set(key_ref(0x61, 1), le(3).to_vec())
        }),
        (
            "a head's generation of a run before an unclean stop is a ref's",
            |s| {
                set_node(s, 3, |n| n.run = 1);
                s.set(
                    key_ref(0x60, 1),
                    bytes![le(0x20), le(3), [1], SHA, 4096_u32.to_le_bytes()],
                );
                s.objects.insert((0x20, 3));
            },
        ),
        (
            "a head's generation of a run that has not ended is a ref's",
            |s| {
                s.set(vec![2], bytes![[0], le(3), le(2)]);
                s.set(
                    key_ref(0x60, 1),
                    bytes![le(0x20), le(3), [1], SHA, 4096_u32.to_le_bytes()],
                );
                s.objects.insert((0x20, 3));
            },
        ),
    ];
    for (name, change) in legal {
        let mut store = Store::healthy();
        change(&mut store);
        let report = run(&store, Options::default(), MEMORY_LIMIT);
        assert_eq!(kinds(&report), [], "{name}: {:#?}", report.findings);
    }
}

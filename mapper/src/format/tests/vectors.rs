//! Golden bytes of every key, row and page form: `tests/vectors/mapper/*.hex`. They change only with
//! the format's version; old ones stay readable.

use crate::format::*;
use crate::types::*;
use atoll_backends::{BlockRange, Generation, ObjectId, ObjectIndex, ObjectSize, PoolId};

/// `name: hex`, continued on indented lines; `#` starts a comment.
fn load(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut vectors: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        match line.split_once(':') {
            Some((name, hex)) => vectors.push((name.trim().to_owned(), hex.to_owned())),
            None => match vectors.last_mut() {
                Some((_, hex)) => hex.push_str(line),
                None => assert_eq!(line.trim(), "", "hex before a name"),
            },
        }
    }
    let bytes = |hex: String| {
        let digits: Vec<u8> = hex
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
            .collect();
        assert!(digits.len().is_multiple_of(2), "an odd number of digits");
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    };
    vectors
        .into_iter()
        .map(|(name, hex)| (name, bytes(hex)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Both have the same names in the same order, with the same bytes.
fn compare(text: &str, expected: &[(&str, Vec<u8>)]) {
    let golden = load(text);
    let show = |name: &str, bytes: &[u8]| format!("{name}: {}", hex(bytes));
    let golden: Vec<_> = golden.iter().map(|(n, b)| show(n, b)).collect();
    let ours: Vec<_> = expected.iter().map(|(n, b)| show(n, b)).collect();
    assert!(golden == ours, "golden:\n{golden:#?}\nours:\n{ours:#?}");
}

macro_rules! vectors {
    ($file:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/vectors/mapper/",
            $file,
            ".hex"
        ))
    };
}

const POOL: PoolNumber = PoolNumber::new(0x0102_0304).expect("not 0");
const NODE: NodeId = NodeId::new(0x0102_0304_0506_0708).expect("not 0");
const PARENT: NodeId = NodeId::new(0x1112_1314_1516_1718).expect("not 0");
const REF: RefId = RefId::new(0x000a_0b0c_0d0e_0f10).expect("52 bits");
const GENERATION: Generation = Generation::new(0x0001_0203_0405_0607).expect("52 bits");
const OBJECT: ObjectId = ObjectId::new(
    GENERATION,
    ObjectIndex::new(0x0000_00a1_a2a3_a4a5).expect("40 bits"),
);
const UUID: [u8; 16] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
];
const SHA: [u8; 32] = [0x5a; 32];

fn name() -> ResourceName {
    ResourceName::new("db.main-1_x").expect("follows the rule")
}

fn generation(value: u64) -> Generation {
    Generation::new(value).expect("52 bits")
}

#[test]
fn keys() {
    let page = PageNo::new(0x0a0b_0c0d).expect("31 bits");
    let group = GroupNo::new(0x0005_0607).expect("22 bits");
    let keys = [
        ("superblock", Key::superblock()),
        ("run_state", Key::run_state()),
        ("counter_node", Key::counter(CounterKind::Node)),
        ("counter_pool_number", Key::counter(CounterKind::PoolNumber)),
        ("counter_ref", Key::counter(CounterKind::Ref)),
        ("pool", Key::pool(POOL)),
        ("mark", Key::mark(POOL)),
        ("store_record", Key::store_record(POOL, b"slots/7")),
        ("resource", Key::resource(ResourceId(UUID))),
        ("name", Key::name(&name())),
        (
            "export_iscsi",
            Key::export(ResourceId(UUID), Protocol::Iscsi),
        ),
        (
            "export_nvme_tcp",
            Key::export(ResourceId(UUID), Protocol::NvmeTcp),
        ),
        ("node", Key::node(NODE)),
        ("child", Key::child(PARENT, NODE)),
        ("usage", Key::usage(NODE)),
        ("group", Key::group(NODE, group)),
        ("page", Key::page(NODE, page)),
        ("partial", Key::partial(POOL, OBJECT)),
        ("object", Key::object(POOL, REF)),
        ("count", Key::count(POOL, REF)),
        ("content", Key::content(POOL, &SHA)),
        ("dead", Key::dead(POOL, OBJECT)),
    ];
    let keys = keys.map(|(name, key)| (name, key.to_vec()));
    compare(vectors!("keys"), &keys);
    for table in Table::ALL {
        let covered = keys.iter().any(|(_, key)| key[0] == *table as u8);
        assert!(covered, "no golden key of {table:?}");
    }
}

fn pool_row() -> PoolRow {
    PoolRow {
        id: PoolId(UUID),
        kind: PoolKind::File,
        object_size: ObjectSize::DEFAULT,
        name: name(),
        options: "{\"path\":\"/p\"}".to_owned(),
    }
}

fn resource_row() -> ResourceRow {
    ResourceRow {
        kind: ResourceKind::Snapshot,
        read_only: true,
        protected: true,
        block: LogicalBlock::Bytes4096,
        pool: POOL,
        node: NODE,
        size: 0x0010_0000,
        created: 0x6500_0000,
        name: name(),
    }
}

fn root_node() -> NodeRow {
    NodeRow {
        pool: POOL,
        state: NodeState::Head,
        faulted: false,
        parent: None,
        inherit_end: 0,
        cut: generation(1),
        current: None,
        run: 0,
        trim: None,
        depth: 0,
    }
}

fn child_node() -> NodeRow {
    NodeRow {
        state: NodeState::Dying,
        parent: Some(PARENT),
        inherit_end: 0x40_0000,
        cut: GENERATION,
        current: Some(generation(0x77)),
        run: 0x0809,
        trim: Some(0x80_0000),
        depth: 0x0203,
        ..root_node()
    }
}

fn partial_row(below: Below, object_size: u32) -> PartialRow {
    let mut bitmap = Bitmap::new(ObjectSize::new(object_size).expect("a size"));
    bitmap.insert(BlockRange::new(0, 3));
    bitmap.insert(BlockRange::new(9, 1));
    PartialRow { below, bitmap }
}

/// Checks that the bytes decode, and gives them.
fn body<R: Row + PartialEq + std::fmt::Debug>(row: R) -> Vec<u8> {
    let body = row.encode();
    assert_eq!(R::decode(&body), Ok(row));
    body
}

#[test]
fn rows() {
    let plain = ResourceRow {
        kind: ResourceKind::Volume,
        read_only: false,
        protected: false,
        block: LogicalBlock::Bytes512,
        ..resource_row()
    };
    let content = ContentHash {
        sha256: SHA,
        length: 0x0001_0203,
    };
    let object = |content| ObjectRow {
        object: OBJECT,
        content,
    };
    let superblock = Superblock::new(InstanceId(UUID), 0x6500_0000);
    let rows = [
        ("superblock", body(superblock)),
        (
            "run_state",
            body(RunState {
                clean: true,
                starts: 0x0102,
                unclean: 0x03,
            }),
        ),
        ("counter", body(CounterRow { next: 0x0102_0304 })),
        ("pool", body(pool_row())),
        (
            "mark",
            body(MarkRow {
                reserved_below: GENERATION,
            }),
        ),
        ("resource_volume", body(plain)),
        ("resource_snapshot", body(resource_row())),
        (
            "name",
            body(NameRow {
                id: ResourceId(UUID),
            }),
        ),
        ("export", body(ExportRow { read_only: false })),
        ("export_read_only", body(ExportRow { read_only: true })),
        ("node_root", body(root_node())),
        ("node_child", body(child_node())),
        (
            "node_faulted",
            body(NodeRow {
                faulted: true,
                ..root_node()
            }),
        ),
        ("child", body(ChildRow)),
        (
            "partial_implicit",
            body(partial_row(Below::Implicit, 64 << 10)),
        ),
        ("partial_zeros", body(partial_row(Below::Zeros, 256 << 10))),
        (
            "partial_object",
            body(partial_row(Below::Object(OBJECT), 1 << 20)),
        ),
        ("partial_ref", body(partial_row(Below::Ref(REF), 64 << 10))),
        ("object", body(object(None))),
        ("object_hashed", body(object(Some(content)))),
        ("count", body(CountRow { count: -2 })),
        ("content", body(ContentRow { id: REF })),
        ("dead", body(DeadRow { count: 0x0304 })),
    ];
    compare(vectors!("rows"), &rows);
}

fn slots(set: &[(usize, usize, Entry)]) -> Slots {
    let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
    for (first, length, entry) in set {
        slots[*first..*first + *length].fill(*entry);
    }
    slots
}

#[test]
fn pages() {
    let object = |value| Entry::object(generation(value));
    let reference = Entry::reference(RefId::new(0x90).expect("not 0"));
    let mixed = slots(&[
        (0, 1, object(100)),
        (1, 1, object(103)),
        (2, 300, object(99).with_frozen(true)),
        (302, 1, object(99).with_partial(true)),
        (310, 2, Entry::HOLE),
        (400, 1, reference),
        (511, 1, reference.with_partial(true).with_frozen(true)),
    ]);
    let largest = Generation::MAX.get();
    let ends = slots(&[
        (0, 1, Entry::object(Generation::MAX)),
        (1, 1, object(1)),
        (2, 1, Entry::object(generation(largest - 1))),
    ]);
    let group = slots(&[(0, 2, Entry::ROW), (2, 510, object(5))]);
    let delta = [
        (0, Entry::ABSENT),
        (1, Entry::ABSENT),
        (200, object(70)),
        (201, object(70)),
        (202, Entry::HOLE),
        (511, object(68).with_partial(true)),
    ];
    let pages = [
        ("whole_absent", encode_whole(&slots(&[]))),
        (
            "whole_uniform",
            encode_whole(&slots(&[(0, 512, object(300))])),
        ),
        ("whole_mixed", encode_whole(&mixed)),
        ("whole_ends", encode_whole(&ends)),
        ("whole_group", encode_whole(&group)),
        ("delta_empty", encode_delta([].into_iter())),
        ("delta", encode_delta(delta.into_iter())),
    ];
    compare(vectors!("pages"), &pages);
    for (name, slots) in [
        ("whole_mixed", &mixed),
        ("whole_ends", &ends),
        ("whole_group", &group),
    ] {
        let (_, body) = pages.iter().find(|(n, _)| *n == name).expect("there");
        assert_eq!(&*decode_whole(body).expect(name), slots, "{name}");
    }
    assert_eq!(decode_delta(&pages[6].1).expect("a delta"), delta);
}

#[test]
fn sealed() {
    let node = Key::node(NODE);
    let page = Key::page(NODE, PageNo::ZERO);
    let child = Key::child(PARENT, NODE);
    let base = encode_whole(&slots(&[(0, 4, Entry::HOLE)]));
    let base = seal(&page, &base);
    let delta = encode_delta([(1, Entry::ABSENT), (4, Entry::HOLE)].into_iter());
    let delta = seal(&page, &delta);
    let merged = merge(&page, Some(&base), &mut std::iter::once(delta.as_slice()));
    let values = [
        ("node", seal(&node, &child_node().encode())),
        ("child", seal(&child, &[])),
        ("page_base", base),
        ("page_delta", delta),
        ("page_merged", merged.expect("both are sound")),
    ];
    compare(vectors!("sealed"), &values);
    let read: NodeRow = open_row(&node, &values[0].1).expect("sealed");
    assert_eq!(read, child_node());
}

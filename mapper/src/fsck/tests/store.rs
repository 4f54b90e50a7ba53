//! A small healthy store, written byte by byte after FORMAT.md, with a reader and a pool around it.

use crate::error::Result;
use crate::fsck::{FindingKind, Options, Report, Severity, check_within};
use crate::meta::{MetaReader, Pair};
use crate::types::PoolNumber;
use atoll_backends::chaos::Op;
use atoll_backends::{
    Chaos, ChaosHandle, ChaosOptions, Generation, MemoryOptions, MemoryPool, ObjectId, ObjectIndex,
    ObjectSize, Pool, WriteMode,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{LocalFuture, SharedBuf};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

pub const OBJECT: u64 = 64 << 10;
/// Entries of the volume of nodes 1 and 2.
pub const ENTRIES: u64 = 1124;
pub const MARK: u64 = 0x100;
pub const NO_TRIM: u64 = u64::MAX;
pub const HEAD: u8 = 1;
pub const FROZEN: u8 = 2;
pub const DYING: u8 = 3;
pub const SHA: [u8; 32] = [0x5a; 32];

/// Joins parts of a key or a body.
macro_rules! bytes {
    ($($part:expr),* $(,)?) => {{
        let mut out: Vec<u8> = Vec::new();
        $(out.extend_from_slice(&$part);)*
        out
    }};
}
pub(crate) use bytes;

pub fn le(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

pub fn be(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

pub fn uuid(last: u8) -> [u8; 16] {
    let mut uuid = [0xa0; 16];
    uuid[15] = last;
    uuid
}

pub fn key(table: u8) -> Vec<u8> {
    vec![table]
}

pub fn key32(table: u8, number: u32) -> Vec<u8> {
    bytes![[table], number.to_be_bytes()]
}

pub fn key_node(number: u64) -> Vec<u8> {
    bytes![[0x30], be(number)]
}

/// A group or a page.
pub fn key_map(table: u8, node: u64, number: u32) -> Vec<u8> {
    bytes![[table], be(node), number.to_be_bytes()]
}

pub fn key_object(table: u8, generation: u64, index: u64) -> Vec<u8> {
    bytes![key32(table, 1), be(generation), be(index)]
}

pub fn key_ref(table: u8, id: u64) -> Vec<u8> {
    bytes![key32(table, 1), be(id)]
}

pub fn key_usage(node: u64) -> Vec<u8> {
    bytes![[0x32], be(node)]
}

pub fn key_child(parent: u64, child: u64) -> Vec<u8> {
    bytes![[0x31], be(parent), be(child)]
}

pub fn key_resource(last: u8) -> Vec<u8> {
    bytes![[0x20], uuid(last)]
}

pub fn key_name(name: &str) -> Vec<u8> {
    bytes![[0x21], name.as_bytes()]
}

#[derive(Clone, Copy)]
pub struct Node {
    pub pool: u32,
    pub state: u8,
    pub flags: u8,
    pub parent: u64,
    pub inherit_end: u64,
    pub cut: u64,
    pub current: u64,
    pub run: u64,
    pub trim: u64,
    pub depth: u16,
}

impl Node {
    pub fn body(self) -> Vec<u8> {
        bytes![
            self.pool.to_le_bytes(),
            [self.state, self.flags],
            le(self.parent),
            le(self.inherit_end),
            le(self.cut),
            le(self.current),
            le(self.run),
            le(self.trim),
            self.depth.to_le_bytes(),
        ]
    }
}

/// Node `number` of the healthy store.
pub fn node(number: u64) -> Node {
    let plain = Node {
        pool: 1,
        state: HEAD,
        flags: 0,
        parent: 0,
        inherit_end: 0,
        cut: 1,
        current: 0,
        run: 0,
        trim: NO_TRIM,
        depth: 0,
    };
    match number {
        1 => Node {
            state: FROZEN,
            current: 2,
            run: 1,
            ..plain
        },
        2 => Node {
            parent: 1,
            inherit_end: ENTRIES * OBJECT,
            cut: 0x10,
            current: 0x12,
            run: 3,
            depth: 1,
            ..plain
        },
        3 => Node {
            cut: 0x20,
            current: 0x20,
            run: 2,
            trim: 1 << 20,
            ..plain
        },
        _ => Node {
            state: DYING,
            cut: 0x30,
            ..plain
        },
    }
}

pub fn resource(kind: u8, node: u64, size: u64, name: &str) -> Vec<u8> {
    bytes![
        [kind, 0, 12],
        1_u32.to_le_bytes(),
        le(node),
        le(size),
        le(7),
        [name.len() as u8],
        name.as_bytes()
    ]
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

pub const HOLE: u8 = 1;
pub const OBJ: u8 = 2;
pub const REF: u8 = 3;
pub const ROW: u8 = 4;
pub const PARTIAL: u8 = 8;
pub const FROZEN_FLAG: u8 = 16;

/// A whole body of runs (slot, length, head, payload).
pub fn slots(runs: &[(u64, u64, u8, u64)]) -> Vec<u8> {
    let (mut out, mut next, mut payload) = (vec![0], 0, 0_u64);
    for (slot, length, head, value) in runs {
        let skip = slot - next;
        out.push(head | u8::from(skip > 0) << 5 | u8::from(*length > 1) << 6);
        if skip > 0 {
            out.extend(varint(skip));
        }
        if *length > 1 {
            out.extend(varint(*length));
        }
        if matches!(head & 7, OBJ | REF) {
            let difference = value.wrapping_sub(payload).cast_signed();
            out.extend(varint(
                ((difference << 1) ^ (difference >> 63)).cast_unsigned(),
            ));
            payload = *value;
        }
        next = slot + length;
    }
    out
}

/// Rows as bodies, and what the pool has.
#[derive(Clone)]
pub struct Store {
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Values as they are, in place of sealed bodies.
    pub raw: BTreeMap<Vec<u8>, Vec<u8>>,
    pub objects: BTreeSet<(u64, u64)>,
    pub pool_mark: u64,
    pub pool_object: u32,
    pub pool_open: bool,
}

impl Store {
    pub fn set(&mut self, key: Vec<u8>, body: Vec<u8>) {
        self.rows.insert(key, body);
    }

    pub fn remove(&mut self, key: &[u8]) {
        assert!(
            self.rows.remove(key).is_some(),
            "the healthy store has {key:02x?}"
        );
    }

    /// What table 32 says of a node.
    pub fn usage(&mut self, node: u64, entries: u64) {
        self.set(key_usage(node), le(entries).to_vec());
    }

    pub fn sealed(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows: BTreeMap<_, _> = self
            .rows
            .iter()
            .map(|(key, body)| (key.clone(), seal(key, 1, body)))
            .collect();
        rows.extend(self.raw.clone());
        rows
    }

    pub fn healthy() -> Store {
        let mut store = Store {
            rows: BTreeMap::new(),
            raw: BTreeMap::new(),
            objects: BTreeSet::new(),
            pool_mark: MARK,
            pool_object: OBJECT as u32,
            pool_open: true,
        };
        catalogue(&mut store);
        maps(&mut store);
        objects(&mut store);
        store
    }
}

/// With the checksum of another implementation than the one under test.
pub fn seal(key: &[u8], layout: u8, body: &[u8]) -> Vec<u8> {
    let sealed = bytes![[layout], body];
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes![key, sealed]);
    bytes![sealed, (sum as u32).to_le_bytes()]
}

fn catalogue(store: &mut Store) {
    store.set(
        key(1),
        bytes![*b"ATOLLMET", 1_u32.to_le_bytes(), uuid(0), le(7)],
    );
    store.set(key(2), bytes![[1], le(3), le(2)]);
    for (kind, next) in [(1, 5), (2, 2), (3, 3)] {
        store.set(vec![3, kind], le(next).to_vec());
    }
    store.set(
        key32(0x10, 1),
        bytes![uuid(9), [1, 16, 1], *b"p", [2, 0], *b"{}"],
    );
    store.set(key32(0x11, 1), le(MARK).to_vec());
    store.set(bytes![key32(0x12, 1), *b"r"], b"x".to_vec());
    for (last, kind, node, size, name) in [
        (1, 2, 1, ENTRIES * OBJECT, "snap"),
        (2, 1, 2, ENTRIES * OBJECT, "vol"),
        (3, 1, 3, 1 << 20, "small"),
    ] {
        store.set(key_resource(last), resource(kind, node, size, name));
        store.set(key_name(name), uuid(last).to_vec());
    }
    store.set(bytes![[0x22], uuid(2), [1]], vec![1]);
    for number in 1..=4 {
        store.set(key_node(number), node(number).body());
    }
    store.set(key_child(1, 2), Vec::new());
    for (node, entries) in [(1, 515), (2, 4), (3, 3), (4, 512)] {
        store.usage(node, entries);
    }
}

fn maps(store: &mut Store) {
    // Node 1: two objects and a partial one in page 0, page 1 uniform.
    store.set(
        key_map(0x40, 1, 0),
        slots(&[(0, 1, ROW, 0), (1, 1, OBJ, 1)]),
    );
    store.set(
        key_map(0x41, 1, 0),
        slots(&[(0, 2, OBJ, 1), (3, 1, OBJ | PARTIAL, 2)]),
    );
    store.set(key_object(0x50, 2, 3), vec![1, 0x0f, 0x00]);
    // Node 2: an object of its own, a partial one over another object, two entries of ref 1, a hole.
    store.set(key_map(0x40, 2, 0), slots(&[(0, 1, ROW, 0)]));
    store.set(
        key_map(0x41, 2, 0),
        slots(&[
            (0, 1, OBJ, 0x10),
            (5, 1, OBJ | PARTIAL, 0x10),
            (6, 2, REF | FROZEN_FLAG, 1),
            (8, 1, HOLE, 0),
        ]),
    );
    store.set(
        key_object(0x50, 0x10, 5),
        bytes![[2], le(9), le(5), [0x01, 0x80]],
    );
    store.set(
        key_ref(0x60, 1),
        bytes![le(3), le(40), [1], SHA, 4096_u32.to_le_bytes()],
    );
    store.set(key_ref(0x61, 1), le(2).to_vec());
    store.set(bytes![key32(0x62, 1), SHA], le(1).to_vec());
    // Node 3: as deltas; entry 20 is beyond the end and being trimmed.
    store.set(key_map(0x40, 3, 0), vec![1, ROW]);
    store.set(
        key_map(0x41, 3, 0),
        vec![1, OBJ | 0x40, 2, 0x40, OBJ | 0x20, 18, 2, 0x20, 1],
    );
    // Node 4, dying: its first page is gone already, of the second an object is left.
    store.set(
        key_map(0x40, 4, 0),
        slots(&[(0, 1, ROW, 0), (1, 1, OBJ, 0x30)]),
    );
    store.set(key_object(0x70, 0x40, 0), le(3).to_vec());
}

fn objects(store: &mut Store) {
    store
        .objects
        .extend((0..2).chain(512..1024).map(|index| (1, index)));
    store.objects.extend([
        (2, 3),
        (0x10, 0),
        (0x10, 5),
        (9, 5),
        (3, 40),
        (0x20, 0),
        (0x20, 1),
        (0x21, 20),
    ]);
    // Dying, dead, leaked.
    store.objects.extend([(0x30, 600), (0x40, 1), (0x50, 7)]);
}

pub struct Reader(pub Rc<BTreeMap<Vec<u8>, Vec<u8>>>);

impl MetaReader for Reader {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        LocalFuture::ready(Ok(self.0.get(key).cloned()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        let rest = self
            .0
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let range = rest.take_while(|(key, _)| key.as_slice() < to).take(limit);
        LocalFuture::ready(Ok(range
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}

pub fn object_id(generation: u64, index: u64) -> ObjectId {
    ObjectId::new(
        Generation::new(generation).unwrap(),
        ObjectIndex::new(index).unwrap(),
    )
}

/// Checks the store with this much memory.
pub fn run(store: &Store, options: Options, limit: u64) -> Report {
    run_with(store, options, limit, |_| ()).0.unwrap()
}

/// The same over a pool with faults; how many reads the pool saw.
pub fn run_with(
    store: &Store,
    options: Options,
    limit: u64,
    faults: impl FnOnce(&ChaosHandle) + 'static,
) -> (Result<Report>, u64) {
    let (rows, store) = (Rc::new(store.sealed()), store.clone());
    Sim::new(1, 1).block_on(async move {
        let pool = MemoryPool::new(MemoryOptions {
            object_size: ObjectSize::new(store.pool_object).unwrap(),
            ..MemoryOptions::default()
        });
        let objects = pool.attach().await.unwrap();
        objects
            .reserve_generations(Generation::new(store.pool_mark).unwrap())
            .await
            .unwrap();
        for (generation, index) in store.objects {
            let id = object_id(generation, index);
            objects
                .write(id, 0, SharedBuf::zeros(4096), WriteMode::Create)
                .await
                .unwrap();
        }
        let (chaos, handle) = Chaos::new(Arc::new(pool), ChaosOptions::default());
        faults(&handle);
        let mut pools = vec![(PoolNumber::new(1).unwrap(), chaos.attach().await.unwrap())];
        pools.truncate(usize::from(store.pool_open));
        let report = check_within(&Reader(rows), &pools, options, &mut |_| (), limit).await;
        (report, handle.calls(Op::Read))
    })
}

/// Kinds of what is not merely information.
pub fn kinds(report: &Report) -> Vec<FindingKind> {
    let kinds = report.counts.keys().copied();
    kinds
        .filter(|kind| kind.severity() != Severity::Info)
        .collect()
}

//! Writes metadata as the mapper leaves it, without a mapper: rows by its own encoders, in order, in batches of the
//! production store. What they say is synthetic; a mapper that opens it finds nothing wrong.

use atoll_backends::{Generation, ObjectSize, PoolId};
use atoll_mapper::Result;
use atoll_mapper::format::{
    ChildRow, CountRow, CounterKind, CounterRow, Entry, Key, LogicalBlock, MarkRow, NameRow,
    NodeRow, NodeState, PoolKind, PoolRow, ResourceKind, ResourceRow, Row, RunState, Slots,
    Superblock, encode_delta, encode_whole, uniform,
};
use atoll_mapper::meta::{Batch, Durability, MetaStore};
use atoll_mapper::types::{
    GroupNo, InstanceId, NodeId, PageNo, PoolNumber, ResourceId, ResourceName,
};
use atoll_reactor::LocalFuture;
use std::collections::VecDeque;

pub const POOL: PoolNumber = PoolNumber::FIRST;
pub const OBJECT_BYTES: u64 = ObjectSize::DEFAULT.bytes() as u64;
/// Bytes that a memory pool of a measurement holds.
pub const POOL_CAPACITY: u64 = 3 << 30;
/// Bytes of the batches.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are not answered yet.
const BATCHES: usize = 8;

/// Commits in the order of the calls, some batches ahead of the store.
pub struct Rows<'a> {
    meta: &'a dyn MetaStore,
    batch: Batch,
    bytes: usize,
    waiting: VecDeque<LocalFuture<'static, Result<()>>>,
}

impl<'a> Rows<'a> {
    pub fn new(meta: &'a dyn MetaStore) -> Rows<'a> {
        Rows {
            meta,
            batch: Batch::new(),
            bytes: 0,
            waiting: VecDeque::new(),
        }
    }

    pub async fn put(&mut self, key: Key, body: &[u8]) {
        self.bytes += key.len() + body.len();
        self.batch.put(key, body);
        if self.bytes >= BATCH_BYTES {
            self.send().await;
        }
    }

    pub async fn row(&mut self, key: Key, row: &impl Row) {
        self.put(key, &row.encode()).await;
    }

    /// A batch that stays one.
    pub async fn commit(&mut self, batch: Batch) {
        self.send().await;
        self.batch = batch;
        self.send().await;
    }

    async fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let committed = self.meta.commit(batch, Durability::Unsynced);
        self.waiting.push_back(committed);
        while self.waiting.len() > BATCHES {
            self.answered().await;
        }
    }

    async fn answered(&mut self) {
        if let Some(committed) = self.waiting.pop_front() {
            committed.await.expect("the store takes the batch");
        }
    }

    pub async fn end(mut self) {
        self.send().await;
        while !self.waiting.is_empty() {
            self.answered().await;
        }
    }
}

/// What is to be found of a store that was stopped cleanly, with one pool.
#[derive(Clone, Copy)]
pub struct StoreRows {
    pub pool: PoolKind,
    pub next_node: u64,
    /// Every generation is below.
    pub mark: u64,
}

impl StoreRows {
    pub async fn write(&self, rows: &mut Rows<'_>) {
        let superblock = Superblock::new(InstanceId([7; 16]), 0);
        let state = RunState {
            clean: true,
            starts: 1,
            unclean: 0,
        };
        let pool = PoolRow {
            id: PoolId([1; 16]),
            kind: self.pool,
            object_size: ObjectSize::DEFAULT,
            name: pool_name(),
            options: r#"{"created":0}"#.to_owned(),
        };
        let next = self.next_node;
        let reserved_below = generation(self.mark);
        rows.row(Key::superblock(), &superblock).await;
        rows.row(Key::run_state(), &state).await;
        let counter = Key::counter(CounterKind::Node);
        rows.row(counter, &CounterRow { next }).await;
        let counter = Key::counter(CounterKind::PoolNumber);
        rows.row(counter, &CounterRow { next: 2 }).await;
        rows.row(Key::pool(POOL), &pool).await;
        rows.row(Key::mark(POOL), &MarkRow { reserved_below }).await;
    }
}

pub fn pool_name() -> ResourceName {
    name("pool")
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a legal name")
}

pub fn generation(number: u64) -> Generation {
    Generation::new(number).expect("below 2^52")
}

/// A resource and its node, without the node's map.
pub struct ResourceRows {
    pub kind: ResourceKind,
    pub name: ResourceName,
    pub node: u64,
    pub parent: Option<u64>,
    pub depth: u16,
    pub size: u64,
    pub cut: u64,
    /// Entries of its map that name an object.
    pub objects: u64,
}

impl ResourceRows {
    /// A volume of its own.
    pub fn volume(name: ResourceName, node: u64, size: u64) -> ResourceRows {
        ResourceRows {
            kind: ResourceKind::Volume,
            name,
            node,
            parent: None,
            depth: 0,
            size,
            cut: 1,
            objects: size / OBJECT_BYTES,
        }
    }

    pub async fn write(&self, rows: &mut Rows<'_>) {
        let (node, id) = (node(self.node), resource(self.node));
        let volume = self.kind == ResourceKind::Volume;
        let resource = ResourceRow {
            kind: self.kind,
            read_only: !volume,
            protected: false,
            block: LogicalBlock::Bytes512,
            pool: POOL,
            node,
            size: self.size,
            created: 0,
            name: self.name.clone(),
        };
        let node_row = NodeRow {
            pool: POOL,
            state: match volume {
                true => NodeState::Head,
                false => NodeState::Frozen,
            },
            faulted: false,
            parent: self.parent.and_then(NodeId::new),
            inherit_end: self.parent.map_or(0, |_| self.size),
            cut: generation(self.cut),
            current: None,
            run: 1,
            trim: None,
            depth: self.depth,
        };
        let count = self.objects.cast_signed();
        rows.row(Key::resource(id), &resource).await;
        rows.row(Key::name(&self.name), &NameRow { id }).await;
        rows.row(Key::node(node), &node_row).await;
        rows.row(Key::usage(node), &CountRow { count }).await;
        if let Some(parent) = node_row.parent {
            rows.row(Key::child(parent, node), &ChildRow).await;
        }
    }
}

pub fn node(number: u64) -> NodeId {
    NodeId::new(number).expect("numbered from 1")
}

/// Of the resource whose node has this number.
pub fn resource(number: u64) -> ResourceId {
    ResourceId(u128::from(number).to_be_bytes())
}

/// Writes the map of a node of so many objects, group by group. `entry` gives each entry, in order.
pub async fn write_map(
    rows: &mut Rows<'_>,
    node: NodeId,
    objects: u64,
    mut entry: impl FnMut(u64) -> Entry,
) {
    const GROUP: u64 = 512 * 512;
    for number in 0..objects.div_ceil(GROUP) {
        let group = GroupNo::new(number as u32).expect("22 bits");
        let mut entries = [Entry::ABSENT; 512];
        for (place, in_group) in entries.iter_mut().enumerate() {
            let page_no = group.page(place);
            let first = u64::from(page_no.get()) * 512;
            if first >= objects {
                break;
            }
            let slots: Slots = std::array::from_fn(|slot| match first + slot as u64 {
                index if index < objects => entry(index),
                _ => Entry::ABSENT,
            });
            *in_group = match uniform(&slots) {
                Some(entry) => entry,
                None => {
                    let key = Key::page(node, page_no);
                    rows.put(key, &encode_whole(&slots)).await;
                    Entry::ROW
                }
            };
        }
        if entries.iter().any(|entry| !entry.is_absent()) {
            let key = Key::group(node, group);
            rows.put(key, &encode_whole(&entries)).await;
        }
    }
}

/// How the metadata store has a page: as `volume::table` keeps it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Persisted {
    Row,
    Uniform(Entry),
}

impl Persisted {
    fn of(slots: &Slots) -> Persisted {
        uniform(slots).map_or(Persisted::Row, Persisted::Uniform)
    }
}

/// What one flush changes of a node's map, in the way in which the mapper's page table writes it: deltas to rows that
/// are there, whole pages where there was none, and no row for a page that has become uniform.
pub struct Flush {
    node: NodeId,
    batch: Batch,
    group: Option<GroupNo>,
    changes: Vec<(u16, Entry)>,
}

impl Flush {
    pub fn new(node: NodeId) -> Flush {
        Flush {
            node,
            batch: Batch::new(),
            group: None,
            changes: Vec::new(),
        }
    }

    /// Pages in ascending order: as it was and as it is now, and which slots have changed.
    pub fn page(
        &mut self,
        page_no: PageNo,
        before: Persisted,
        slots: &Slots,
        changed: impl Iterator<Item = u16>,
    ) -> Persisted {
        let key = Key::page(self.node, page_no);
        let next = Persisted::of(slots);
        match (before, next) {
            (Persisted::Row, Persisted::Row) => {
                let changes = changed.map(|slot| (slot, slots[usize::from(slot)]));
                self.batch.merge(key, encode_delta(changes));
            }
            (Persisted::Uniform(_), Persisted::Row) => self.batch.put(key, encode_whole(slots)),
            (Persisted::Row, Persisted::Uniform(_)) => self.batch.delete(key),
            (Persisted::Uniform(_), Persisted::Uniform(_)) => {}
        }
        if before != next {
            let group = page_no.group();
            if self.group != Some(group) {
                self.end_group();
                self.group = Some(group);
            }
            let slot = u16::try_from(page_no.group_slot()).expect("below 512");
            let entry = match next {
                Persisted::Row => Entry::ROW,
                Persisted::Uniform(entry) => entry,
            };
            self.changes.push((slot, entry));
        }
        next
    }

    fn end_group(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        if let Some(group) = self.group.take() {
            let key = Key::group(self.node, group);
            self.batch.merge(key, encode_delta(changes.into_iter()));
        }
    }

    pub fn end(mut self) -> Batch {
        self.end_group();
        self.batch
    }
}

/// Random numbers (splitmix64), the same for each seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

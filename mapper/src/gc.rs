//! Giving space back: objects that left a map, and whole nodes that no resource has any more.
//!
//! **Invariant:** an object is deleted after the batch that dropped it is durable and the operations
//! that began before have ended (M8). A crash repeats deletions, which is harmless.

use crate::core_state::CoreState;
use crate::error::Result;
use crate::format::{
    DeadRow, Entry, EntryKind, Key, KeyRange, ParsedKey, decode_page, decode_whole, encode_delta,
    open_row, unseal,
};
use crate::meta::{Batch, Cursor, Durability, MetaStore};
use crate::pool::PoolContext;
use crate::types::{NodeId, PageNo, PoolNumber};
use crate::volume::Users;
use atoll_backends::{ObjectId, ObjectIndex, Record};
use atoll_reactor::{LocalFuture, sleep, spawn_detached};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Deletions under way at a time per pool and core.
const PARALLEL_DELETES: usize = 8;
/// Rows read at a time.
const SCAN_ROWS: usize = 64;
/// Pause after a failed deletion.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Objects (generation, index .. index + count) that are to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeadRun {
    pub(crate) first: ObjectId,
    pub(crate) count: u64,
}

impl DeadRun {
    fn object(&self, number: u64) -> Option<ObjectId> {
        let index = ObjectIndex::new(self.first.index.get().checked_add(number)?)?;
        Some(ObjectId::new(self.first.generation, index))
    }
}

/// Sorted objects as runs.
pub(crate) fn runs(sorted: &[ObjectId]) -> Vec<DeadRun> {
    let mut runs: Vec<DeadRun> = Vec::new();
    for id in sorted {
        match runs.last_mut() {
            Some(run) if run.object(run.count) == Some(*id) => run.count += 1,
            _ => runs.push(DeadRun {
                first: *id,
                count: 1,
            }),
        }
    }
    runs
}

struct DeadBatch {
    runs: Vec<DeadRun>,
    /// Operations of this volume may still use them.
    users: Option<Users>,
}

/// What this core has to delete in one pool. The runs are in the metadata store too.
#[derive(Default)]
pub(crate) struct DeadQueue {
    waiting: RefCell<VecDeque<DeadBatch>>,
    running: Cell<bool>,
    objects: Cell<u64>,
}

impl DeadQueue {
    /// Objects not deleted yet.
    pub(crate) fn len(&self) -> u64 {
        self.objects.get()
    }

    fn push(&self, batch: DeadBatch) {
        let count: u64 = batch.runs.iter().map(|run| run.count).sum();
        self.objects.set(self.objects.get() + count);
        self.waiting.borrow_mut().push_back(batch);
    }
}

impl PoolContext {
    /// Deletes these, whose rows are durable, when the operations of `users` that run now have ended.
    pub(crate) fn delete_later(
        self: &Rc<Self>,
        meta: &Arc<dyn MetaStore>,
        runs: Vec<DeadRun>,
        users: Option<Users>,
    ) {
        self.dead.push(DeadBatch { runs, users });
        if !self.dead.running.replace(true) {
            let (pool, meta) = (self.clone(), meta.clone());
            spawn_detached(async move {
                while let Some(batch) = { pool.dead.waiting.borrow_mut().pop_front() } {
                    pool.delete_batch(&*meta, batch).await;
                }
                pool.dead.running.set(false);
            });
        }
    }

    async fn delete_batch(&self, meta: &dyn MetaStore, batch: DeadBatch) {
        if let Some(users) = &batch.users {
            while let Err(error) = users.quiesce().await {
                tracing::warn!(pool = %self.number, %error, "objects wait for a core before they are deleted");
                sleep(RETRY_PAUSE).await;
            }
        }
        for run in batch.runs {
            while let Err(error) = self.delete_run(meta, run).await {
                tracing::warn!(pool = %self.number, first = %run.first, %error, "deleting objects failed; trying again");
                sleep(RETRY_PAUSE).await;
            }
            self.dead.objects.set(self.dead.objects.get() - run.count);
        }
    }

    async fn delete_run(&self, meta: &dyn MetaStore, run: DeadRun) -> Result<()> {
        let objects = (0..run.count).filter_map(|number| run.object(number));
        let records = self.delete_objects(objects).await?;
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch.delete(Key::dead(self.number, run.first));
        self.commit_deletions(meta, batch, &records).await
    }

    async fn commit_deletions(
        &self,
        meta: &dyn MetaStore,
        mut batch: Batch,
        records: &[Record],
    ) -> Result<()> {
        put_records(self.number, records, &mut batch);
        // Without records a lost batch only repeats the deletions.
        let durability = match records.is_empty() {
            true => Durability::Unsynced,
            false => Durability::Synced,
        };
        meta.commit(batch, durability).await?;
        self.store.records_committed(records);
        Ok(())
    }

    /// Deletes all of them at the store.
    async fn delete_objects(&self, objects: impl Iterator<Item = ObjectId>) -> Result<Vec<Record>> {
        let mut objects = objects.peekable();
        let mut records = Vec::new();
        while objects.peek().is_some() {
            let some: Vec<_> = objects
                .by_ref()
                .take(PARALLEL_DELETES)
                .map(|id| LocalFuture::new(self.store.delete(id)))
                .collect();
            for outcome in crate::local::join_all(some).await {
                records.extend(outcome?);
            }
        }
        Ok(records)
    }
}

/// Writes a store's records into a batch.
pub(crate) fn put_records(pool: PoolNumber, records: &[Record], batch: &mut Batch) {
    for record in records {
        let key = Key::store_record(pool, &record.key);
        match record.value.is_empty() {
            true => batch.delete(key),
            false => batch.put(key, &record.value),
        }
    }
}

/// Writes the rows of runs into a batch.
pub(crate) fn put_dead(pool: PoolNumber, runs: &[DeadRun], batch: &mut Batch) {
    for run in runs {
        batch.put_row(Key::dead(pool, run.first), &DeadRow { count: run.count });
    }
}

/// Takes up the deletions that an earlier start of the daemon left in a pool.
pub(crate) async fn resume_deletions(state: &CoreState, pool: &Rc<PoolContext>) -> Result<()> {
    let mut rows = Cursor::new(KeyRange::dead_of(pool.number));
    loop {
        let pairs = rows.next(&*state.meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            return Ok(());
        }
        let mut runs = Vec::new();
        for (key, value) in pairs {
            let row: DeadRow = open_row(&key, &value)?;
            if let Some(ParsedKey::Dead(_, first)) = Key::parse(&key) {
                runs.push(DeadRun {
                    first,
                    count: row.count,
                });
            }
        }
        pool.delete_later(&state.meta, runs, None);
    }
}

/// Deletes a dying node: its objects at the store, then its rows, page by page, then the node.
/// Tried again after a pause when it fails.
pub(crate) async fn reap_node(meta: Arc<dyn MetaStore>, pool: Rc<PoolContext>, node: NodeId) {
    let reaper = Reaper { meta, pool, node };
    while let Err(error) = reaper.run().await {
        tracing::warn!(node = %node, %error, "deleting a volume's objects failed; trying again");
        sleep(RETRY_PAUSE).await;
    }
}

struct Reaper {
    meta: Arc<dyn MetaStore>,
    pool: Rc<PoolContext>,
    node: NodeId,
}

impl Reaper {
    async fn run(&self) -> Result<()> {
        let mut rows = Cursor::new(KeyRange::groups_of(self.node));
        loop {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                break;
            }
            for (key, value) in pairs {
                let slots = decode_whole(unseal(&key, &value)?)?;
                if let Some(ParsedKey::Group(_, group)) = Key::parse(&key) {
                    for (place, entry) in slots.iter().enumerate() {
                        if *entry != Entry::ABSENT {
                            self.reap_page(group.page(place), *entry).await?;
                        }
                    }
                }
                let mut batch = self.batch();
                batch.delete(Key::from_bytes(&key));
                self.meta.commit(batch, Durability::Unsynced).await?;
            }
        }
        let mut batch = self.batch();
        batch.delete(Key::node(self.node));
        self.meta.commit(batch, Durability::Synced).await
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch
    }

    async fn reap_page(&self, page: PageNo, entry: Entry) -> Result<()> {
        let key = Key::page(self.node, page);
        let slots = match entry.kind() {
            EntryKind::Row => match self.meta.get(&key).await? {
                Some(value) => decode_page(unseal(&key, &value)?)?,
                // Deleted before a crash, its group's slot not yet.
                None => return Ok(()),
            },
            _ => Box::new([entry; crate::types::ENTRIES_PER_PAGE]),
        };
        let mut objects = Vec::new();
        let mut batch = self.batch();
        for (slot, entry) in slots.iter().enumerate() {
            if let EntryKind::Object(generation) = entry.kind() {
                let id = ObjectId::new(generation, page.index(slot));
                objects.push(id);
                if entry.is_partial() {
                    batch.delete(Key::partial(self.pool.number, id));
                }
            }
        }
        let records = self.pool.delete_objects(objects.into_iter()).await?;
        batch.delete(key);
        let place = u16::try_from(page.group_slot()).expect("below 512");
        let gone = encode_delta(std::iter::once((place, Entry::ABSENT)));
        batch.merge(Key::group(self.node, page.group()), gone);
        self.pool
            .commit_deletions(&*self.meta, batch, &records)
            .await
    }
}

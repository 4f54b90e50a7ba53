//! Giving space back: objects that left a map. What the collector does with whole nodes is in its parts.
//!
//! **Invariant:** an object is deleted after the batch that dropped it is durable and the operations
//! that began before have ended (M8). A crash repeats deletions, which is harmless.

pub(crate) mod leaks;
pub(crate) mod reap;

use crate::core_state::{CoreState, core_state};
use crate::error::Result;
use crate::format::{DeadRow, Key, KeyRange, ParsedKey, open_row};
use crate::handle::ask;
use crate::local::join_all;
use crate::meta::{Batch, Cursor, Durability, MetaStore};
use crate::pool::PoolContext;
use crate::types::PoolNumber;
use crate::volume::Users;
use atoll_backends::{ObjectId, ObjectIndex, Record};
use atoll_reactor::{LocalFuture, cores, sleep, spawn_detached};
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

/// Whose operations may still use objects that are to be deleted.
pub(crate) enum UsedBy {
    Nobody,
    /// Those of one volume.
    Volume(Users),
    /// Those of any volume on any core.
    Anybody,
}

struct DeadBatch {
    runs: Vec<DeadRun>,
    users: UsedBy,
}

/// What this core has to delete in one pool. The runs are in the metadata store too.
#[derive(Default)]
pub(crate) struct DeadQueue {
    waiting: RefCell<VecDeque<DeadBatch>>,
    running: Cell<bool>,
    objects: Cell<u64>,
    deleted: Cell<u64>,
}

impl DeadQueue {
    /// Objects deleted since the start, by whatever this core did.
    pub(crate) fn deleted(&self) -> u64 {
        self.deleted.get()
    }

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

impl UsedBy {
    async fn quiesce(&self) -> Result<()> {
        match self {
            UsedBy::Nobody => Ok(()),
            UsedBy::Volume(users) => users.quiesce().await,
            UsedBy::Anybody => quiesce_all().await,
        }
    }
}

/// Waits until all operations that run now have ended, on every volume and every core.
pub(crate) async fn quiesce_all() -> Result<()> {
    for core in cores() {
        ask(&core, || async {
            core_state()?.quiesce().await;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

impl PoolContext {
    /// Deletes these, whose rows are durable, when the operations of `users` that run now have ended.
    pub(crate) fn delete_later(
        self: &Rc<Self>,
        meta: &Arc<dyn MetaStore>,
        runs: Vec<DeadRun>,
        users: UsedBy,
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
        while let Err(error) = batch.users.quiesce().await {
            tracing::warn!(pool = %self.number, %error, "objects wait for a core before they are deleted");
            sleep(RETRY_PAUSE).await;
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

    pub(super) async fn commit_deletions(
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
    pub(super) async fn delete_objects(
        &self,
        objects: impl Iterator<Item = ObjectId>,
    ) -> Result<Vec<Record>> {
        let mut objects = objects.peekable();
        let mut records = Vec::new();
        while objects.peek().is_some() {
            let some: Vec<_> = objects
                .by_ref()
                .take(PARALLEL_DELETES)
                .map(|id| LocalFuture::new(self.store.delete(id)))
                .collect();
            let count = u32::try_from(some.len()).expect("a few");
            core_state()?.background.pace(count).await;
            for outcome in join_all(some).await {
                records.extend(outcome?);
                self.dead.deleted.set(self.dead.deleted.get() + 1);
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
        pool.delete_later(&state.meta, runs, UsedBy::Nobody);
    }
}

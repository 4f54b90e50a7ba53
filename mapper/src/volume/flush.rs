//! Making a volume durable: sync the objects that were written, then commit the map as it was when
//! the flush began. One flush of a volume runs at a time; those who ask meanwhile share the next.
//!
//! **Invariant:** data is durable before the map that names it is (M2); a failure is sticky (M4).

use super::node::Node;
use super::partials::PartialCopy;
use super::pieces::pieces;
use super::table::TableCopy;
use super::{Lease, MAX_UNSYNCED, Volume};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{CountRow, EntryKind, Key};
use crate::gc::{UsedBy, put_dead, put_records, runs};
use crate::local::WaitQueue;
use crate::meta::{Batch, Durability};
use crate::types::{PoolNumber, RefId};
use atoll_backends::{ObjectId, ObjectIndex, Record};
use atoll_reactor::{sleep, spawn_detached};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Longest time that an acknowledged write stays undurable on a volume whose initiator never
/// flushes, and that unmapped space stays allocated.
const WRITE_BACK_INTERVAL: Duration = Duration::from_secs(5);
/// Changed pages of one volume above which a commit is made without being asked for.
const MAX_DIRTY_PAGES: usize = 4096;
/// The same of partial records.
const MAX_DIRTY_RECORDS: usize = 4096;

#[derive(Default)]
pub(super) struct FlushState {
    /// Flushes begun, numbered from 1, and the last that ended well.
    begun: Cell<u64>,
    succeeded: Cell<u64>,
    running: Cell<bool>,
    /// A write-back is due.
    armed: Cell<bool>,
    waiting: WaitQueue,
    /// Records of syncs whose batch was refused: they go with the next one.
    records: RefCell<Vec<Record>>,
    /// Commits under way that carry records.
    recording: Cell<usize>,
}

/// What a commit has taken of a node.
pub(super) struct NodeCopy {
    node: Rc<Node>,
    table: TableCopy,
    partials: PartialCopy,
}

impl NodeCopy {
    /// Takes the changes made so far and writes them into a batch.
    pub(super) fn take(node: Rc<Node>, batch: &mut Batch) -> NodeCopy {
        node.committing.set(true);
        let table = node.table.take_dirty();
        let partials = node.partials.take_dirty();
        node.table.encode(&table, batch);
        node.partials.encode(&partials, batch);
        NodeCopy {
            node,
            table,
            partials,
        }
    }

    pub(super) fn committed(self) -> Rc<Node> {
        self.node.committing.set(false);
        self.node.table.committed(self.table);
        self.node.partials.committed(self.partials);
        self.node
    }

    pub(super) fn not_committed(self) -> Rc<Node> {
        self.node.committing.set(false);
        self.node.table.not_committed(self.table);
        self.node.partials.not_committed(self.partials);
        self.node
    }
}

/// By how much the counts of refs change.
pub(super) fn put_counts(pool: PoolNumber, counts: &HashMap<RefId, i64>, batch: &mut Batch) {
    for (reference, count) in counts.iter().filter(|(_, count)| **count != 0) {
        batch.merge_row(Key::count(pool, *reference), &CountRow { count: *count });
    }
}

impl Volume {
    /// Everything acknowledged before is durable when it returns.
    pub(crate) async fn flush(self: &Rc<Self>) -> Result<()> {
        let volume = self.clone();
        let lease = Lease::limited(self.io_timeout);
        self.limited("flush", lease, async move { volume.flush_inside().await })
            .await
    }

    /// [`Volume::flush`] inside of an operation that runs to its end.
    pub(super) async fn flush_inside(&self) -> Result<()> {
        if self.read_only {
            // Its node is changed by merges only, which commit what they do with the other node's half.
            return self.check_fault();
        }
        let state = &self.flush;
        // One that begins from now on carries all that was acknowledged before.
        let wanted = state.begun.get() + 1;
        loop {
            if state.succeeded.get() >= wanted {
                return self.check_fault();
            }
            if !state.running.replace(true) {
                let number = state.begun.get() + 1;
                state.begun.set(number);
                let outcome = self.flush_once().await;
                state.running.set(false);
                state.waiting.notify();
                match &outcome {
                    Ok(()) => state.succeeded.set(number),
                    Err(error) if was_refused(error) => {}
                    Err(error) => self.set_fault(error),
                }
                // Who waited for this one flushes again, and meets the fault if there is one.
                if outcome.is_err() {
                    self.fault_noted().await;
                }
                outcome?;
            } else {
                let free =
                    || (state.succeeded.get() >= wanted || !state.running.get()).then_some(());
                state.waiting.until(free).await;
            }
        }
    }

    async fn flush_once(&self) -> Result<()> {
        self.check_fault()?;
        let (written, all) = self.peers.take_written().await;
        self.unsynced.borrow_mut().extend(written);
        all?;
        // Rows that go now must not be laid over the mark of a fault that came meanwhile.
        self.check_fault()?;
        // One turn: what is copied is exactly what is committed.
        let mut batch = self.switching.take();
        let refs = self.switching.refs.take();
        batch.extend(refs.clone());
        let also = self.switching.also.take();
        let copies: Vec<NodeCopy> = also
            .into_iter()
            .chain([self.head()])
            .map(|node| NodeCopy::take(node, &mut batch))
            .collect();
        let mut dead = self.dead.take();
        let counts = self.counts.take();
        let mut objects: Vec<ObjectId> = self.unsynced.borrow_mut().drain().collect();
        put_counts(self.pool.number, &counts, &mut batch);
        dead.sort_unstable();
        let dead_runs = runs(&dead);
        put_dead(self.pool.number, &dead_runs, &mut batch);

        objects.sort_unstable();
        let synced = self.sync_store(&objects).await?;
        let mut records = self.flush.records.take();
        records.extend(synced);
        put_records(self.pool.number, &records, &mut batch);
        batch.set_frees(!dead.is_empty());
        if !batch.is_empty()
            && let Err(error) = self.commit_recording(batch, &records).await
        {
            if was_refused(&error) {
                // Refused without effect: everything stays to be committed by a later flush.
                self.switching.not_committed(refs);
                for (reference, more) in counts {
                    self.count(reference, more);
                }
                for copy in copies {
                    self.keep_also(copy.not_committed());
                }
                self.dead.borrow_mut().append(&mut dead);
                self.keep_records(records);
            }
            return Err(error);
        }
        self.pool.store.records_committed(&records);
        self.switching.committed();
        for copy in copies {
            self.keep_also(copy.committed());
        }
        if counts.values().any(|more| *more < 0) {
            self.pool.refs_dropped(counts.into_keys());
        }
        if !dead.is_empty() {
            self.pool
                .delete_later(&self.meta, dead_runs, UsedBy::Volume(self.users()));
        }
        Ok(())
    }

    /// A frozen node that still changes, or has changes that are not durable, is committed by the next flush too.
    fn keep_also(&self, node: Rc<Node>) {
        let mut also = self.switching.also.borrow_mut();
        if self.is_head(&node) || also.iter().any(|other| Rc::ptr_eq(other, &node)) {
            return;
        }
        let keep = node.draining.get() || node.is_dirty() || self.switching.has_rows();
        node.pledged.set(keep);
        if keep {
            also.push(node);
        }
    }

    /// Makes a written range durable: by its objects alone if the map has not changed there.
    pub(crate) async fn make_durable(&self, offset: u64, len: u64) -> Result<()> {
        let mut objects: Vec<ObjectId> = Vec::new();
        for piece in pieces(offset, len, self.pool.object_size) {
            match self.durable_object(piece.index).await? {
                Some(id) => objects.push(id),
                None => return self.flush_inside().await,
            }
        }
        let synced = self.sync_store(&objects).await?;
        let mut records = self.flush.records.take();
        records.extend(synced);
        if self.flush.recording.get() > 0 {
            // Another sync may have been given this one's records: the next flush ends after both.
            self.keep_records(records);
            return self.flush_inside().await;
        }
        if !records.is_empty() {
            let mut batch = Batch::new();
            put_records(self.pool.number, &records, &mut batch);
            if let Err(error) = self.commit_recording(batch, &records).await {
                match was_refused(&error) {
                    true => self.keep_records(records),
                    false => self.set_fault(&error),
                }
                self.fault_noted().await;
                return Err(error);
            }
            self.pool.store.records_committed(&records);
        }
        Ok(())
    }

    async fn commit_recording(&self, batch: Batch, records: &[Record]) -> Result<()> {
        let recording = &self.flush.recording;
        let count = usize::from(!records.is_empty());
        recording.set(recording.get() + count);
        let outcome = self.meta.commit(batch, Durability::Synced).await;
        recording.set(recording.get() - count);
        outcome
    }

    /// Their batch was refused, or left to the next flush. The store gives them once only.
    fn keep_records(&self, mut records: Vec<Record>) {
        let mut kept = self.flush.records.borrow_mut();
        records.append(&mut kept);
        *kept = records;
    }

    /// Syncs objects at the store. A store reports a failure once, and a sync of the same object that
    /// runs beside the failed one may succeed although the data is lost: so nobody goes on before
    /// all that ran meanwhile have ended well.
    async fn sync_store(&self, objects: &[ObjectId]) -> Result<Vec<Record>> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let synced = {
            let _running = self.syncs.begin();
            let outcome = self.pool.store.sync(objects).await;
            outcome
                .map_err(Error::from)
                .inspect_err(|error| self.set_fault(error))
        };
        self.syncs.quiesce().await;
        let checked = synced.and_then(|records| self.check_fault().map(|()| records));
        if checked.is_err() {
            self.fault_noted().await;
        }
        checked
    }

    /// The complete object at an index, if the map's naming of it is durable as it is.
    async fn durable_object(&self, index: ObjectIndex) -> Result<Option<ObjectId>> {
        let spot = self.spot(index).await?;
        let entry = spot.entry();
        let durable = spot.page.is_durable(spot.slot) && !self.switching.has_rows();
        Ok(match entry.kind() {
            EntryKind::Object(generation) if !entry.is_partial() && durable => {
                Some(ObjectId::new(generation, index))
            }
            _ => None,
        })
    }

    /// Something was changed: it is written back some time later even if nobody flushes. The timer
    /// runs only while there is something to write back.
    pub(super) fn changed(&self) {
        if self.flush.armed.replace(true) {
            return;
        }
        let volume = self.me.clone();
        spawn_detached(async move {
            sleep(WRITE_BACK_INTERVAL).await;
            let Some(volume) = volume.upgrade() else {
                return;
            };
            volume.flush.armed.set(false);
            if volume.is_dirty() && volume.check_fault().is_ok() {
                // A failure is sticky and logged, or the metadata store is full: tried again then.
                if volume.flush_inside().await.is_err() && volume.check_fault().is_ok() {
                    volume.changed();
                }
            }
        });
    }

    fn is_dirty(&self) -> bool {
        self.head_ref().is_dirty()
            || self.switching.has_rows()
            || !self.switching.refs.borrow().is_empty()
            || self.switching.also.borrow().iter().any(|n| n.is_dirty())
            || !self.counts.borrow().is_empty()
            || !self.unsynced.borrow().is_empty()
            || !self.flush.records.borrow().is_empty()
            || !self.dead.borrow().is_empty()
            || self.peers.have_written()
    }

    /// Flushes when what the next one has to take is too much to be kept, before more is written.
    pub(super) async fn keep_bounds(&self) -> Result<()> {
        let records = self.head_ref().partials.dirty_records();
        let much = self.budget.is_over() && records > 0;
        if much || records > MAX_DIRTY_RECORDS || self.unsynced.borrow().len() > MAX_UNSYNCED {
            self.flush_inside().await?;
        }
        Ok(())
    }

    /// Commits when more of the map is unsaved than memory allows, before more is changed.
    pub(super) async fn keep_budget(&self) -> Result<()> {
        let dirty = self.head_ref().table.dirty_pages();
        if (self.budget.is_over() && dirty > 0) || dirty > MAX_DIRTY_PAGES {
            self.flush_inside().await?;
        }
        Ok(())
    }
}

/// A commit that the metadata store refused without effect; any other failure leaves open what is
/// durable.
fn was_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Busy)
}

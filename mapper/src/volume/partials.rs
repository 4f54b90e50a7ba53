//! Partial records in memory: which blocks of an object are valid, for objects that are not complete.
//! A record is set by the home core, committed by a flush after the object's data.

use crate::budget::{Budget, Evictable, Eviction};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Below, Bitmap, Key, PartialRow, open_row};
use crate::local::WaitQueue;
use crate::meta::{Batch, MetaStore};
use crate::types::PoolNumber;
use atoll_backends::{BlockRange, ObjectId, ObjectSize};
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Memory that a resident record is counted with besides its bitmap, in bytes.
const RECORD_COST: usize = 192;

pub(crate) struct Partial {
    bits: RefCell<Bitmap>,
    below: Cell<Below>,
    /// `below` is not what is stored: the row is written anew.
    rewritten: Cell<bool>,
    /// Changed since the last copy.
    dirty: Cell<bool>,
    committing: Cell<bool>,
    used: Cell<bool>,
}

impl Partial {
    pub(crate) fn contains(&self, block: u32) -> bool {
        self.bits.borrow().contains(block)
    }

    pub(crate) fn below(&self) -> Below {
        self.below.get()
    }

    /// Blocks that are valid.
    pub(crate) fn count(&self) -> u32 {
        self.bits.borrow().count()
    }

    /// True if it is complete with these blocks.
    pub(crate) fn is_full_with(&self, range: BlockRange) -> bool {
        let bits = self.bits.borrow();
        let missing = (range.first..range.end()).filter(|block| !bits.contains(*block));
        let missing = u32::try_from(missing.count()).expect("blocks of an object");
        bits.count() + missing == bits.object_size().blocks()
    }

    pub(crate) fn is_durable(&self) -> bool {
        !self.dirty.get() && !self.committing.get()
    }

    /// The parts of a range, in order: valid here or not.
    pub(crate) fn runs(&self, range: BlockRange) -> Vec<(BlockRange, bool)> {
        let bits = self.bits.borrow();
        let mut runs: Vec<(BlockRange, bool)> = Vec::new();
        for block in range.first..range.end() {
            let valid = bits.contains(block);
            match runs.last_mut() {
                Some((run, kind)) if *kind == valid => run.count += 1,
                _ => runs.push((BlockRange::new(block, 1), valid)),
            }
        }
        runs
    }
}

/// What a flush has taken of the records.
#[derive(Default)]
pub(crate) struct PartialCopy {
    written: Vec<(ObjectId, Rc<Partial>)>,
    removed: Vec<ObjectId>,
}

pub(crate) struct Partials {
    me: Weak<Partials>,
    pool: PoolNumber,
    object_size: ObjectSize,
    meta: Arc<dyn MetaStore>,
    budget: Rc<Budget>,
    /// By token; a token is never used twice, the budget's clock may still hold old ones.
    records: RefCell<HashMap<u64, (ObjectId, Rc<Partial>)>>,
    tokens: RefCell<HashMap<ObjectId, u64>>,
    next_token: Cell<u64>,
    dirty: RefCell<HashSet<ObjectId>>,
    removed: RefCell<Vec<ObjectId>>,
    faulting: RefCell<HashSet<ObjectId>>,
    fault_ended: WaitQueue,
}

impl Partials {
    pub(crate) fn new(
        pool: PoolNumber,
        object_size: ObjectSize,
        meta: Arc<dyn MetaStore>,
        budget: Rc<Budget>,
    ) -> Rc<Partials> {
        Rc::new_cyclic(|me| Partials {
            me: me.clone(),
            pool,
            object_size,
            meta,
            budget,
            records: RefCell::default(),
            tokens: RefCell::default(),
            next_token: Cell::new(0),
            dirty: RefCell::default(),
            removed: RefCell::default(),
            faulting: RefCell::default(),
            fault_ended: WaitQueue::default(),
        })
    }

    fn cost(&self) -> usize {
        RECORD_COST + self.object_size.blocks() as usize / 8
    }

    /// A record for a new object of which nothing is valid yet.
    pub(crate) fn create(&self, id: ObjectId, below: Below) -> Rc<Partial> {
        self.insert(id, Bitmap::new(self.object_size), below)
    }

    /// Something else is below from now on.
    pub(crate) fn set_below(&self, id: ObjectId, partial: &Partial, below: Below) {
        partial.below.set(below);
        partial.rewritten.set(true);
        partial.dirty.set(true);
        self.dirty.borrow_mut().insert(id);
    }

    /// Another node takes the object over, whose record is durable: it is that node's to read and change.
    pub(crate) fn hand_over(&self, id: ObjectId) {
        debug_assert!(
            !self.dirty.borrow().contains(&id),
            "what is changed here is committed here"
        );
        if let Some(token) = self.tokens.borrow_mut().remove(&id) {
            self.records.borrow_mut().remove(&token);
            self.budget.discharge(self.cost());
        }
    }

    fn insert(&self, id: ObjectId, bits: Bitmap, below: Below) -> Rc<Partial> {
        let partial = Rc::new(Partial {
            bits: RefCell::new(bits),
            below: Cell::new(below),
            rewritten: Cell::new(false),
            dirty: Cell::new(false),
            committing: Cell::new(false),
            used: Cell::new(true),
        });
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        self.records
            .borrow_mut()
            .insert(token, (id, partial.clone()));
        self.tokens.borrow_mut().insert(id, token);
        let me: Weak<dyn Evictable> = self.me.clone();
        self.budget.charge(me, token, self.cost());
        partial
    }

    fn resident(&self, id: ObjectId) -> Option<Rc<Partial>> {
        let token = *self.tokens.borrow().get(&id)?;
        let partial = self.records.borrow().get(&token)?.1.clone();
        partial.used.set(true);
        Some(partial)
    }

    /// The record of an object whose entry says `partial`.
    pub(crate) async fn get(&self, id: ObjectId) -> Result<Rc<Partial>> {
        self.find(id).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the partial record of object {id} is missing; run `atoll fsck`"),
            )
        })
    }

    /// The record of an object that lies below another; none if it is complete.
    pub(crate) async fn find(&self, id: ObjectId) -> Result<Option<Rc<Partial>>> {
        loop {
            if let Some(partial) = self.resident(id) {
                return Ok(Some(partial));
            }
            if !self.faulting.borrow_mut().insert(id) {
                self.fault_ended
                    .until(|| (!self.faulting.borrow().contains(&id)).then_some(()))
                    .await;
                continue;
            }
            let read = self.read(id).await;
            self.faulting.borrow_mut().remove(&id);
            self.fault_ended.notify();
            return Ok(read?.map(|row| self.insert(id, row.bitmap, row.below)));
        }
    }

    async fn read(&self, id: ObjectId) -> Result<Option<PartialRow>> {
        let key = Key::partial(self.pool, id);
        let Some(value) = self.meta.get(&key).await? else {
            return Ok(None);
        };
        let row: PartialRow = open_row(&key, &value)?;
        if row.bitmap.object_size() != self.object_size {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the partial record of object {id} does not fit its pool; run `atoll fsck`"
                ),
            ));
        }
        Ok(Some(row))
    }

    /// Blocks whose data is complete at the store become valid. True if the object is complete now:
    /// the caller then clears the entry's flag in the same turn.
    pub(crate) fn publish(&self, id: ObjectId, partial: &Rc<Partial>, range: BlockRange) -> bool {
        let mut bits = partial.bits.borrow_mut();
        if bits.is_full() {
            return false;
        }
        bits.insert(range);
        if bits.is_full() {
            drop(bits);
            self.forget(id);
            return true;
        }
        partial.dirty.set(true);
        self.dirty.borrow_mut().insert(id);
        false
    }

    /// The object is complete or has left the map: its record goes with the next commit.
    pub(crate) fn forget(&self, id: ObjectId) {
        self.dirty.borrow_mut().remove(&id);
        self.removed.borrow_mut().push(id);
        if let Some(token) = self.tokens.borrow_mut().remove(&id) {
            self.records.borrow_mut().remove(&token);
            self.budget.discharge(self.cost());
        }
    }

    /// Changed records that no commit has taken yet.
    pub(crate) fn dirty_records(&self) -> usize {
        self.dirty.borrow().len()
    }

    /// True if a commit has something to do here.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.borrow().is_empty() || !self.removed.borrow().is_empty()
    }

    pub(crate) fn take_dirty(&self) -> PartialCopy {
        let mut ids: Vec<ObjectId> = self.dirty.borrow_mut().drain().collect();
        ids.sort_unstable();
        let tokens = self.tokens.borrow();
        let records = self.records.borrow();
        let written = ids.into_iter().map(|id| {
            let partial = records[tokens.get(&id).expect("dirty records are resident")]
                .1
                .clone();
            partial.dirty.set(false);
            partial.committing.set(true);
            (id, partial)
        });
        PartialCopy {
            written: written.collect(),
            removed: self.removed.take(),
        }
    }

    /// Writes the copy into a batch, in the turn of [`Partials::take_dirty`].
    pub(crate) fn encode(&self, copy: &PartialCopy, batch: &mut Batch) {
        for (id, partial) in &copy.written {
            let row = PartialRow {
                below: partial.below.get(),
                bitmap: partial.bits.borrow().clone(),
            };
            let key = Key::partial(self.pool, *id);
            match partial.rewritten.get() {
                true => batch.put_row(key, &row),
                false => batch.merge_row(key, &row),
            }
        }
        for id in &copy.removed {
            batch.delete(Key::partial(self.pool, *id));
        }
    }

    /// The copy was refused without effect.
    pub(crate) fn not_committed(&self, copy: PartialCopy) {
        for (id, partial) in copy.written {
            partial.committing.set(false);
            if self.tokens.borrow().contains_key(&id) {
                partial.dirty.set(true);
                self.dirty.borrow_mut().insert(id);
            }
        }
        self.removed.borrow_mut().extend(copy.removed);
    }

    pub(crate) fn committed(&self, copy: PartialCopy) {
        for (_, partial) in copy.written {
            partial.committing.set(false);
        }
    }
}

impl Evictable for Partials {
    fn was_used(&self, token: u64) -> bool {
        self.records
            .borrow()
            .get(&token)
            .is_some_and(|(_, partial)| partial.used.replace(false))
    }

    fn holds(&self, token: u64) -> bool {
        self.records.borrow().contains_key(&token)
    }

    fn evict(&self, token: u64) -> Eviction {
        let mut records = self.records.borrow_mut();
        let Some((id, partial)) = records.get(&token) else {
            return Eviction::Forgotten;
        };
        if Rc::strong_count(partial) > 1 || !partial.is_durable() {
            return Eviction::Kept;
        }
        self.tokens.borrow_mut().remove(id);
        records.remove(&token);
        Eviction::Done
    }
}

impl Drop for Partials {
    fn drop(&mut self) {
        self.budget
            .discharge(self.records.borrow().len() * self.cost());
    }
}

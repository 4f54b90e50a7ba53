//! Merging a frozen node that nothing names into its only child, some pages at a time. What the child shows does not
//! change. Where the child is a head, its volume goes on meanwhile.
//!
//! **Invariant:** an entry leaves the parent in the turn in which what is to become of it is in the child, and both are
//! committed in one batch.

use super::Volume;
use super::fill::gather;
use super::flush::{NodeCopy, put_counts};
use super::layers::{Chain, MAX_CHAIN, chain, of_node};
use super::lease::Lease;
use super::node::Node;
use super::table::{Page, page_of};
use crate::core_state::{CoreState, core_state};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    Below, ChildRow, Entry, EntryKind, Key, KeyRange, NodeRow, ParsedKey, decode_whole, unseal,
};
use crate::gc::{UsedBy, put_dead, put_records, runs};
use crate::meta::{Batch, Cursor, Durability};
use crate::pool::PoolContext;
use crate::types::{ENTRIES_PER_PAGE, NodeId, PageNo, RefId, ResourceId};
use atoll_backends::{BlockRange, ObjectId, ObjectIndex, Record, WriteMode};
use atoll_reactor::{now, yield_now};
use hashbrown::HashMap;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// How long one call goes on.
const CALL_TIME: Duration = Duration::from_millis(100);
/// Pages merged in one batch.
const PAGES_PER_BATCH: usize = 32;
/// How long a write may keep an object before the collector goes on with something else.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Rows read at a time.
const SCAN_ROWS: usize = 16;
/// Entries looked at before others have a turn.
const SLOTS_PER_TURN: u16 = 64;

struct Merge {
    state: Rc<CoreState>,
    pool: Rc<PoolContext>,
    parent: Rc<Node>,
    child: Rc<Node>,
    /// The volume whose head the child is.
    volume: Option<Rc<Volume>>,
    /// Operations at the store that were made while an object was held, not paced yet.
    owed: Cell<u32>,
}

/// What was changed besides maps and is not durable yet, kept by the parent where the child is frozen.
#[derive(Default)]
pub(super) struct Left {
    dead: Vec<ObjectId>,
    records: Vec<Record>,
    counts: HashMap<RefId, i64>,
    /// Changes of both nodes are this merge's, and nobody else's to commit.
    changed: bool,
}

/// Merges pages of `parent` into `child` from `from` on, for a moment; where to go on, none at the end. `head` is the
/// resource whose head the child is, opened. On the home core of their tree, while no verb changes that.
pub(crate) async fn merge_pages(
    parent: NodeId,
    child: NodeId,
    head: Option<ResourceId>,
    from: PageNo,
) -> Result<Option<PageNo>> {
    let merge = Merge::begin(parent, child, head).await?;
    let _parent = merge.parent.changes.close().await;
    let _child = merge.child.changes.close().await;
    let outcome = merge.pages(from).await;
    // Also what was done before a failure.
    let committed = merge.commit().await;
    let next = outcome?;
    committed.map(|()| next)
}

/// Takes a parent that has no entries any more out of the tree, durably.
pub(crate) async fn unlink(parent: NodeId, child: NodeId, head: Option<ResourceId>) -> Result<()> {
    let merge = Merge::begin(parent, child, head).await?;
    let _parent = merge.parent.changes.close().await;
    let _child = merge.child.changes.close().await;
    merge.unlink().await
}

impl Merge {
    async fn begin(parent: NodeId, child: NodeId, head: Option<ResourceId>) -> Result<Merge> {
        let state = core_state()?;
        let parent = state.nodes.get(parent).await?;
        let child = state.nodes.get(child).await?;
        let volume = head.map(|id| state.volume(id)).transpose()?;
        if let Some(volume) = &volume {
            volume.check_fault()?;
            volume.settle().await?;
            // What there is to be moved is looked for in the metadata store.
            if parent.is_busy() && !parent.draining.get() {
                volume.flush().await?;
            }
        }
        let is_head = volume.as_ref().is_none_or(|volume| volume.is_head(&child));
        let is_child = child.row().parent == Some(parent.id());
        let quiet = !parent.draining.get() && !child.draining.get();
        let others = match &volume {
            Some(_) => parent.is_busy(),
            None => !parent.left.borrow().changed && (parent.is_busy() || child.is_busy()),
        };
        if !is_head || !is_child || !quiet || others {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} or {} is being changed", parent.id(), child.id()),
            ));
        }
        Ok(Merge {
            pool: state.pool(parent.row().pool)?,
            state,
            parent,
            child,
            volume,
            owed: Cell::new(0),
        })
    }

    async fn pages(&self, from: PageNo) -> Result<Option<PageNo>> {
        let until = now() + CALL_TIME;
        let mut rows = Cursor::new(KeyRange::groups_of(self.parent.id()));
        let mut merged = 0;
        loop {
            let pairs = rows.next(&*self.state.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                return Ok(None);
            }
            for (key, value) in pairs {
                let Some(ParsedKey::Group(_, group)) = Key::parse(&key) else {
                    continue;
                };
                if group < from.group() {
                    continue;
                }
                let slots = decode_whole(unseal(&key, &value)?)?;
                for (place, entry) in slots.iter().enumerate() {
                    let page = group.page(place);
                    if page < from || *entry == Entry::ABSENT {
                        continue;
                    }
                    if now() >= until {
                        return Ok(Some(page));
                    }
                    self.state.background.pace(1).await;
                    self.page(page).await?;
                    merged += 1;
                    if merged % PAGES_PER_BATCH == 0 {
                        self.commit().await?;
                    }
                }
            }
        }
    }

    async fn page(&self, page_no: PageNo) -> Result<()> {
        let above = self.parent.table.page(page_no).await?;
        for slot in 0..ENTRIES_PER_PAGE as u16 {
            if above.get(slot) != Entry::ABSENT {
                let index = page_no.index(usize::from(slot));
                let moved = self.entry(index, &above).await;
                match self.owed.take() {
                    0 if slot % SLOTS_PER_TURN == 0 => yield_now().await,
                    0 => {}
                    owed => self.state.background.pace(owed).await,
                }
                moved?;
            }
        }
        Ok(())
    }

    /// Moves one entry, or what it names, into the child.
    async fn entry(&self, index: ObjectIndex, above: &Page) -> Result<()> {
        let (page_no, slot) = page_of(index);
        let whole = BlockRange::whole(self.pool.object_size);
        let _held = match &self.volume {
            Some(volume) => {
                volume.check_open()?;
                let lease = Lease::limited(LOCK_PATIENCE);
                // Who copies from below waits for those that write there, on every core.
                Some(volume.lock(index, whole, whole, &lease).await?)
            }
            None => None,
        };
        let object = u64::from(self.pool.object_size.bytes());
        let begin = index.get() * object;
        let inherited = self.child.inherit_end();
        if begin < inherited && begin + object > inherited {
            self.materialize(index).await?;
        }
        let page = self.child.table.page(page_no).await?;
        let entry = above.get(slot);
        let upper = chain(&self.parent, index, entry).await?;
        let own = chain(&self.child, index, page.get(slot)).await?;
        if !is_durable(&upper) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("a record of {} is being changed", self.parent.id()),
            ));
        }
        if begin >= inherited || !own.implicit {
            self.bury(&self.parent, upper);
        } else if own.objects.is_empty() {
            self.hand_over(&upper);
            self.child.table.set(page_no, &page, slot, entry);
        } else if own.objects.len() + upper.objects.len() > MAX_CHAIN {
            self.materialize(index).await?;
            self.bury(&self.parent, upper);
        } else {
            let below = match entry.kind() {
                EntryKind::Object(generation) => Below::Object(ObjectId::new(generation, index)),
                EntryKind::Ref(reference) => Below::Ref(reference),
                _ => Below::Zeros,
            };
            if let Some((id, Some(lowest))) = own.objects.last() {
                self.child.partials.set_below(*id, lowest, below);
            }
            self.hand_over(&upper);
            if let Some(volume) = &self.volume {
                volume.fill_later(index);
            }
        }
        self.parent.table.set(page_no, above, slot, Entry::ABSENT);
        self.changed(page_no);
        Ok(())
    }

    /// Something of both nodes was changed in this turn.
    fn changed(&self, page_no: PageNo) {
        self.state.nodes.moved();
        self.parent.left.borrow_mut().changed = self.volume.is_none();
        if let Some(volume) = &self.volume {
            // What it shows stays, but who may be asked for it does not.
            volume.views.retire(page_no);
            volume.also(&self.parent);
            volume.changed();
        }
    }

    /// The records go to the child with their objects.
    fn hand_over(&self, upper: &Chain) {
        for (id, record) in &upper.objects {
            if record.is_some() {
                self.parent.partials.hand_over(*id);
            }
        }
    }

    /// Objects and what is below them are in no map any more.
    fn bury(&self, node: &Node, chain: Chain) {
        if let Some(volume) = &self.volume {
            return volume.bury_chain(node, chain);
        }
        let mut left = self.parent.left.borrow_mut();
        for (id, record) in chain.objects {
            if record.is_some() {
                node.partials.forget(id);
            }
            left.dead.push(id);
        }
        if let Some(reference) = chain.reference {
            *left.counts.entry(reference).or_default() -= 1;
        }
    }

    /// Makes what the child shows at an index one complete object of the child, which needs nothing from above.
    async fn materialize(&self, index: ObjectIndex) -> Result<()> {
        let (page_no, slot) = page_of(index);
        let page = self.child.table.page(page_no).await?;
        let own = chain(&self.child, index, page.get(slot)).await?;
        if !own.implicit {
            return Ok(());
        }
        let child = self.child.clone();
        let layers = of_node(
            child,
            index,
            &self.pool,
            &self.state.nodes,
            &*self.state.meta,
        );
        let layers = layers.await?;
        if layers.is_empty() {
            return Ok(());
        }
        let top = own.objects.first().map(|(id, _)| *id);
        let (id, mode) = match top {
            Some(id) => (id, WriteMode::Existing),
            None => {
                let fresh = self.pool.generations.fresh().await?;
                (ObjectId::new(fresh, index), WriteMode::Create)
            }
        };
        let taken = gather(&self.pool, &layers, id, mode).await?;
        // Not paced here: writes wait for the object.
        self.owed.set(self.owed.get() + taken);
        match &self.volume {
            // Its flush does the rest.
            Some(volume) => volume.wrote(id),
            // Before the map says that all of it is valid; a failure leaves it as it is.
            None => {
                let records = self.pool.store.sync(&[id]).await?;
                self.parent.left.borrow_mut().records.extend(records);
            }
        }
        if let Some(id) = top {
            self.child.partials.forget(id);
        }
        let mut rest = own;
        if top.is_some() {
            rest.objects.remove(0);
        }
        self.bury(&self.child, rest);
        let entry = Entry::object(id.generation);
        self.child.table.set(page_no, &page, slot, entry);
        self.changed(page_no);
        Ok(())
    }

    /// Makes what was done durable.
    async fn commit(&self) -> Result<()> {
        if let Some(volume) = &self.volume {
            return match self.parent.is_dirty() {
                true => volume.flush_inside().await,
                false => Ok(()),
            };
        }
        let left = self.parent.left.take();
        if !left.changed {
            return Ok(());
        }
        let mut batch = Batch::new();
        // What is merged is deleted, in the end.
        batch.set_frees(true);
        let copies =
            [&self.child, &self.parent].map(|node| NodeCopy::take(node.clone(), &mut batch));
        let mut dead = left.dead.clone();
        dead.sort_unstable();
        let dead = runs(&dead);
        put_dead(self.pool.number, &dead, &mut batch);
        put_counts(self.pool.number, &left.counts, &mut batch);
        put_records(self.pool.number, &left.records, &mut batch);
        if let Err(error) = self.state.meta.commit(batch, Durability::Synced).await {
            // Refused: it is tried again. With any other failure the metadata store takes nothing more in this run.
            for copy in copies {
                copy.not_committed();
            }
            self.parent.left.replace(left);
            self.state.nodes.keep(&self.parent, &self.child);
            return Err(error);
        }
        self.state.nodes.finished(self.parent.id());
        for copy in copies {
            copy.committed();
        }
        self.pool.store.records_committed(&left.records);
        if left.counts.values().any(|more| *more < 0) {
            self.pool.refs.dropped(left.counts.into_keys());
        }
        if !dead.is_empty() {
            self.pool
                .delete_later(&self.state.meta, dead, UsedBy::Anybody);
        }
        Ok(())
    }

    async fn unlink(&self) -> Result<()> {
        let (parent, child) = (&self.parent, &self.child);
        let above = parent.row();
        let _rows = match &self.volume {
            Some(volume) => Some(volume.row_changes.close().await),
            None => None,
        };
        let before = child.row();
        let row = NodeRow {
            parent: above.parent,
            inherit_end: match above.parent {
                Some(_) => above.inherit_end.min(before.inherit_end),
                None => 0,
            },
            depth: match above.parent {
                Some(_) => before.depth,
                None => 0,
            },
            ..before
        };
        let mut batch = Batch::new();
        batch.set_frees(true);
        let mut groups = Cursor::new(KeyRange::groups_of(parent.id()));
        loop {
            let pairs = groups.next(&*self.state.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                break;
            }
            for (key, value) in pairs {
                let slots = decode_whole(unseal(&key, &value)?)?;
                if slots.iter().any(|entry| *entry != Entry::ABSENT) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("{} has entries still", parent.id()),
                    ));
                }
                batch.delete(Key::from_bytes(&key));
            }
        }
        batch.delete(Key::node(parent.id()));
        batch.delete(Key::usage(parent.id()));
        batch.delete(Key::child(parent.id(), child.id()));
        if let Some(grandparent) = above.parent {
            batch.delete(Key::child(grandparent, parent.id()));
            batch.put_row(Key::child(grandparent, child.id()), &ChildRow);
        }
        batch.put_row(Key::node(child.id()), &row);
        self.state.meta.commit(batch, Durability::Synced).await?;
        child.row_written(row);
        self.state.nodes.moved();
        if let Some(volume) = &self.volume {
            volume.views.retire_all();
        }
        Ok(())
    }
}

fn is_durable(chain: &Chain) -> bool {
    let records = chain
        .objects
        .iter()
        .filter_map(|(_, record)| record.as_ref());
    records.into_iter().all(|record| record.is_durable())
}

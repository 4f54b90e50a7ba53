//! Copies without data: a complete object that a map names becomes a counted one, which other places name too.
//!
//! **Invariant:** an object is named by its count before a second place names it, durably, and nobody writes to it from
//! the turn on in which it is counted (M1): all of it is locked, on every core, when its entry becomes a ref.

use super::Volume;
use super::flush::NodeCopy;
use super::layers::chain;
use super::lease::Lease;
use super::node::Node;
use super::table::{Page, page_of};
use crate::error::Result;
use crate::format::{CountRow, Entry, EntryKind, Key, ObjectRow};
use crate::meta::{Batch, Durability};
use crate::types::{PageNo, RefId};
use atoll_backends::{BlockRange, ObjectId, ObjectIndex};
use atoll_reactor::yield_now;
use std::rc::Rc;

/// What a copy of a whole object can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
    Zeros,
    /// Name it too.
    Ref(RefId, ObjectId),
    /// It is not complete, or being changed: its data has to be copied.
    Copy,
}

/// Who has the entry that an index shows.
struct Owner {
    node: Rc<Node>,
    entry: Entry,
    /// The node's parent shows only a part of it.
    cut: bool,
}

/// A frozen node in which entries have become refs.
struct Changed {
    node: Rc<Node>,
    rows: Batch,
    before: Vec<(PageNo, Rc<Page>, u16, Entry)>,
}

impl Volume {
    /// Makes what these indexes show countable, durably; `fresh` are refs for it, one for each.
    pub(crate) async fn share(
        self: &Rc<Self>,
        indexes: Vec<ObjectIndex>,
        fresh: Vec<RefId>,
    ) -> Result<Vec<Share>> {
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check_open()?;
        self.check_fault()?;
        let mut shares = Vec::with_capacity(indexes.len());
        let mut frozen: Vec<Changed> = Vec::new();
        let mut outcome = Ok(());
        for (index, reference) in indexes.into_iter().zip(fresh) {
            yield_now().await;
            match self.share_one(index, reference, &mut frozen).await {
                Ok(share) => shares.push(share),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // Also after a failure: nobody else commits them.
        for changed in frozen {
            let mut batch = changed.rows;
            let copy = NodeCopy::take(changed.node, &mut batch);
            match self.meta.commit(batch, Durability::Synced).await {
                Ok(()) => drop(copy.committed()),
                Err(error) => {
                    let node = copy.not_committed();
                    for (page_no, page, slot, before) in changed.before {
                        node.table.set(page_no, &page, slot, before);
                    }
                    node.table.forget_changes();
                    self.nodes.moved();
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome?;
        if !self.read_only {
            self.flush_inside().await?;
        }
        Ok(shares)
    }

    async fn share_one(
        &self,
        index: ObjectIndex,
        reference: RefId,
        frozen: &mut Vec<Changed>,
    ) -> Result<Share> {
        self.keep_bounds().await?;
        self.keep_budget().await?;
        let whole = BlockRange::whole(self.pool.object_size);
        let lease = Lease::limited(self.io_timeout);
        let _held = self.lock(index, whole, whole, &lease).await?;
        loop {
            let moves = self.nodes.moves();
            let owner = self.owner(index).await?;
            let (page_no, slot) = page_of(index);
            let Some(owner) = owner else {
                return Ok(Share::Zeros);
            };
            let page = owner.node.table.page(page_no).await?;
            if self.nodes.moves() != moves || page.get(slot) != owner.entry {
                continue;
            }
            let generation = match owner.entry.kind() {
                EntryKind::Ref(known) if !owner.cut => {
                    let object = self.pool.refs.object(&*self.meta, known).await?;
                    return Ok(Share::Ref(known, object));
                }
                EntryKind::Object(generation) if !owner.cut && !owner.entry.is_partial() => {
                    generation
                }
                EntryKind::Absent | EntryKind::Hole => return Ok(Share::Zeros),
                _ => return Ok(Share::Copy),
            };
            let object = ObjectId::new(generation, index);
            let mut rows = Batch::new();
            let content = None;
            rows.put_row(
                Key::object(self.pool.number, reference),
                &ObjectRow { object, content },
            );
            let one = CountRow { count: 1 };
            rows.merge_row(Key::count(self.pool.number, reference), &one);
            let entry = Entry::reference(reference);
            if self.is_head(&owner.node) && !self.read_only {
                self.pool.refs.learn(reference, object);
                self.give_up_generation(&owner.node, generation);
                self.shares.set(true);
                owner.node.table.retire_all();
                self.set_entry(&owner.node, page_no, &page, slot, entry);
                self.switching.refs.borrow_mut().extend(rows);
                self.changed();
                return Ok(Share::Ref(reference, object));
            }
            let known = frozen
                .iter_mut()
                .find(|changed| Rc::ptr_eq(&changed.node, &owner.node));
            if known.is_none() && owner.node.is_busy() {
                return Ok(Share::Copy);
            }
            self.pool.refs.learn(reference, object);
            owner.node.table.set(page_no, &page, slot, entry);
            self.nodes.moved();
            let before = (page_no, page, slot, owner.entry);
            match known {
                Some(changed) => {
                    changed.rows.extend(rows);
                    changed.before.push(before);
                }
                None => frozen.push(Changed {
                    node: owner.node,
                    rows,
                    before: vec![before],
                }),
            }
            return Ok(Share::Ref(reference, object));
        }
    }

    /// The node whose entry an index shows.
    async fn owner(&self, index: ObjectIndex) -> Result<Option<Owner>> {
        let object = u64::from(self.pool.object_size.bytes());
        let begin = index.get() * object;
        let mut node = self.head();
        let mut limit = u64::MAX;
        loop {
            let entry = node.table.lookup(index).await?;
            if entry != Entry::ABSENT {
                let cut = begin + object > limit;
                return Ok(Some(Owner { node, entry, cut }));
            }
            limit = limit.min(node.inherit_end());
            if begin >= limit {
                return Ok(None);
            }
            match node.parent(&self.nodes).await? {
                Some(parent) => node = parent,
                None => return Ok(None),
            }
        }
    }

    /// Lets indexes show counted objects, or zeros, instead of what they show now. Durable with the next flush.
    pub(crate) async fn adopt(self: &Rc<Self>, all: Vec<(ObjectIndex, Share)>) -> Result<()> {
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check_open()?;
        self.check_fault()?;
        for (index, share) in all {
            yield_now().await;
            self.keep_bounds().await?;
            self.keep_budget().await?;
            let whole = BlockRange::whole(self.pool.object_size);
            let lease = Lease::limited(self.io_timeout);
            let _held = self.lock(index, whole, whole, &lease).await?;
            loop {
                let spot = self.spot(index).await?;
                let before = spot.entry();
                let chain = chain(&spot.node, index, before).await?;
                if !self.is_head(&spot.node) || spot.entry() != before {
                    continue;
                }
                let entry = match share {
                    Share::Ref(reference, object) => {
                        self.pool.refs.learn(reference, object);
                        self.count(reference, 1);
                        self.shares.set(true);
                        spot.node.table.retire_all();
                        Entry::reference(reference)
                    }
                    _ if spot.node.has_parent() => Entry::HOLE,
                    _ => Entry::ABSENT,
                };
                self.bury_chain(&spot.node, chain);
                self.set_entry(&spot.node, spot.page_no, &spot.page, spot.slot, entry);
                self.changed();
                break;
            }
        }
        Ok(())
    }
}

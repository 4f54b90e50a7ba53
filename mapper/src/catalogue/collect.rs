//! The collector: one task per pool with work, which deletes the objects of dying nodes, merges nodes that nothing names
//! into their only child, and gives free what no ref names any more. What it has not done is found in the tree again
//! after a start.

use super::Catalogue;
use super::usage::{GcStatus, LeakScan};
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{CountRow, Key, KeyRange, NodeState, ObjectRow, ParsedKey, open_row};
use crate::gc::reap::reap_node;
use crate::gc::{DeadRun, UsedBy, put_dead};
use crate::handle::on_core;
use crate::local::{Gate, GateClosed};
use crate::meta::{Batch, Cursor, Durability, get_row};
use crate::types::{NodeId, PageNo, PoolNumber, RefId};
use crate::volume::{merge_pages, unlink};
use atoll_reactor::{sleep, spawn_detached, timeout};
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

/// Pause after a failure.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// Pause when what is to be done is being used.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// Counts looked at in one go.
const SCAN_ROWS: usize = 256;

/// What the collector has to do and has done, of all pools.
#[derive(Default)]
pub(super) struct Collector {
    running: RefCell<HashSet<PoolNumber>>,
    /// Pools in which something came to be done while it ran.
    again: RefCell<HashSet<PoolNumber>>,
    /// Pools whose refs were not all looked at since the start.
    pub(super) unswept: RefCell<HashSet<PoolNumber>>,
    /// Pools in which leaked objects are to be looked for.
    pub(super) leaks_wanted: RefCell<HashSet<PoolNumber>>,
    /// And in which they are.
    pub(super) scanning: RefCell<HashSet<PoolNumber>>,
    /// Changes of a pool's tree and steps of its collector exclude each other.
    trees: RefCell<HashMap<PoolNumber, Rc<Gate>>>,
    /// Refs that somebody is about to name.
    pins: RefCell<HashMap<(PoolNumber, RefId), usize>>,
    pub(super) deleted_nodes: Cell<u64>,
    pub(super) merged_nodes: Cell<u64>,
    pub(super) leaks: Cell<LeakScan>,
    pub(super) last_error: RefCell<Option<String>>,
}

/// A ref is not given free while this lives.
pub(super) struct Pin {
    catalogue: Rc<Catalogue>,
    key: (PoolNumber, RefId),
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.catalogue.collector.pins.borrow_mut();
        if let Some(count) = pins.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.key);
            }
        }
    }
}

impl Catalogue {
    /// Nothing else changes the pool's tree while this lives.
    pub(super) async fn lock_tree(&self, pool: PoolNumber) -> Result<GateClosed> {
        let gate = {
            let mut trees = self.collector.trees.borrow_mut();
            trees.entry(pool).or_default().clone()
        };
        let closed = timeout(self.io_timeout, gate.close()).await;
        closed.map_err(|_| {
            Error::new(
                ErrorKind::Busy,
                format!("{pool} is being collected, and its store does not answer; try again"),
            )
        })
    }

    pub(super) fn pin(self: &Rc<Self>, pool: PoolNumber, id: RefId) -> Pin {
        let key = (pool, id);
        *self.collector.pins.borrow_mut().entry(key).or_default() += 1;
        Pin {
            catalogue: self.clone(),
            key,
        }
    }

    /// There may be something to collect in a pool.
    pub(crate) fn collect(self: &Rc<Self>, pool: PoolNumber) {
        self.look_for_leaks(pool);
        if !self.collector.running.borrow_mut().insert(pool) {
            self.collector.again.borrow_mut().insert(pool);
            return;
        }
        let catalogue = self.clone();
        spawn_detached(async move {
            loop {
                if catalogue.stopping.get() {
                    break;
                }
                catalogue.collector.again.borrow_mut().remove(&pool);
                match catalogue.collect_something(pool).await {
                    Ok(true) => {}
                    // Perhaps where it had looked before.
                    Ok(false) if catalogue.collector.again.borrow().contains(&pool) => {}
                    // In the turn in which nothing was left to do.
                    Ok(false) => break,
                    Err(error) if error.kind() == ErrorKind::Busy => sleep(BUSY_PAUSE).await,
                    Err(error) => {
                        tracing::warn!(%pool, %error, "collecting failed; trying again");
                        let text = error.to_string();
                        catalogue.collector.last_error.replace(Some(text));
                        sleep(RETRY_PAUSE).await;
                    }
                }
            }
            catalogue.collector.running.borrow_mut().remove(&pool);
        });
    }

    /// Does a part of what there is to do; false if there is nothing.
    async fn collect_something(self: &Rc<Self>, pool: PoolNumber) -> Result<bool> {
        if !self.pools.borrow().contains_key(&pool) {
            return Ok(false);
        }
        let next = |nodes: &BTreeSet<NodeId>, after: Option<NodeId>| {
            let tree = self.tree.borrow();
            let here = |node: &&NodeId| tree.get(**node).is_ok_and(|entry| entry.pool == pool);
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = nodes.range((from, Bound::Unbounded));
            rest.find(here).copied()
        };
        // What fails is tried again when nothing else is to do: one volume must not keep the space of all others.
        let mut failed = None;
        let mut after = None;
        loop {
            let dying = next(self.tree.borrow().dying(), after);
            let Some(node) = dying else { break };
            let home = self.home(node)?;
            match on_core(&home, move || reap_node(pool, node)).await {
                Ok(()) => {
                    self.tree.borrow_mut().remove(node);
                    let deleted = &self.collector.deleted_nodes;
                    deleted.set(deleted.get() + 1);
                    return Ok(true);
                }
                Err(error) => failed = Some(error),
            }
            after = Some(node);
        }
        let mut after = None;
        loop {
            let mergeable = next(self.tree.borrow().mergeable(), after);
            let Some(node) = mergeable else { break };
            if self.stopping.get() {
                return Ok(false);
            }
            match self.merge(pool, node).await {
                Ok(()) => return Ok(true),
                Err(error) => failed = Some(error),
            }
            after = Some(node);
        }
        if self.sweep_refs(pool).await? {
            return Ok(true);
        }
        failed.map_or(Ok(false), Err)
    }

    /// Merges a node into its only child, as long as that is what is to be done with it.
    async fn merge(self: &Rc<Self>, pool: PoolNumber, node: NodeId) -> Result<()> {
        let mut from = Some(PageNo::ZERO);
        let mut merged_into = None;
        loop {
            let _tree = self.lock_tree(pool).await?;
            if self.stopping.get() {
                return Ok(());
            }
            let (child, head) = {
                let tree = self.tree.borrow();
                let Some(child) = tree.merges_into(node) else {
                    return Ok(());
                };
                let entry = tree.get(child)?;
                (
                    child,
                    entry.resource.filter(|_| entry.state == NodeState::Head),
                )
            };
            if let Some(id) = head {
                self.open_resource(id).await?;
            }
            if merged_into
                .replace(child)
                .is_some_and(|before| before != child)
            {
                from = Some(PageNo::ZERO);
            }
            let home = self.home(node)?;
            match from {
                Some(page) => {
                    from = on_core(&home, move || merge_pages(node, child, head, page)).await?;
                }
                None => {
                    on_core(&home, move || unlink(node, child, head)).await?;
                    let mut tree = self.tree.borrow_mut();
                    let above = tree.get(node)?.parent;
                    tree.set_parent(child, above);
                    tree.remove(node);
                    let merged = &self.collector.merged_nodes;
                    merged.set(merged.get() + 1);
                    return Ok(());
                }
            }
        }
    }

    /// Gives free what refs are that nobody names any more.
    async fn sweep_refs(self: &Rc<Self>, pool: PoolNumber) -> Result<bool> {
        // A copy names refs that it has found in a map: none of these goes before it has.
        let _tree = self.lock_tree(pool).await?;
        if self.collector.unswept.borrow_mut().remove(&pool) {
            let mut rows = Cursor::new(KeyRange::counts_of(pool));
            loop {
                let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
                if pairs.is_empty() {
                    break;
                }
                for (key, value) in pairs {
                    let row: CountRow = open_row(&key, &value)?;
                    if let Some(ParsedKey::Count(_, id)) = Key::parse(&key)
                        && row.count <= 0
                    {
                        core_state()?.pool(pool)?.refs.dropped([id]);
                    }
                }
            }
        }
        let mut dropped = Vec::new();
        for core in &self.cores {
            let some = on_core(core, move || async move {
                Ok(core_state()?.pool(pool)?.refs.take_dropped())
            });
            dropped.extend(some.await?);
        }
        let some = !dropped.is_empty();
        let mut rest = dropped.into_iter();
        while let Some(id) = rest.next() {
            if let Err(error) = self.sweep_ref(pool, id).await {
                let refs = &core_state()?.pool(pool)?.refs;
                refs.dropped(rest.chain([id]));
                return Err(error);
            }
        }
        Ok(some)
    }

    async fn sweep_ref(self: &Rc<Self>, pool: PoolNumber, id: RefId) -> Result<()> {
        let count: Option<CountRow> = get_row(&*self.meta, &Key::count(pool, id)).await?;
        let row: Option<ObjectRow> = get_row(&*self.meta, &Key::object(pool, id)).await?;
        let (Some(row), true) = (row, count.is_none_or(|row| row.count <= 0)) else {
            return Ok(());
        };
        if self.collector.pins.borrow().contains_key(&(pool, id)) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch.delete(Key::object(pool, id));
        batch.delete(Key::count(pool, id));
        if let Some(content) = row.content {
            batch.delete(Key::content(pool, &content.sha256));
        }
        let dead = vec![DeadRun {
            first: row.object,
            count: 1,
        }];
        put_dead(pool, &dead, &mut batch);
        self.meta.commit(batch, Durability::Synced).await?;
        let context = core_state()?.pool(pool)?;
        context.delete_later(&self.meta, dead, UsedBy::Anybody);
        Ok(())
    }

    pub(crate) async fn gc_status(self: &Rc<Self>) -> Result<GcStatus> {
        let pools: Vec<PoolNumber> = self.pools.borrow().keys().copied().collect();
        let (mut dead, mut deleted) = (0, 0);
        for core in &self.cores {
            let pools = pools.clone();
            let own = on_core(core, move || async move {
                let state = core_state()?;
                let mut own = (0, 0);
                for pool in pools {
                    let queue = &state.pool(pool)?.dead;
                    own = (own.0 + queue.len(), own.1 + queue.deleted());
                }
                Ok(own)
            });
            let own = own.await?;
            (dead, deleted) = (dead + own.0, deleted + own.1);
        }
        let collector = &self.collector;
        let scanning = !collector.scanning.borrow().is_empty();
        let tree = self.tree.borrow();
        Ok(GcStatus {
            running: dead > 0 || scanning || !collector.running.borrow().is_empty(),
            dying_nodes: tree.dying().len() as u64,
            merging_nodes: tree.mergeable().len() as u64,
            dead_objects: dead,
            deleted_objects: deleted,
            deleted_nodes: collector.deleted_nodes.get(),
            merged_nodes: collector.merged_nodes.get(),
            leaks: LeakScan {
                running: scanning,
                ..collector.leaks.get()
            },
            last_error: collector.last_error.borrow().clone(),
        })
    }

    /// Begins at once with all that there is to do, the leak scan too. It is done when the status says that nothing runs.
    pub(crate) async fn gc_run(self: &Rc<Self>) -> Result<()> {
        let pools: Vec<PoolNumber> = self.pools.borrow().keys().copied().collect();
        self.collector.last_error.replace(None);
        for pool in pools {
            self.collector.leaks_wanted.borrow_mut().insert(pool);
            self.collect(pool);
        }
        Ok(())
    }
}

//! The cut: a volume gets a new, empty head, and what it was until then is frozen. Every core holds new operations back,
//! the home core swaps the head in one turn, all go on; operations that had begun end later, on the node that they had
//! found: the drain.
//!
//! **Invariant:** a frozen node has every write that was acknowledged before the cut was asked for, and none that was
//! submitted after it was answered (M6): no operation begins on the new head before all cores hold back, and a
//! snapshot is answered after the drain.

use super::node::Node;
use super::peers::Fence;
use super::{Volume, outpost};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{CountRow, Key, NodeRow, NodeState, ResourceRow};
use crate::handle::ask;
use crate::local::{WaitQueue, join_all};
use crate::meta::{Batch, Durability};
use crate::types::NodeId;
use atoll_reactor::{Instant, LocalFuture, now, sleep, spawn_detached, timeout, timeout_at};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the cores may take to hold back; a core that is busy answers within a turn.
const HOLD_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before a core is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// Generations at hand before operations are held back.
const GENERATIONS_AT_HAND: u64 = 64;

/// What a volume knows of its cuts.
#[derive(Default)]
pub(super) struct Switching {
    /// Operations are held back.
    held: RefCell<Option<(Fence, Instant)>>,
    /// Nodes that the next flush commits with the head: frozen ones that still change.
    pub(super) also: RefCell<Vec<Rc<Node>>>,
    /// Rows that go first in the next flush: without them what it commits would hang in the air.
    rows: RefCell<Batch>,
    /// Those that a flush has taken, until they are durable.
    taken: RefCell<Batch>,
    /// What makes refs of objects whose entries in the head say so: with those in the next flush.
    pub(super) refs: RefCell<Batch>,
    /// Frozen in this hold.
    cut_off: RefCell<Option<Rc<Node>>>,
    draining: Cell<usize>,
    drained: WaitQueue,
}

impl Switching {
    /// Waits until no node drains.
    pub(super) async fn drained(&self) {
        self.drained
            .until(|| (self.draining.get() == 0).then_some(()))
            .await;
    }

    /// The rows of a cut are not durable.
    pub(super) fn has_rows(&self) -> bool {
        !self.rows.borrow().is_empty() || !self.taken.borrow().is_empty()
    }

    /// Rows that are not durable, whoever has them.
    pub(super) fn not_durable(&self) -> Batch {
        let mut rows = self.taken.borrow().clone();
        rows.extend(self.rows.borrow().clone());
        rows
    }

    /// A flush takes them. Where it fails at the store they are left with it, and nothing else is committed.
    pub(super) fn take(&self) -> Batch {
        let rows = self.not_durable();
        self.rows.take();
        self.taken.replace(rows.clone());
        rows
    }

    /// Those that were taken are durable.
    pub(super) fn committed(&self) {
        self.taken.take();
    }

    /// Their batch was refused: they go with the next one.
    pub(super) fn not_committed(&self, refs: Batch) {
        let rows = self.not_durable();
        self.taken.take();
        self.rows.replace(rows);
        let later = self.refs.replace(refs);
        self.refs.borrow_mut().extend(later);
    }
}

/// What a volume is to be after a cut.
#[derive(Clone, Debug)]
pub(crate) struct NewHead {
    pub(crate) node: NodeId,
    /// Ancestors that it has.
    pub(crate) depth: u16,
    /// Number of this start.
    pub(crate) run: u64,
    /// The volume's, naming the new head.
    pub(crate) resource: ResourceRow,
}

impl Volume {
    /// What a cut needs before operations are held back.
    pub(crate) async fn ready_to_switch(self: &Rc<Self>) -> Result<()> {
        self.trim_ended().await?;
        self.pool.generations.prepare(GENERATIONS_AT_HAND).await
    }

    /// Lets no operation begin any more, on any core, and does not wait for those that run.
    pub(crate) async fn hold(self: &Rc<Self>) -> Result<()> {
        self.check_fault()?;
        self.check_open()?;
        let begun = now();
        let here = self.gate.shut().ok_or_else(|| self.busy())?;
        let fence = self.peers.begin_fence(here);
        let (id, number) = (self.id, fence.number());
        let holds = self.peers.cores().into_iter().map(|core| {
            LocalFuture::new(async move {
                ask(&core, move || async move { outpost::hold(id, number) }).await
            })
        });
        match timeout_at(begun + HOLD_PATIENCE, join_all(holds)).await {
            Ok(answers) if answers.iter().all(Result::is_ok) => {
                self.switching.held.replace(Some((fence, begun)));
                Ok(())
            }
            _ => Err(self.busy()),
        }
    }

    /// Swaps the head while operations are held back; the node that was the head. What was asked of the metadata store
    /// goes with the next flush.
    pub(crate) fn switch(&self, new: NewHead) -> Result<NodeId> {
        // The mark of a fault is in the row of what is the head now.
        self.check_fault()?;
        let held = self.switching.held.borrow().is_some();
        let old = self.head();
        let cut = self.pool.generations.take().filter(|_| held);
        let cut = cut.ok_or_else(|| self.busy())?;
        let before = old.row();
        let frozen = NodeRow {
            state: NodeState::Frozen,
            current: None,
            ..before
        };
        let row = NodeRow {
            pool: before.pool,
            state: NodeState::Head,
            faulted: false,
            parent: Some(old.id()),
            inherit_end: self.size(),
            cut,
            current: Some(cut),
            run: new.run,
            trim: None,
            depth: new.depth,
        };
        let head = self.nodes.add(new.node, row)?;
        let rows = head_rows(old.id(), &frozen, new.node, &row);
        let mut pending = self.switching.rows.borrow_mut();
        pending.extend(rows);
        pending.put_row(Key::resource(self.id), &new.resource);
        drop(pending);
        // Objects that are being created there keep the generation that they have; no other begins.
        old.set_row(frozen);
        self.enter(head, &old);
        old.draining.set(true);
        let switching = &self.switching;
        switching.draining.set(switching.draining.get() + 1);
        self.also(&old);
        let id = old.id();
        switching.cut_off.replace(Some(old));
        Ok(id)
    }

    /// From this turn on operations that look the map up find another head.
    pub(super) fn enter(&self, head: Rc<Node>, old: &Node) {
        self.shared
            .cut
            .store(head.row().cut.get(), Ordering::Release);
        self.head.replace(head);
        old.table.retire_all();
        self.views.retire_all();
        self.nodes.moved();
    }

    /// All cores go on. If the head was swapped, the drain begins.
    pub(crate) fn lift(self: &Rc<Self>) {
        let Some((fence, begun)) = self.switching.held.take() else {
            return;
        };
        drop(fence);
        let held = u64::try_from((now() - begun).as_nanos()).unwrap_or(u64::MAX);
        self.shared.longest_hold.fetch_max(held, Ordering::Relaxed);
        let Some(node) = self.switching.cut_off.take() else {
            return;
        };
        let volume = self.clone();
        spawn_detached(async move {
            while let Err(error) = volume.users().quiesce().await {
                tracing::warn!(volume = %volume.id, %error, "a snapshot waits for a core");
                sleep(ASK_PAUSE).await;
            }
            node.draining.set(false);
            let switching = &volume.switching;
            switching.draining.set(switching.draining.get() - 1);
            switching.drained.notify();
            volume.changed();
        });
    }

    /// Everything that began before the last cut is in the frozen nodes, durably.
    pub(crate) async fn drain(self: &Rc<Self>) -> Result<()> {
        let volume = self.clone();
        let drained = async move { volume.switching.drained().await };
        if timeout(self.io_timeout, drained).await.is_err() {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "volume {}: I/O that began before did not end in time; there is no snapshot",
                    self.id
                ),
            ));
        }
        self.flush().await
    }

    /// Makes the rows durable that a cut left to the next flush, if there are any.
    pub(crate) async fn settle(self: &Rc<Self>) -> Result<()> {
        match self.switching.has_rows() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// The rows that no flush could make durable.
    pub(crate) fn take_rows(&self) -> Batch {
        self.switching.not_durable()
    }
}

impl Volume {
    /// The volume becomes what a frozen node is: it gets a new head on that, and the old head is dropped by `rows`.
    pub(crate) async fn rollback(
        self: &Rc<Self>,
        new: NewHead,
        parent: NodeId,
        rows: Batch,
    ) -> Result<()> {
        self.trim_ended().await?;
        let _fence = self.fence().await?;
        self.check_fault()?;
        let drained = timeout(self.io_timeout, self.switching.drained());
        drained.await.map_err(|_| self.busy())?;
        // What was created lately is in the map that is dropped, so that it is found there.
        self.flush_inside().await?;
        let cut = self.pool.generations.fresh().await?;
        let _rows = self.row_changes.close().await;
        let old = self.head();
        let row = NodeRow {
            parent: Some(parent),
            inherit_end: new.resource.size,
            cut,
            current: Some(cut),
            run: new.run,
            trim: None,
            depth: new.depth,
            ..old.row()
        };
        let mut batch = rows;
        batch.set_frees(false);
        batch.extend(new_node_rows(new.node, &row));
        batch.put_row(Key::resource(self.id), &new.resource);
        self.meta.commit(batch, Durability::Synced).await?;
        let head = self.nodes.add(new.node, row)?;
        self.shared.size.store(new.resource.size, Ordering::Release);
        self.enter(head, &old);
        Ok(())
    }

    /// The head inherits nothing any more: it has no parent from now on. `rows` drop what only it needed.
    pub(crate) async fn cut_off(self: &Rc<Self>, parent: NodeId, rows: Batch) -> Result<()> {
        self.flush_inside().await?;
        let _rows = self.row_changes.close().await;
        let head = self.head();
        let row = NodeRow {
            parent: None,
            inherit_end: 0,
            depth: 0,
            ..head.row()
        };
        let mut batch = rows;
        batch.set_frees(false);
        batch.delete(Key::child(parent, head.id()));
        batch.put_row(Key::node(head.id()), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        head.row_written(row);
        self.views.retire_all();
        self.nodes.moved();
        Ok(())
    }
}

/// The rows of a node that is frozen and of its new child.
fn head_rows(old: NodeId, frozen: &NodeRow, new: NodeId, row: &NodeRow) -> Batch {
    let mut rows = Batch::new();
    rows.put_row(Key::node(old), frozen);
    rows.extend(new_node_rows(new, row));
    rows
}

/// The rows of a new node.
pub(crate) fn new_node_rows(node: NodeId, row: &NodeRow) -> Batch {
    let mut rows = Batch::new();
    rows.put_row(Key::node(node), row);
    rows.put_row(Key::usage(node), &CountRow { count: 0 });
    if let Some(parent) = row.parent {
        rows.put_row(Key::child(parent, node), &crate::format::ChildRow);
    }
    rows
}

//! A writable resource on its home core: the map of its head node, and reading, writing and
//! unmapping by it; and what other cores do of it (`outpost`). Which protocol asks, and how objects
//! are stored, is not its business.

mod atomic;
mod changes;
mod claiming;
mod fault;
mod fill;
mod flatten;
mod flush;
mod io;
mod layers;
mod lease;
mod merge;
mod node;
pub(crate) mod outpost;
mod partials;
mod peers;
mod pieces;
mod probe;
mod resize;
mod share;
mod switch;
mod table;
mod view;
mod zero;

pub use atomic::MapExtent;
pub use changes::{ChangedExtent, Changes};
pub(crate) use changes::{Lines, Side, changes};
pub use io::{MAX_IO_BYTES, Segments};
pub(crate) use lease::Lease;
pub(crate) use merge::{merge_pages, unlink};
pub(crate) use node::Nodes;
pub(crate) use peers::Users;
pub(crate) use share::Share;

use crate::background::Background;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{NodeRow, NodeState, ResourceRow};
use crate::local::{Epochs, Gate, RangeLocks, WaitQueue, run_to_end};
use crate::meta::MetaStore;
use crate::pool::PoolContext;
use crate::types::{NodeId, RefId, ResourceId};
use atoll_backends::{Generation, ObjectId};
use atoll_reactor::{core_id, timeout, timeout_at};
use claiming::HomeClaims;
use crossbeam::utils::CachePadded;
use fault::FaultMark;
use fill::Filling;
use flush::FlushState;
use hashbrown::{HashMap, HashSet};
use layers::Chain;
use node::Node;
use peers::Peers;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use switch::Switching;
pub(crate) use switch::{NewHead, new_node_rows};
use view::Views;
pub(crate) use zero::Zeroing;

/// Objects written and not synced above which a flush is made without being asked for, on each core.
const MAX_UNSYNCED: usize = 65_536;

/// What one core has done with a volume since its opening.
#[derive(Default, Debug)]
pub struct VolumeCounters {
    pub reads: AtomicU64,
    pub read_bytes: AtomicU64,
    pub writes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub flushes: AtomicU64,
    pub unmaps: AtomicU64,
    pub unmapped_bytes: AtomicU64,
    pub errors: AtomicU64,
}

/// What every core may look at.
#[derive(Debug)]
pub struct VolumeShared {
    size: AtomicU64,
    read_only: bool,
    faulted: AtomicBool,
    /// It is being closed, or closed.
    retired: AtomicBool,
    /// Objects below this generation are not written in place.
    cut: AtomicU64,
    /// Nanoseconds.
    longest_hold: AtomicU64,
    /// By core.
    counters: Box<[CachePadded<VolumeCounters>]>,
}

impl VolumeShared {
    pub(crate) fn new(size: u64, read_only: bool, cores: usize) -> Arc<VolumeShared> {
        Arc::new(VolumeShared {
            size: AtomicU64::new(size),
            read_only,
            faulted: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            cut: AtomicU64::new(Generation::MAX.get()),
            longest_hold: AtomicU64::new(0),
            counters: (0..cores).map(|_| CachePadded::default()).collect(),
        })
    }

    /// True if an object of this generation, which the volume's own map names as complete, is written in place.
    fn is_own(&self, generation: Generation) -> bool {
        generation.get() >= self.cut.load(Ordering::Acquire)
    }

    /// What each core has done, by its number.
    pub fn counters(&self) -> impl Iterator<Item = &VolumeCounters> {
        self.counters.iter().map(|counters| &**counters)
    }

    /// Where this core counts.
    pub(crate) fn counters_here(&self) -> &VolumeCounters {
        &self.counters[usize::from(core_id().0)]
    }

    fn check_range(&self, id: ResourceId, offset: u64, len: u64) -> Result<()> {
        self.check_open(id)?;
        let size = self.size();
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::new(
                ErrorKind::OutOfRange,
                format!("volume {id}: bytes {offset}+{len} lie beyond its size {size}"),
            )),
        }
    }

    fn check_open(&self, id: ResourceId) -> Result<()> {
        match self.retired.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Closed,
                format!("volume {id} is closed"),
            )),
        }
    }

    /// Refuses when a sync or commit has failed: what was acknowledged before may be lost, so that
    /// neither new writes nor what reads show could be trusted (M4).
    fn check_fault(&self, id: ResourceId) -> Result<()> {
        match self.is_faulted() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Faulted,
                format!(
                    "volume {id} answers no I/O since a flush failed (the log says how); stop the daemon, run \
                     `atoll fsck --deep --clear-faults`, start it again"
                ),
            )),
        }
    }

    /// The longest time for which a snapshot has held operations back since this was asked last.
    pub fn take_longest_hold(&self) -> Duration {
        Duration::from_nanos(self.longest_hold.swap(0, Ordering::Relaxed))
    }

    /// A snapshot: it is never written to.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn check_writable(&self, id: ResourceId) -> Result<()> {
        match self.read_only {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::ReadOnly,
                format!("resource {id} is a snapshot, which is never written to"),
            )),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// A sync or commit has failed: nothing more is acknowledged (M4).
    pub fn is_faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire)
    }
}

/// An opened volume. Lives on its home core.
pub(crate) struct Volume {
    me: Weak<Volume>,
    id: ResourceId,
    pool: Rc<PoolContext>,
    meta: Arc<dyn MetaStore>,
    shared: Arc<VolumeShared>,
    /// A snapshot: nothing is written to it.
    read_only: bool,
    /// The node that is written to, or that the snapshot names.
    head: RefCell<Rc<Node>>,
    nodes: Rc<Nodes>,
    views: Rc<Views>,
    /// The head names counted objects.
    shares: Cell<bool>,
    switching: Switching,
    budget: Rc<Budget>,
    locks: Rc<RangeLocks>,
    gate: Rc<Gate>,
    epochs: Rc<Epochs>,
    /// Syncs at the store that run.
    syncs: Rc<Epochs>,
    /// Objects with writes that no sync has taken yet.
    unsynced: RefCell<HashSet<ObjectId>>,
    /// Objects that left the map since the last commit took them.
    dead: RefCell<Vec<ObjectId>>,
    /// By how much the counts of refs have changed since the last commit took that.
    counts: RefCell<HashMap<RefId, i64>>,
    flush: FlushState,
    filling: Filling,
    background: Rc<Background>,
    peers: Rc<Peers>,
    /// Made when it is needed: most volumes are idle.
    claims: OnceCell<Rc<HomeClaims>>,
    many_cores: bool,
    trimming: Cell<bool>,
    trimmed: WaitQueue,
    /// Closed by who changes the node's row.
    row_changes: Rc<Gate>,
    mark: FaultMark,
    io_timeout: Duration,
}

/// What a volume is opened with.
pub(crate) struct OpenVolume {
    pub(crate) id: ResourceId,
    pub(crate) row: ResourceRow,
    pub(crate) shared: Arc<VolumeShared>,
    /// Number of the last start that followed an unclean stop.
    pub(crate) unclean: u64,
    pub(crate) io_timeout: Duration,
    pub(crate) background: Rc<Background>,
}

impl Volume {
    pub(crate) async fn open(
        open: OpenVolume,
        pool: Rc<PoolContext>,
        meta: Arc<dyn MetaStore>,
        nodes: Rc<Nodes>,
        budget: Rc<Budget>,
    ) -> Result<Rc<Volume>> {
        let head = nodes.get(open.row.node).await?;
        let mut row = head.row();
        // Its generation may be taken up again only if no unclean stop came between.
        if row.run < open.unclean {
            row.current = None;
            head.set_row(row);
        }
        if row.state == NodeState::Head {
            open.shared.cut.store(row.cut.get(), Ordering::Release);
        }
        let mark = FaultMark::opened(open.id, &row, &open.shared);
        Ok(Rc::new_cyclic(|me| Volume {
            me: me.clone(),
            id: open.id,
            read_only: row.state != NodeState::Head,
            head: RefCell::new(head),
            nodes,
            views: Views::new(budget.clone()),
            shares: Cell::new(false),
            switching: Switching::default(),
            pool,
            meta,
            shared: open.shared,
            budget,
            locks: Rc::default(),
            gate: Rc::default(),
            epochs: Rc::default(),
            syncs: Rc::default(),
            unsynced: RefCell::default(),
            dead: RefCell::default(),
            counts: RefCell::default(),
            flush: FlushState::default(),
            filling: Filling::default(),
            background: open.background,
            peers: Peers::new(open.id),
            claims: OnceCell::new(),
            many_cores: peers::many_cores(),
            trimming: Cell::new(false),
            trimmed: WaitQueue::default(),
            row_changes: Rc::default(),
            mark,
            io_timeout: open.io_timeout,
        }))
    }

    /// What runs on this core.
    pub(crate) fn epochs(&self) -> Rc<Epochs> {
        self.epochs.clone()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The node that is written to now. An operation keeps what it has found: it publishes there.
    fn head(&self) -> Rc<Node> {
        self.head.borrow().clone()
    }

    fn head_ref(&self) -> Ref<'_, Rc<Node>> {
        self.head.borrow()
    }

    fn is_head(&self, node: &Rc<Node>) -> bool {
        Rc::ptr_eq(&self.head.borrow(), node)
    }

    pub(crate) fn node(&self) -> NodeId {
        self.head_ref().id()
    }

    pub(crate) fn size(&self) -> u64 {
        self.shared.size()
    }

    /// Runs an operation to its end at the store, and gives up waiting for it when its lease has run
    /// out. What it holds it keeps until it has ended.
    fn limited<T: 'static>(
        &self,
        what: &'static str,
        lease: Lease,
        operation: impl Future<Output = Result<T>> + 'static,
    ) -> impl Future<Output = Result<T>> {
        limited(what, self.id, lease, operation)
    }

    fn check_fault(&self) -> Result<()> {
        self.shared.check_fault(self.id)
    }

    fn check_open(&self) -> Result<()> {
        self.shared.check_open(self.id)
    }

    /// Waits until nothing runs on the volume, makes it durable, and lets nothing begin any more.
    /// A clean stop then keeps the generation by the returned row, of the start numbered `run`.
    pub(crate) async fn retire(self: &Rc<Self>, run: u64) -> Result<NodeRow> {
        let fence = self.fence().await?;
        self.shared.retired.store(true, Ordering::Release);
        drop(fence);
        let volume = self.clone();
        // A trim changes the map and the row as I/O does.
        let quiet = run_to_end(async move {
            let trim_ended = || (!volume.trimming.get()).then_some(());
            volume.trimmed.until(trim_ended).await;
            volume.switching.drained().await;
            volume.flush_inside().await
        });
        match timeout(self.io_timeout, quiet).await {
            Ok(flushed) => flushed?,
            Err(_) => {
                self.shared.retired.store(false, Ordering::Release);
                self.start_trim();
                return Err(self.busy());
            }
        }
        let row = NodeRow {
            run,
            ..self.head_ref().row()
        };
        Ok(row)
    }

    fn busy(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            format!(
                "volume {}: its running I/O did not end in time; try again",
                self.id
            ),
        )
    }

    /// After it was retired: other cores forget it.
    pub(crate) fn dismiss_peers(&self) {
        self.peers.dismiss();
    }

    /// The generation for new objects of a node; none if it is not the head any more, and has none.
    async fn current_generation(&self, node: &Rc<Node>) -> Result<Option<Generation>> {
        if let Some(generation) = node.row().current {
            return Ok(Some(generation));
        }
        let fresh = self.pool.generations.fresh().await?;
        // Another task may have taken one meanwhile; a generation left unused costs nothing. Once it is not the head,
        // its child's cut may be below this one.
        if !self.is_head(node) {
            return Ok(None);
        }
        let row = node.row();
        let current = row.current.unwrap_or(fresh);
        node.set_row(NodeRow {
            current: Some(current),
            ..row
        });
        Ok(Some(current))
    }

    /// An object leaves the map in this turn: its name is never used again (M3), and it is deleted
    /// after the commit that drops it.
    fn bury(&self, node: &Node, id: ObjectId, partial: bool) {
        self.give_up_generation(node, id.generation);
        if partial {
            node.partials.forget(id);
        }
        self.nodes.moved();
        self.unsynced.borrow_mut().remove(&id);
        self.dead.borrow_mut().push(id);
    }

    /// An object of this generation leaves the map of a node, which creates no more objects in it.
    fn give_up_generation(&self, node: &Node, generation: Generation) {
        let row = node.row();
        if row.current == Some(generation) {
            node.set_row(NodeRow {
                current: None,
                ..row
            });
        }
    }

    /// All that an entry of a node named leaves the map in this turn.
    fn bury_chain(&self, node: &Node, chain: Chain) {
        for (id, partial) in chain.objects {
            self.bury(node, id, partial.is_some());
        }
        if let Some(reference) = chain.reference {
            self.count(reference, -1);
        }
    }

    /// Something of the object may have been written.
    fn wrote(&self, id: ObjectId) {
        self.unsynced.borrow_mut().insert(id);
        self.changed();
    }

    /// The next flush commits this node too, which is not the head.
    fn also(&self, node: &Rc<Node>) {
        let mut also = self.switching.also.borrow_mut();
        if !also.iter().any(|other| Rc::ptr_eq(other, node)) {
            also.push(node.clone());
            node.pledged.set(true);
        }
    }

    /// One more or less names a ref, as of the next commit.
    fn count(&self, reference: RefId, more: i64) {
        *self.counts.borrow_mut().entry(reference).or_default() += more;
    }
}

/// Runs an operation to its end at the store; who waits is told when its lease has run out. Awaited at once.
fn limited<T: 'static>(
    what: &'static str,
    id: ResourceId,
    lease: Lease,
    operation: impl Future<Output = Result<T>> + 'static,
) -> impl Future<Output = Result<T>> {
    // Boxed before anything awaits it: else it would be a part of every future above, and moved with each.
    let running = run_to_end(operation);
    async move {
        let Some(deadline) = lease.deadline else {
            return running.await;
        };
        let outcome = timeout_at(deadline, running).await;
        outcome.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("{what} of volume {id}: no answer in time"),
            ))
        })
    }
}

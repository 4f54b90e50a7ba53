//! A writable resource on its home core: the map of its head node, and reading, writing and
//! unmapping by it; and what other cores do of it (`outpost`). Which protocol asks, and how objects
//! are stored, is not its business.

mod atomic;
mod claiming;
mod fault;
mod flush;
mod io;
mod lease;
pub(crate) mod outpost;
mod partials;
mod peers;
mod pieces;
mod probe;
mod resize;
mod table;

pub use atomic::MapExtent;
pub(crate) use io::Zeroing;
pub use io::{MAX_IO_BYTES, Segments};
pub(crate) use lease::Lease;
pub(crate) use peers::Users;

use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{NodeRow, ResourceRow};
use crate::local::{Epochs, Gate, RangeLocks, WaitQueue, run_to_end};
use crate::meta::MetaStore;
use crate::pool::PoolContext;
use crate::types::{NodeId, ResourceId};
use atoll_backends::{Generation, ObjectId};
use atoll_reactor::{core_id, timeout, timeout_at};
use claiming::HomeClaims;
use crossbeam::utils::CachePadded;
use fault::FaultMark;
use flush::FlushState;
use hashbrown::HashSet;
use partials::Partials;
use peers::Peers;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use table::PageTable;

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
    faulted: AtomicBool,
    /// It is being closed, or closed.
    retired: AtomicBool,
    /// By core.
    counters: Box<[CachePadded<VolumeCounters>]>,
}

impl VolumeShared {
    pub(crate) fn new(size: u64, cores: usize) -> Arc<VolumeShared> {
        Arc::new(VolumeShared {
            size: AtomicU64::new(size),
            faulted: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            counters: (0..cores).map(|_| CachePadded::default()).collect(),
        })
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
    node: NodeId,
    pool: Rc<PoolContext>,
    meta: Arc<dyn MetaStore>,
    shared: Arc<VolumeShared>,
    node_row: RefCell<NodeRow>,
    table: Rc<PageTable>,
    partials: Rc<Partials>,
    budget: Rc<Budget>,
    locks: Rc<RangeLocks>,
    gate: Rc<Gate>,
    epochs: Rc<Epochs>,
    /// Syncs at the store that run.
    syncs: Rc<Epochs>,
    /// Where new objects are created; none taken yet, or the last one was given up.
    current: Cell<Option<Generation>>,
    /// Objects with writes that no sync has taken yet.
    unsynced: RefCell<HashSet<ObjectId>>,
    /// Objects that left the map since the last commit took them.
    dead: RefCell<Vec<ObjectId>>,
    flush: FlushState,
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
    pub(crate) node_row: NodeRow,
    pub(crate) shared: Arc<VolumeShared>,
    /// The head's generation may be taken up again: no unclean stop came between.
    pub(crate) resume_generation: bool,
    pub(crate) io_timeout: Duration,
}

impl Volume {
    pub(crate) fn open(
        open: OpenVolume,
        pool: Rc<PoolContext>,
        meta: Arc<dyn MetaStore>,
        budget: Rc<Budget>,
    ) -> Rc<Volume> {
        let node = open.row.node;
        let current = open.node_row.current.filter(|_| open.resume_generation);
        let mark = FaultMark::opened(open.id, &open.node_row, &open.shared);
        Rc::new_cyclic(|me| Volume {
            me: me.clone(),
            id: open.id,
            node,
            table: PageTable::new(node, meta.clone(), budget.clone()),
            partials: Partials::new(pool.number, pool.object_size, meta.clone(), budget.clone()),
            pool,
            meta,
            shared: open.shared,
            node_row: RefCell::new(open.node_row),
            budget,
            locks: Rc::default(),
            gate: Rc::default(),
            epochs: Rc::default(),
            syncs: Rc::default(),
            current: Cell::new(current),
            unsynced: RefCell::default(),
            dead: RefCell::default(),
            flush: FlushState::default(),
            peers: Peers::new(open.id),
            claims: OnceCell::new(),
            many_cores: peers::many_cores(),
            trimming: Cell::new(false),
            trimmed: WaitQueue::default(),
            row_changes: Rc::default(),
            mark,
            io_timeout: open.io_timeout,
        })
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
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
            current: self.current.get(),
            run,
            ..*self.node_row.borrow()
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

    /// The generation for new objects.
    async fn current_generation(&self) -> Result<Generation> {
        if let Some(generation) = self.current.get() {
            return Ok(generation);
        }
        let fresh = self.pool.generations.fresh().await?;
        // Another task may have taken one meanwhile; a generation left unused costs nothing.
        match self.current.get() {
            Some(generation) => Ok(generation),
            None => {
                self.current.set(Some(fresh));
                Ok(fresh)
            }
        }
    }

    /// An object leaves the map in this turn: its name is never used again (M3), and it is deleted
    /// after the commit that drops it.
    fn bury(&self, id: ObjectId, partial: bool) {
        if self.current.get() == Some(id.generation) {
            self.current.set(None);
        }
        if partial {
            self.partials.forget(id);
        }
        self.unsynced.borrow_mut().remove(&id);
        self.dead.borrow_mut().push(id);
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

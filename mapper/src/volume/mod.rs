//! A writable resource on its home core: the map of its head node, and reading, writing and
//! unmapping by it. Which protocol asks, and how objects are stored, is not its business.

mod flush;
mod io;
mod partials;
mod pieces;
mod resize;
mod table;

pub(crate) use io::Zeroing;
pub use io::{MAX_IO_BYTES, Segments};

use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{NodeRow, ResourceRow};
use crate::local::{Epochs, Gate, RangeLocks, WaitQueue, run_to_end};
use crate::meta::MetaStore;
use crate::pool::PoolContext;
use crate::types::{NodeId, ResourceId};
use atoll_backends::{Generation, ObjectId};
use atoll_reactor::timeout;
use flush::FlushState;
use hashbrown::HashSet;
use partials::Partials;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use table::PageTable;

/// Counters of a volume since its opening.
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
    pub counters: VolumeCounters,
}

impl VolumeShared {
    pub(crate) fn new(size: u64) -> Arc<VolumeShared> {
        Arc::new(VolumeShared {
            size: AtomicU64::new(size),
            faulted: AtomicBool::new(false),
            counters: VolumeCounters::default(),
        })
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
    retired: Cell<bool>,
    trimming: Cell<bool>,
    trimmed: WaitQueue,
    /// Closed by who changes the node's row.
    row_changes: Rc<Gate>,
    fault: RefCell<Option<Error>>,
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
            retired: Cell::new(false),
            trimming: Cell::new(false),
            trimmed: WaitQueue::default(),
            row_changes: Rc::default(),
            fault: RefCell::default(),
            io_timeout: open.io_timeout,
        })
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn size(&self) -> u64 {
        self.shared.size()
    }

    /// Runs an operation to its end at the store, and gives up waiting for it after the time limit.
    /// What it holds it keeps until it has ended.
    async fn limited<T: 'static>(
        self: &Rc<Self>,
        what: &'static str,
        operation: impl Future<Output = Result<T>> + 'static,
    ) -> Result<T> {
        let outcome = timeout(self.io_timeout, run_to_end(operation)).await;
        let result = outcome.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{what} of volume {}: no answer within {:?}",
                    self.id, self.io_timeout
                ),
            ))
        });
        if result.is_err() {
            self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Refuses when a sync or commit has failed: what was acknowledged before may be lost, so that
    /// neither new writes nor what reads show could be trusted (M4).
    fn check_fault(&self) -> Result<()> {
        match &*self.fault.borrow() {
            None => Ok(()),
            Some(error) => Err(Error::new(
                ErrorKind::Faulted,
                format!(
                    "volume {} answers no I/O since a flush failed ({error}); stop the daemon, run \
                     `atoll fsck`, start it again",
                    self.id
                ),
            )),
        }
    }

    /// Sticky: nothing more is acknowledged.
    fn set_fault(&self, error: &Error) {
        let mut fault = self.fault.borrow_mut();
        if fault.is_none() {
            tracing::error!(volume = %self.id, %error, "flush failed; the volume answers no more I/O");
            *fault = Some(error.duplicate());
            self.shared.faulted.store(true, Ordering::Release);
        }
    }

    /// Waits until nothing runs on the volume, makes it durable, and lets nothing begin any more.
    /// A clean stop then keeps the generation by the returned row, of the start numbered `run`.
    pub(crate) async fn retire(self: &Rc<Self>, run: u64) -> Result<NodeRow> {
        let busy = |_| {
            Error::new(
                ErrorKind::Busy,
                format!(
                    "volume {}: its running I/O did not end in time; try again",
                    self.id
                ),
            )
        };
        let closed = timeout(self.io_timeout, self.gate.close())
            .await
            .map_err(busy)?;
        self.retired.set(true);
        drop(closed);
        let volume = self.clone();
        // A trim changes the map and the row as I/O does.
        let quiet = run_to_end(async move {
            let trim_ended = || (!volume.trimming.get()).then_some(());
            volume.trimmed.until(trim_ended).await;
            volume.flush_inside().await
        });
        match timeout(self.io_timeout, quiet).await {
            Ok(flushed) => flushed?,
            Err(late) => {
                self.retired.set(false);
                self.start_trim();
                return Err(busy(late));
            }
        }
        let row = NodeRow {
            current: self.current.get(),
            run,
            ..*self.node_row.borrow()
        };
        Ok(row)
    }

    /// It is deleted although it could not be retired: nothing of it is committed any more.
    pub(crate) fn abandon(&self, error: &Error) {
        self.set_fault(error);
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

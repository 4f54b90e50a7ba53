//! The catalogue: which pools, resources and exports there are. It lives on core 0, where its verbs run
//! one after the other; what a volume does with its data is the volume's business.
//!
//! **Invariant:** every change is one atomic batch of the metadata store (M7).

mod collect;
mod copies;
mod exports;
mod faults;
mod leaks;
mod pools;
mod snapshots;
mod start;
mod tree;
mod usage;
mod volumes;

pub use copies::Copied;
pub use exports::ExportInfo;
pub use faults::{clear_faults, faulted_pools};
pub use pools::{NewPool, PoolFactory, PoolInfo};
pub use snapshots::{FlattenProgress, NewClone, NewSnapshot, TreeNode};
pub(crate) use start::start;
pub use usage::{GcStatus, LeakScan, PoolUsage};
pub use volumes::{MAX_VOLUME_SIZE, MIN_VOLUME_SIZE, NewVolume, VOLUME_SIZE_UNIT, VolumeInfo};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{CounterKind, CounterRow, ExportRow, Key, PoolRow, Protocol, ResourceRow};
use crate::handle::on_core;
use crate::local::{Gate, WaitQueue};
use crate::meta::{Batch, Durability, MetaStore};
use crate::types::{NodeId, PoolNumber, ResourceId, ResourceName};
use crate::volume::VolumeShared;
use atoll_backends::{Generation, Pool};
use atoll_reactor::{CoreHandle, local};
use collect::Collector;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tree::Tree;

/// How the mapper is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapperConfig {
    /// Bytes of resident map per core.
    pub page_memory: usize,
    /// How long an operation may wait for its store before its initiator is told.
    pub io_timeout: Duration,
    pub gc: GcConfig,
}

/// What the background may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GcConfig {
    /// Operations at pools and steps in maps per second that the garbage collector, the leak scan and the filler may
    /// make together. 0: as many as they can.
    pub max_iops: u32,
    /// Completes objects that are half written, so that what is below them is not needed.
    pub fill: bool,
}

impl Default for GcConfig {
    fn default() -> GcConfig {
        GcConfig {
            max_iops: 2000,
            fill: true,
        }
    }
}

impl Default for MapperConfig {
    fn default() -> MapperConfig {
        MapperConfig {
            page_memory: 64 << 20,
            io_timeout: Duration::from_secs(30),
            gc: GcConfig::default(),
        }
    }
}

pub(crate) struct PoolEntry {
    row: PoolRow,
    /// Keeps it open, exclusively.
    _pool: Arc<dyn Pool>,
    /// End of the reserved generations, exclusive.
    mark: Cell<Generation>,
    /// The highest mark that the pool itself has taken durably.
    kept: Cell<Generation>,
    /// Generations from here on were never used before this run. As the catalogue has it: a pool whose own mark is higher
    /// may have objects that this catalogue, if it is an old copy, does not know.
    before: Generation,
    /// Those below in which a head may go on, as the rows of all heads said when this run began.
    resumable: RefCell<BTreeSet<Generation>>,
}

pub(crate) struct ResourceEntry {
    row: ResourceRow,
    /// Set while it is open.
    open: RefCell<Option<(CoreHandle, Arc<VolumeShared>)>>,
    /// A deletion closed it, and then could not be committed.
    closed: Cell<Closed>,
}

/// How a volume was left that is there still.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Closed {
    #[default]
    Never,
    /// Durably. What the store says of its generation may be old.
    Flushed,
    /// Its last changes are lost.
    Abandoned,
}

impl ResourceEntry {
    fn new(row: ResourceRow) -> ResourceEntry {
        ResourceEntry {
            row,
            open: RefCell::default(),
            closed: Cell::default(),
        }
    }
}

pub(crate) struct Catalogue {
    meta: Arc<dyn MetaStore>,
    factory: Arc<dyn PoolFactory>,
    cores: Vec<CoreHandle>,
    /// Number of this start, and of the last one after an unclean stop.
    start: u64,
    unclean: u64,
    pools: RefCell<BTreeMap<PoolNumber, PoolEntry>>,
    resources: RefCell<BTreeMap<ResourceId, ResourceEntry>>,
    names: RefCell<BTreeMap<ResourceName, ResourceId>>,
    exports: RefCell<BTreeMap<(ResourceId, Protocol), ExportRow>>,
    /// Nodes that an earlier run left faulted.
    faulted: RefCell<BTreeSet<NodeId>>,
    tree: RefCell<Tree>,
    collector: Collector,
    /// Closed by who opens a resource.
    opening: Rc<Gate>,
    io_timeout: Duration,
    page_memory: usize,
    next_node: Cell<u64>,
    next_pool: Cell<u64>,
    next_ref: Cell<u64>,
    verb_runs: Cell<bool>,
    verbs: WaitQueue,
    stopping: Cell<bool>,
}

/// Held while a verb runs.
pub(crate) struct VerbGuard(Rc<Catalogue>);

impl Drop for VerbGuard {
    fn drop(&mut self) {
        self.0.verb_runs.set(false);
        self.0.verbs.notify();
    }
}

impl Catalogue {
    /// One verb at a time.
    async fn verb(self: &Rc<Self>) -> Result<VerbGuard> {
        self.verbs
            .until(|| (!self.verb_runs.replace(true)).then_some(()))
            .await;
        let guard = VerbGuard(self.clone());
        if self.stopping.get() {
            return Err(Error::new(ErrorKind::Closed, "the daemon is stopping"));
        }
        Ok(guard)
    }

    fn id_of(&self, name: &ResourceName) -> Result<ResourceId> {
        self.names
            .borrow()
            .get(name)
            .copied()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no volume \"{name}\"")))
    }

    fn row(&self, id: ResourceId) -> Result<ResourceRow> {
        let resources = self.resources.borrow();
        resources
            .get(&id)
            .map(|entry| entry.row.clone())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no resource {id}")))
    }

    /// A new node's number: no later start gives it out again, whatever becomes of it.
    async fn new_node(&self) -> Result<NodeId> {
        let number = self.next_node.get();
        let next = number + 1;
        self.next_node.set(next);
        let mut batch = Batch::new();
        batch.put_row(Key::counter(CounterKind::Node), &CounterRow { next });
        // No batch that names it is durable without this one before it.
        self.meta.commit(batch, Durability::Unsynced).await?;
        NodeId::new(number)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the counter of nodes is 0"))
    }

    /// The core on which a new volume is at home, by its place among the cores.
    fn home_of_new(&self, id: ResourceId) -> u16 {
        let number = u128::from_be_bytes(id.0) % self.cores.len() as u128;
        u16::try_from(number).expect("below the number of cores")
    }

    /// The core on which a node's tree is at home.
    fn home(&self, node: NodeId) -> Result<CoreHandle> {
        let home = self.tree.borrow().get(node)?.home;
        Ok(self.cores[usize::from(home)].clone())
    }

    fn object_bytes(&self, pool: PoolNumber) -> Result<u64> {
        let pools = self.pools.borrow();
        let entry = pools
            .get(&pool)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no pool {pool}")))?;
        Ok(u64::from(entry.row.object_size.bytes()))
    }
}

/// Where a core's generations of one pool come from.
pub(crate) struct ChunkSource {
    pub(crate) catalogue: CoreHandle,
    pub(crate) pool: PoolNumber,
}

impl ChunkSource {
    /// The start of a chunk of generations that is reserved durably, in the catalogue and in the pool.
    pub(crate) async fn reserve(&self) -> Result<Generation> {
        let pool = self.pool;
        on_core(&self.catalogue, move || async move {
            catalogue()?.reserve_chunk(pool).await
        })
        .await
    }
}

/// The catalogue; on core 0 only.
pub(crate) fn catalogue() -> Result<Rc<Catalogue>> {
    local().ok_or_else(|| Error::new(ErrorKind::Closed, "the mapper is not running"))
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

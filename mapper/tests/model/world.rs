//! What outlives a crash (metadata, pool, model), and one life of the mapper upon it.

use crate::history::{self, Progress};
use crate::oracle::{Moment, ResourceModel};
use crate::quiet;
use atoll_backends::{
    Chaos, ChaosHandle, ChaosOptions, MemoryOptions, MemoryPool, ObjectSize, Pool,
};
use atoll_mapper::format::PoolRow;
use atoll_mapper::meta::SimMeta;
use atoll_mapper::{PoolFactory, Result};
use atoll_reactor::LocalFuture;
use atoll_reactor::sim::Sim;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

pub const OBJECT_SIZE: u32 = 64 << 10;

/// Simulator steps of one life, at most, before the power goes.
const MAX_LIFE: u64 = 6_000;

/// A snapshot between its verb's beginning and its end.
#[derive(Clone, Debug)]
pub struct PendingSnapshot {
    pub id: u64,
    pub name: String,
    pub volume: String,
    /// As the volume counts.
    pub begun: Moment,
    /// The same for all that are created together.
    pub group: u64,
}

/// What the tasks of a life and the world share.
#[derive(Clone)]
pub struct Shared {
    pub rng: ChaCha8Rng,
    pub resources: BTreeMap<String, ResourceModel>,
    /// Snapshots that are being created, or that a crash cut.
    pub pending: Vec<PendingSnapshot>,
    /// Resources that a verb is changing, or needs as they are.
    pub claimed: BTreeSet<String>,
    pub progress: Progress,
    pub next_id: u64,
    pub next_stamp: u32,
    /// The power has gone since the volumes were last verified: what is not durable may be lost.
    pub crashed: bool,
    /// The life ended by a clean stop.
    pub stopped: bool,
    /// The life is over: nothing more is submitted.
    pub ended: bool,
    /// A stop failed: only the power button is left.
    pub hopeless: bool,
    /// Errors are injected in this life.
    pub faults: bool,
}

impl Shared {
    pub fn new(seed: u64) -> Shared {
        Shared {
            rng: ChaCha8Rng::seed_from_u64(seed),
            resources: BTreeMap::new(),
            pending: Vec::new(),
            claimed: BTreeSet::new(),
            progress: Progress::default(),
            next_id: 1,
            next_stamp: 1,
            crashed: false,
            stopped: false,
            ended: false,
            hopeless: false,
            faults: false,
        }
    }
}

impl Shared {
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A snapshot exists, and with it the writes that were acknowledged before it was asked for.
    pub fn is_snapshot(&mut self, pending: &PendingSnapshot) {
        let volume = self.resources.get_mut(&pending.volume);
        let volume = volume.expect("nobody deletes it meanwhile");
        volume.flush_ends(pending.begun);
        let mut model = volume.copy_since(pending.begun, pending.id, &pending.name);
        model.is_snapshot = true;
        self.resources.insert(pending.name.clone(), model);
    }
}

pub type SharedRef = Rc<RefCell<Shared>>;

pub struct World {
    seed: u64,
    lives: u64,
    meta: SimMeta,
    pool: Arc<dyn Pool>,
    chaos: ChaosHandle,
    shared: SharedRef,
}

struct OnePool(Arc<dyn Pool>);

impl PoolFactory for OnePool {
    fn open(&self, _row: &PoolRow, _unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        LocalFuture::ready(Ok(self.0.clone()))
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let memory = MemoryPool::new(MemoryOptions {
            object_size: ObjectSize::new(OBJECT_SIZE).expect("valid"),
            capacity: 1 << 30,
            zeroes_new: seed.is_multiple_of(2),
        });
        let options = ChaosOptions {
            seed,
            atomic_unit: 512,
        };
        let (chaos, handle) = Chaos::new(Arc::new(memory), options);
        World {
            seed,
            lives: 0,
            meta: SimMeta::new(seed),
            pool: Arc::new(chaos),
            chaos: handle,
            shared: Rc::new(RefCell::new(Shared::new(seed))),
        }
    }

    pub fn progress(&self) -> Progress {
        self.shared.borrow().progress.clone()
    }

    /// One life: start, verify, work, and an end by power loss, kill or clean stop.
    pub fn live(&mut self) {
        self.lives += 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.lives);
        let (cores, steps) = {
            let mut shared = self.shared.borrow_mut();
            shared.stopped = false;
            shared.hopeless = false;
            shared.claimed.clear();
            shared.faults = shared.rng.random_bool(0.2);
            (
                shared.rng.random_range(1..=3),
                shared.rng.random_range(50..MAX_LIFE),
            )
        };
        let mut sim = Sim::new(seed, cores);
        let factory = Arc::new(OnePool(self.pool.clone()));
        let (meta, shared) = (Arc::new(self.meta.clone()), self.shared.clone());
        let chaos = self.chaos.clone();
        drop(sim.spawn(
            atoll_reactor::CoreId(0),
            history::life(meta, factory, Some(chaos), shared),
        ));
        let mut left = steps;
        while left > 0 && !self.shared.borrow().stopped && sim.step() {
            left -= 1;
        }
        let stopped = self.shared.borrow().stopped;
        drop(sim.crash());
        let mut after = Sim::new(seed ^ 1, 1);
        if stopped {
            self.shared.borrow_mut().progress.clean_stops += 1;
            self.meta = self.meta.reopen();
        } else {
            assert!(
                left == 0 || self.shared.borrow().hopeless,
                "the simulation stalled"
            );
            {
                let mut shared = self.shared.borrow_mut();
                shared.progress.crashes += 1;
                shared.crashed = true;
            }
            // A killed process: what was complete stays, undurable as it was. Not where syncs were made to
            // fail: that what a failed sync lost shows until the power goes is not remembered over a start.
            let killed = seed.is_multiple_of(3) && !self.shared.borrow().faults;
            self.meta = match killed {
                true => self.meta.reopen(),
                false => self.meta.crash(seed),
            };
            let chaos = self.chaos.clone();
            after.block_on(async move {
                chaos.heal();
                let ended = match killed {
                    true => chaos.kill(seed).await,
                    false => chaos.crash(seed).await,
                };
                ended.expect("the memory behind works");
            });
        }
        quiet::check_stores(&mut after, self.meta.clone(), self.pool.clone());
    }
}

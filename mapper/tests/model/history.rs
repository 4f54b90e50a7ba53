//! One life of the mapper: verify what the last one left, then rounds of random operations, with verbs on
//! the same resources and on others between and meanwhile.

use crate::oracle::{Existence, Moment, ResourceModel};
use crate::world::{OBJECT_SIZE, SharedRef};
use atoll_backends::chaos::{Fault, Op};
use atoll_backends::{ChaosHandle, ErrorKind as StoreError, ObjectSize, PoolId};
use atoll_mapper::format::{LogicalBlock, PoolKind};
use atoll_mapper::meta::MetaStore;
use atoll_mapper::types::{InstanceId, ResourceId, ResourceName};
use atoll_mapper::{
    Error, ErrorKind, GcConfig, Mapper, MapperConfig, NewPool, NewVolume, PoolFactory,
};
use atoll_reactor::{JoinHandle, cores, sleep, spawn};
use rand::Rng;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

macro_rules! progress {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What happened, to be sure that something did.
        #[derive(Clone, Default, Debug)]
        pub struct Progress {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Progress {
            pub fn add(&mut self, other: &Progress) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

progress! {
    operations,
    writes,
    unmaps,
    flushes,
    resizes,
    created,
    deleted,
    snapshots,
    clones,
    rollbacks,
    flattened,
    copies,
    /// Moments at which nothing ran and the garbage was looked at.
    quiet,
    errors,
    crashes,
    clean_stops,
    /// Sectors compared after a start.
    verified,
}

pub const POOL_ID: PoolId = PoolId([9; 16]);
const MAX_VOLUMES: usize = 4;
/// Largest volume: over two pages of 512 objects.
pub const MAX_VOLUME: u64 = 1100 * OBJECT_SIZE as u64;
/// Longer than a sync at the store takes.
const SYNC_ENDS: Duration = Duration::from_secs(1);
pub const MIN_VOLUME: u64 = 1 << 20;
/// Bytes of resident map, one chosen per life: with the least nearly everything is evicted all the time, with
/// more pages go while their group stays.
const PAGE_MEMORY: [usize; 4] = [12 << 10, 24 << 10, 36 << 10, 48 << 10];
/// What the background may do per second, one chosen per life; 0 is all that it can.
const GC_IOPS: [u32; 6] = [0, 0, 0, 0, 200, 2000];

pub fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a valid name")
}

/// Runs until it is dropped, or the mapper was stopped cleanly. Faults come by `chaos` if there is one.
pub async fn life(
    meta: Arc<dyn MetaStore>,
    factory: Arc<dyn PoolFactory>,
    chaos: Option<ChaosHandle>,
    shared: SharedRef,
) {
    let config = {
        let rng = &mut shared.borrow_mut().rng;
        MapperConfig {
            page_memory: PAGE_MEMORY[rng.random_range(0..PAGE_MEMORY.len())],
            io_timeout: Duration::from_secs(30),
            gc: GcConfig {
                max_iops: GC_IOPS[rng.random_range(0..GC_IOPS.len())],
                fill: rng.random_bool(0.5),
            },
        }
    };
    let mapper = Mapper::start(meta.clone(), factory, InstanceId([7; 16]), cores(), config)
        .await
        .expect("the mapper starts on what is left");
    let pool = NewPool {
        name: name("main"),
        id: POOL_ID,
        kind: PoolKind::File,
        object_size: ObjectSize::new(OBJECT_SIZE).expect("valid"),
        options: String::new(),
    };
    match mapper.add_pool(pool).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
    }
    let life = Life {
        mapper,
        meta,
        shared,
        chaos,
    };
    life.verify_all().await;
    life.arm_faults();
    loop {
        match life.random(0..1000) {
            0..50 => life.create().await,
            50..60 => life.quiet().await,
            160..163 => {
                life.heal();
                if life.stop().await {
                    return;
                }
            }
            _ => life.round().await,
        }
    }
}

/// One life, as its tasks have it.
#[derive(Clone)]
pub struct Life {
    pub mapper: Mapper,
    pub meta: Arc<dyn MetaStore>,
    pub shared: SharedRef,
    pub chaos: Option<ChaosHandle>,
}

impl Life {
    fn arm_faults(&self) {
        let Some(chaos) = &self.chaos else { return };
        if self.shared.borrow().faults {
            for (op, probability) in [
                (Op::Write, 0.01),
                (Op::Read, 0.01),
                (Op::Sync, 0.02),
                (Op::WriteZeroes, 0.01),
                (Op::Delete, 0.01),
            ] {
                chaos.fail_with_probability(op, probability, Fault::Error(StoreError::Io));
            }
        }
        for op in [Op::Write, Op::Read, Op::Sync, Op::WriteZeroes, Op::Delete] {
            chaos.delay(op, Duration::ZERO..Duration::from_millis(3));
        }
    }

    fn heal(&self) {
        if let Some(chaos) = &self.chaos {
            chaos.heal();
        }
    }

    pub fn random(&self, range: Range<u64>) -> u64 {
        self.shared.borrow_mut().rng.random_range(range)
    }

    pub fn count(&self, what: impl FnOnce(&mut Progress)) {
        let mut shared = self.shared.borrow_mut();
        shared.progress.operations += 1;
        what(&mut shared.progress);
    }

    /// Names of the resources that are like this.
    pub fn names(&self, like: impl Fn(&ResourceModel) -> bool) -> Vec<String> {
        let shared = self.shared.borrow();
        let all = shared.resources.values().filter(|model| like(model));
        all.map(|model| model.name.clone()).collect()
    }

    pub fn pick(&self, like: impl Fn(&ResourceModel) -> bool) -> Option<String> {
        let mut names = self.names(like);
        if names.is_empty() {
            return None;
        }
        let place = self.random(0..names.len() as u64);
        Some(names.swap_remove(place as usize))
    }

    pub fn with<R>(&self, resource: &str, f: impl FnOnce(&mut ResourceModel) -> R) -> R {
        f(self
            .shared
            .borrow_mut()
            .resources
            .get_mut(resource)
            .expect("a resource of the model"))
    }

    /// Runs beside the rest of the round.
    pub fn task<F, Fut>(&self, work: F) -> JoinHandle<()>
    where
        F: FnOnce(Life) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let life = self.clone();
        spawn(async move {
            if life.shared.borrow().ended {
                // The model has been taken away: nothing may be submitted behind its back.
                return std::future::pending().await;
            }
            work(life).await;
        })
    }

    /// One of few names that nothing has, so that they are used again.
    pub fn free_name(&self, letter: char, most: u64) -> Option<String> {
        let text = format!("{letter}{}", self.random(0..most));
        let shared = self.shared.borrow();
        let is_free = !shared.resources.contains_key(&text)
            && shared.pending.iter().all(|pending| pending.name != text);
        is_free.then_some(text)
    }

    pub fn has_room_for_a_volume(&self) -> bool {
        self.names(|model| !model.is_snapshot).len() < MAX_VOLUMES
    }

    async fn create(&self) {
        if !self.has_room_for_a_volume() {
            return;
        }
        let blocks = self.random(MIN_VOLUME / 4096..MAX_VOLUME / 4096);
        let Some(text) = self.free_name('v', 6) else {
            return;
        };
        let id = {
            let mut shared = self.shared.borrow_mut();
            let id = shared.new_id();
            let mut model = ResourceModel::new(id, text.clone(), blocks * 4096);
            model.existence = Existence::InDoubt;
            shared.resources.insert(text.clone(), model);
            id
        };
        let new = NewVolume {
            id: resource_id(id),
            name: name(&text),
            size: blocks * 4096,
            block: LogicalBlock::Bytes512,
            pool: name("main"),
        };
        self.mapper
            .create_volume(new)
            .await
            .expect("a volume is created");
        self.with(&text, |model| model.existence = Existence::Sure);
        self.count(|progress| progress.created += 1);
    }

    /// An error of an operation on these resources is one that the injected faults explain.
    pub async fn expect_fault(&self, error: &Error, resources: &[&str]) {
        assert!(
            self.shared.borrow().faults,
            "an error where none was injected: {error}"
        );
        match error.kind() {
            ErrorKind::Io | ErrorKind::Faulted => {}
            ErrorKind::Corrupt => {
                // A sync that fails loses objects before the volume hears of it: it does soon.
                sleep(SYNC_ENDS).await;
                let mut faulted = false;
                for resource in resources {
                    let info = self.mapper.volume(name(resource)).await;
                    faulted |= info.is_ok_and(|info| info.faulted);
                }
                assert!(faulted, "{resources:?}: {error}");
            }
            kind => panic!("{resources:?}: {kind:?} {error}"),
        }
        self.shared.borrow_mut().progress.errors += 1;
    }

    /// True if the stop was clean.
    async fn stop(&self) -> bool {
        let begun: Vec<(String, Moment)> = self
            .names(|_| true)
            .into_iter()
            .map(|volume| {
                let begun = self.with(&volume, ResourceModel::flush_begins);
                (volume, begun)
            })
            .collect();
        match self.mapper.stop().await {
            Ok(()) => {
                for (volume, begun) in begun {
                    self.with(&volume, |model| model.flush_ends(begun));
                }
                self.shared.borrow_mut().stopped = true;
                true
            }
            Err(error) => {
                assert!(self.shared.borrow().faults, "{error}");
                self.shared.borrow_mut().hopeless = true;
                // Not clean: only the power button is left.
                std::future::pending().await
            }
        }
    }
}

pub fn resource_id(id: u64) -> ResourceId {
    ResourceId(u128::from(id).to_be_bytes())
}

//! A mapper with one pool on simulated cores, and what outlives it. What histories do is their own.

use atoll_backends::{
    Chaos, ChaosHandle, ChaosOptions, MemoryOptions, MemoryPool, ObjectId, ObjectSize, Pool, PoolId,
};
use atoll_mapper::format::{LogicalBlock, PoolKind, PoolRow};
use atoll_mapper::meta::{MetaStore, SimMeta};
use atoll_mapper::types::{InstanceId, PoolNumber, ResourceId, ResourceName};
use atoll_mapper::{
    GcConfig, Mapper, MapperConfig, NewClone, NewPool, NewSnapshot, NewVolume, PoolFactory, Result,
    VolumeHandle, fsck,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{Buf, CoreId, JoinHandle, LocalFuture, SharedBuf, cores, sleep, spawn};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

pub const OBJECT: u64 = 64 << 10;
pub const BLOCK: u64 = 4096;
pub const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// More looks than the collector needs for anything here.
const GC_PATIENCE: u32 = 100_000;
/// More objects than any history makes.
const MAX_LISTED: usize = 100_000;

/// Prints the seed if the history fails with it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with ATOLL_HISTORY_SEED={}", self.0);
        }
    }
}

/// Runs a history with so many seeds, or with that of `ATOLL_HISTORY_SEED` only.
pub fn with_seeds(count: u64, mut history: impl FnMut(u64)) {
    let one = std::env::var("ATOLL_HISTORY_SEED").ok();
    let one = one.map(|text| text.parse().expect("ATOLL_HISTORY_SEED is a number"));
    for seed in one.map_or(1..=count, |seed| seed..=seed) {
        let _named = Seed(seed);
        history(seed);
    }
}

/// One to three, drawn from the seed apart from what the pool is like.
pub fn some_cores(seed: u64) -> u16 {
    1 + (seed % 3) as u16
}

/// What outlives a life of the mapper.
pub struct World {
    seed: u64,
    lives: u64,
    pub meta: SimMeta,
    pool: Arc<dyn Pool>,
    pub chaos: ChaosHandle,
    /// What the background of the next life may do. At first: all that it can, and it fills nothing.
    pub gc: GcConfig,
}

/// One life, as a history sees it.
pub struct Life {
    pub mapper: Mapper,
    pub meta: SimMeta,
    pub chaos: ChaosHandle,
    /// Of the next resource that has no number of its own.
    next_id: Rc<Cell<u128>>,
}

struct OnePool(Arc<dyn Pool>);

impl PoolFactory for OnePool {
    fn open(&self, _row: &PoolRow, _unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        LocalFuture::ready(Ok(self.0.clone()))
    }
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a valid name")
}

impl World {
    /// With even seeds the pool zeroes new objects, with odd ones it does not.
    pub fn new(seed: u64) -> World {
        let memory = MemoryPool::new(MemoryOptions {
            object_size: ObjectSize::new(OBJECT as u32).expect("valid"),
            capacity: 1 << 30,
            zeroes_new: seed.is_multiple_of(2),
        });
        let options = ChaosOptions {
            seed,
            atomic_unit: 512,
        };
        let (pool, chaos) = Chaos::new(Arc::new(memory), options);
        World {
            seed,
            lives: 0,
            meta: SimMeta::new(seed),
            pool: Arc::new(pool),
            chaos,
            gc: GcConfig {
                max_iops: 0,
                fill: false,
            },
        }
    }

    fn sim(&mut self, cores: u16) -> Sim {
        self.lives += 1;
        Sim::new(self.seed.wrapping_mul(1_000_003) + self.lives, cores)
    }

    /// Runs a history to its end on one or two cores, drawn from the seed; then all cores stop.
    pub fn live<F: Future<Output = ()> + 'static>(&mut self, history: impl FnOnce(Life) -> F) {
        self.live_on(1 + (self.seed / 2 % 2) as u16, history);
    }

    pub fn live_on<F: Future<Output = ()> + 'static>(
        &mut self,
        cores: u16,
        history: impl FnOnce(Life) -> F,
    ) {
        let (mut sim, task) = self.begin(cores, history);
        sim.join(task);
        drop(sim.crash());
    }

    /// As [`World::live_on`], until a step before which `is_over`. True if the history had come to its end before.
    pub fn live_until<F: Future<Output = ()> + 'static>(
        &mut self,
        cores: u16,
        history: impl FnOnce(Life) -> F,
        mut is_over: impl FnMut() -> bool,
    ) -> bool {
        let (mut sim, mut task) = self.begin(cores, history);
        let mut cx = Context::from_waker(Waker::noop());
        let ended = loop {
            if Pin::new(&mut task).poll(&mut cx).is_ready() {
                break true;
            }
            if is_over() {
                break false;
            }
            assert!(sim.step(), "the simulation stalled");
        };
        drop(sim.crash());
        ended
    }

    fn begin<F: Future<Output = ()> + 'static>(
        &mut self,
        cores: u16,
        history: impl FnOnce(Life) -> F,
    ) -> (Sim, JoinHandle<()>) {
        let mut sim = self.sim(cores);
        let (meta, chaos, pool) = (self.meta.clone(), self.chaos.clone(), self.pool.clone());
        let (gc, lives) = (self.gc, self.lives);
        let task = sim.spawn(CoreId(0), async move {
            start(meta, chaos, pool, gc, lives).await
        });
        let life = sim.join(task);
        let task = sim.spawn(CoreId(0), history(life));
        (sim, task)
    }

    /// The machine loses power after the life that ended.
    pub fn lose_power(&mut self) {
        self.meta = self.meta.crash(self.seed ^ self.lives);
        let (chaos, seed) = (self.chaos.clone(), self.seed ^ self.lives);
        self.sim(1).block_on(async move {
            chaos.heal();
            chaos.crash(seed).await.expect("the memory behind works");
        });
    }

    /// The process ended, cleanly or not: what was done stays.
    pub fn end_process(&mut self) {
        self.meta = self.meta.reopen();
    }

    /// Nothing that was left breaks the format's rules.
    pub fn check(&mut self) {
        let report = self.report();
        assert!(report.is_clean(), "{:#?}", report.findings);
    }

    /// What a check says of what was left.
    pub fn report(&mut self) -> fsck::Report {
        let (meta, pool) = (self.meta.clone(), self.pool.clone());
        let report = self.sim(1).block_on(async move {
            let store = pool.attach().await.expect("the pool is there");
            let pools = [(PoolNumber::FIRST, store)];
            fsck::check(&meta, &pools, fsck::Options::default(), &mut |_| {}).await
        });
        report.expect("the metadata store is readable")
    }

    /// The collector had nothing left to do: the pool has what is reachable, or stays with that.
    pub fn check_collected(&mut self) {
        let (meta, pool) = (self.meta.clone(), self.pool.clone());
        let left = self.sim(1).block_on(async move {
            let store = pool.attach().await.expect("the pool is there");
            let (mut listed, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.list(cursor, 1000).await.expect("listed");
                listed.extend(page.objects);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let garbage = fsck::garbage(&meta, PoolNumber::FIRST).await;
            garbage.expect("a clean store").left_to_do(&listed)
        });
        assert!(left.is_empty(), "{left:#?}");
    }
}

async fn start(
    meta: SimMeta,
    chaos: ChaosHandle,
    pool: Arc<dyn Pool>,
    gc: GcConfig,
    lives: u64,
) -> Life {
    let store: Arc<dyn MetaStore> = Arc::new(meta.clone());
    let config = MapperConfig {
        page_memory: 64 << 10,
        io_timeout: IO_TIMEOUT,
        gc,
    };
    let factory = Arc::new(OnePool(pool));
    let mapper = Mapper::start(store, factory, InstanceId([7; 16]), cores(), config)
        .await
        .expect("the mapper starts on what is left");
    if mapper.pools().await.expect("pools are listed").is_empty() {
        let pool = NewPool {
            name: name("main"),
            id: PoolId([9; 16]),
            kind: PoolKind::File,
            object_size: ObjectSize::new(OBJECT as u32).expect("valid"),
            options: String::new(),
        };
        mapper.add_pool(pool).await.expect("a pool is added");
    }
    Life {
        mapper,
        meta,
        chaos,
        // Far from the numbers that histories give.
        next_id: Rc::new(Cell::new(u128::from(lives) << 64)),
    }
}

impl Life {
    /// A new volume, opened. `number` decides its home core where there are two.
    pub async fn create(&self, number: u128, text: &str, size: u64) -> VolumeHandle {
        let new = NewVolume {
            id: ResourceId(number.to_be_bytes()),
            name: name(text),
            size,
            block: LogicalBlock::Bytes512,
            pool: name("main"),
        };
        self.mapper.create_volume(new).await.expect("created");
        self.open(text).await
    }

    pub async fn open(&self, text: &str) -> VolumeHandle {
        self.mapper.open_volume(name(text)).await.expect("opened")
    }

    fn new_id(&self) -> ResourceId {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        ResourceId(id.to_be_bytes())
    }

    /// What asks for snapshots: pairs of a volume and its snapshot's name.
    pub fn wanted(&self, pairs: &[(&str, &str)]) -> Vec<NewSnapshot> {
        let pairs = pairs.iter();
        let wanted = pairs.map(|(volume, snapshot)| NewSnapshot {
            id: self.new_id(),
            volume: name(volume),
            name: name(snapshot),
        });
        wanted.collect()
    }

    /// A new snapshot, opened.
    pub async fn snapshot(&self, volume: &str, snapshot: &str) -> VolumeHandle {
        let wanted = self.wanted(&[(volume, snapshot)]);
        self.mapper.create_snapshots(wanted).await.expect("created");
        self.open(snapshot).await
    }

    /// A new volume that begins as a snapshot is, of another size if one is given.
    pub async fn clone_of(&self, snapshot: &str, text: &str, size: Option<u64>) -> VolumeHandle {
        let new = NewClone {
            id: self.new_id(),
            snapshot: name(snapshot),
            name: name(text),
            size,
        };
        self.mapper.create_clone(new).await.expect("created");
        self.open(text).await
    }

    pub async fn rollback(&self, volume: &str, snapshot: &str) {
        let rolled = self.mapper.rollback(name(volume), name(snapshot)).await;
        rolled.expect("rolled back");
    }

    pub async fn delete(&self, text: &str) {
        let deleted = self.mapper.delete_volume(name(text)).await;
        deleted.expect("deleted");
    }

    pub async fn resize(&self, text: &str, size: u64) {
        let resized = self.mapper.resize_volume(name(text), size).await;
        resized.expect("resized");
    }

    /// Lets the garbage collector do all that there is to do.
    pub async fn gc_idle(&self) {
        self.mapper.gc_run().await.expect("it begins");
        for _ in 0..GC_PATIENCE {
            if !self.mapper.gc_status().await.expect("it says").running {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.mapper.gc_status().await);
    }

    /// Names of the tree's nodes, `None` where nothing names one any more.
    pub async fn tree(&self) -> Vec<Option<String>> {
        let nodes = self.mapper.tree().await.expect("listed").into_iter();
        let names = nodes.map(|node| Some(node.resource?.row.name.to_string()));
        names.collect()
    }

    /// What the pool has, by itself.
    pub async fn objects(&self) -> Vec<ObjectId> {
        let store = self.chaos.inner().attach().await.expect("it is there");
        store.list(None, MAX_LISTED).await.expect("listed").objects
    }
}

/// Blocks full of one byte.
pub fn blocks(byte: u8, len: u64) -> SharedBuf {
    let mut data = Buf::alloc(len as usize);
    data.fill(byte);
    data.freeze()
}

pub async fn bytes_at(volume: &VolumeHandle, offset: u64, len: u64) -> Vec<u8> {
    let segments = volume.read(offset, len).await.expect("readable");
    let bytes: Vec<u8> = segments
        .iter()
        .flat_map(|part| part.iter().copied())
        .collect();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

/// The one byte that a range is full of.
pub async fn byte_at(volume: &VolumeHandle, offset: u64, len: u64) -> u8 {
    let bytes = bytes_at(volume, offset, len).await;
    assert!(
        bytes.iter().all(|byte| *byte == bytes[0]),
        "bytes {offset}+{len} are a mixture"
    );
    bytes[0]
}

/// Runs an operation on a core.
pub fn on<F, Fut, T>(core: u64, volume: &VolumeHandle, operation: F) -> JoinHandle<Result<T>>
where
    F: FnOnce(VolumeHandle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let all = cores();
    let core = all[(core % all.len() as u64) as usize].clone();
    let volume = volume.clone();
    spawn(async move {
        let outcome = core.call(move || operation(volume)).await;
        outcome.expect("the core runs")
    })
}

pub fn write(
    core: u64,
    volume: &VolumeHandle,
    offset: u64,
    byte: u8,
    len: u64,
) -> JoinHandle<Result<()>> {
    on(core, volume, move |volume| async move {
        volume.write(offset, blocks(byte, len), false).await
    })
}

pub async fn read(core: u64, volume: &VolumeHandle, offset: u64, len: u64) -> u8 {
    let byte = on(core, volume, move |volume| async move {
        Ok(byte_at(&volume, offset, len).await)
    });
    byte.await.expect("readable")
}

/// [`read`] by every core, which all see the same.
pub async fn read_everywhere(volume: &VolumeHandle, offset: u64, len: u64) -> u8 {
    let byte = read(0, volume, offset, len).await;
    for core in 1..cores().len() as u64 {
        assert_eq!(read(core, volume, offset, len).await, byte, "core {core}");
    }
    byte
}

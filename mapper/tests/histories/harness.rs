//! A mapper with one pool on simulated cores, and what outlives it. What histories do is their own.

use atoll_backends::{
    Chaos, ChaosHandle, ChaosOptions, MemoryOptions, MemoryPool, ObjectSize, Pool, PoolId,
};
use atoll_mapper::format::{LogicalBlock, PoolKind, PoolRow};
use atoll_mapper::meta::{MetaStore, SimMeta};
use atoll_mapper::types::{InstanceId, PoolNumber, ResourceId, ResourceName};
use atoll_mapper::{
    Mapper, MapperConfig, NewPool, NewVolume, PoolFactory, Result, VolumeHandle, fsck,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{Buf, CoreId, LocalFuture, SharedBuf, cores};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub const OBJECT: u64 = 64 << 10;
pub const BLOCK: u64 = 4096;
pub const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the seed if the history fails with it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

pub fn with_seeds(count: u64, mut history: impl FnMut(u64)) {
    for seed in 1..=count {
        let _named = Seed(seed);
        history(seed);
    }
}

/// What outlives a life of the mapper.
pub struct World {
    seed: u64,
    lives: u64,
    pub meta: SimMeta,
    pool: Arc<dyn Pool>,
    pub chaos: ChaosHandle,
}

/// One life, as a history sees it.
pub struct Life {
    pub mapper: Mapper,
    pub meta: SimMeta,
    pub chaos: ChaosHandle,
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
        let mut sim = self.sim(cores);
        let (meta, chaos, pool) = (self.meta.clone(), self.chaos.clone(), self.pool.clone());
        let task = sim.spawn(CoreId(0), async move { start(meta, chaos, pool).await });
        let life = sim.join(task);
        let task = sim.spawn(CoreId(0), history(life));
        sim.join(task);
        drop(sim.crash());
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
        let (meta, pool) = (self.meta.clone(), self.pool.clone());
        let report = self.sim(1).block_on(async move {
            let store = pool.attach().await.expect("the pool is there");
            let pools = [(PoolNumber::FIRST, store)];
            fsck::check(&meta, &pools, fsck::Options::default(), &mut |_| {}).await
        });
        let report = report.expect("the metadata store is readable");
        assert!(report.is_clean(), "{:#?}", report.findings);
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

async fn start(meta: SimMeta, chaos: ChaosHandle, pool: Arc<dyn Pool>) -> Life {
    let store: Arc<dyn MetaStore> = Arc::new(meta.clone());
    let config = MapperConfig {
        page_memory: 64 << 10,
        io_timeout: IO_TIMEOUT,
        ..MapperConfig::default()
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

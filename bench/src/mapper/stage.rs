//! What the verbs are measured on: a mapper on real cores over the metadata store of production, with
//! pools whose written bytes are counted.

use super::counted::{CountedPool, Written};
use super::drive::pause;
use super::host::Scratch;
use super::rows::{POOL_CAPACITY, Rows};
use atoll_backends::file::{FileOptions, FilePool};
use atoll_backends::{MemoryOptions, MemoryPool, NullOptions, NullPool, Pool};
use atoll_mapper::format::{PoolKind, PoolRow};
use atoll_mapper::meta::{MetaStore, OpenMode};
use atoll_mapper::types::{InstanceId, ResourceId, ResourceName};
use atoll_mapper::{
    Mapper, MapperConfig, NewClone, NewSnapshot, PoolFactory, Result, VolumeHandle, VolumeInfo,
};
use atoll_reactor::runtime::available_cpus;
use atoll_reactor::{CoreHandle, LocalFuture, Runtime, RuntimeConfig, block_on};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Pools {
    directory: PathBuf,
    written: Written,
}

impl PoolFactory for Pools {
    fn open(&self, row: &PoolRow, unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        let row = row.clone();
        LocalFuture::new(async move {
            let size = row.object_size;
            let below: Arc<dyn Pool> = match row.kind {
                PoolKind::File => {
                    let (path, options) = (&self.directory, FileOptions::default());
                    let opened = match unused {
                        true => FilePool::create(path, row.id, size, options).await,
                        false => FilePool::open(path, row.id, size, options).await,
                    };
                    Arc::new(opened?)
                }
                PoolKind::Memory => Arc::new(MemoryPool::new(MemoryOptions {
                    object_size: size,
                    capacity: POOL_CAPACITY,
                    ..MemoryOptions::default()
                })),
                _ => Arc::new(NullPool::new(NullOptions {
                    object_size: size,
                    ..NullOptions::default()
                })),
            };
            let written = self.written.clone();
            Ok(Arc::new(CountedPool { below, written }) as Arc<dyn Pool>)
        })
    }
}

/// A running mapper.
pub struct Stage {
    pub mapper: Mapper,
    pub written: Written,
    /// How long the mapper took to start; the database was open before.
    pub started_in: Duration,
    /// How long the database took to open.
    pub opened_in: Duration,
    next_id: AtomicU64,
    runtime: Runtime,
}

/// Identities of resources made here begin here: rows that were written before have smaller ones.
const FIRST_ID: u64 = 1 << 40;

/// The first two CPUs.
pub fn two_cores() -> Runtime {
    let cpus = available_cpus();
    let config = RuntimeConfig {
        cpus: cpus.into_iter().take(2).collect(),
        ..RuntimeConfig::default()
    };
    Runtime::start(config).expect("this kernel has io_uring")
}

/// Writes to a store by rows, and stops it.
pub fn prepare(scratch: &Scratch, mode: OpenMode, write: impl AsyncFnOnce(&mut Rows<'_>)) {
    let meta = scratch.open(mode);
    block_on(async {
        let mut rows = Rows::new(&meta);
        write(&mut rows).await;
        rows.end().await;
        meta.close().await.expect("the store closes");
    });
}

impl Stage {
    /// Starts on what was prepared.
    pub fn start(scratch: &Scratch, config: MapperConfig) -> Stage {
        let runtime = two_cores();
        let opening = Instant::now();
        let meta = Arc::new(scratch.open(OpenMode::Existing));
        let opened_in = opening.elapsed();
        let written = Written::default();
        let pools = Pools {
            directory: scratch.pool(),
            written: written.clone(),
        };
        let starting = Instant::now();
        let cores = runtime.cores().to_vec();
        let mapper = Mapper::start(meta, Arc::new(pools), InstanceId([7; 16]), cores, config);
        let mapper = block_on(mapper).expect("the mapper starts");
        Stage {
            mapper,
            written,
            started_in: starting.elapsed(),
            opened_in,
            next_id: AtomicU64::new(FIRST_ID),
            runtime,
        }
    }

    pub fn stop(self) {
        block_on(self.mapper.stop()).expect("the mapper stops");
        self.runtime.shutdown();
    }

    pub fn cores(&self) -> &[CoreHandle] {
        self.runtime.cores()
    }

    /// Odd ones are at home on the second core, where the catalogue is not.
    pub fn fresh_id(&self) -> ResourceId {
        let number = self.next_id.fetch_add(2, Ordering::Relaxed) + 1;
        ResourceId(u128::from(number).to_be_bytes())
    }

    /// Waits until the collector has nothing more to do. Not from a reactor.
    pub fn collected(&self) -> Result<()> {
        const POLL: Duration = Duration::from_millis(5);
        while block_on(self.mapper.gc_status())?.running {
            pause(POLL);
        }
        Ok(())
    }

    pub async fn open(&self, name: &ResourceName) -> VolumeHandle {
        let opened = self.mapper.open_volume(name.clone()).await;
        opened.expect("the volume opens")
    }

    pub async fn snapshot(&self, volume: &ResourceName, name: &ResourceName) -> Result<VolumeInfo> {
        let new = NewSnapshot {
            id: self.fresh_id(),
            volume: volume.clone(),
            name: name.clone(),
        };
        let made = self.mapper.create_snapshots(vec![new]).await;
        made.map(|mut made| made.remove(0))
    }

    pub async fn clone_of(
        &self,
        snapshot: &ResourceName,
        name: &ResourceName,
    ) -> Result<VolumeInfo> {
        let new = NewClone {
            id: self.fresh_id(),
            snapshot: snapshot.clone(),
            name: name.clone(),
            size: None,
        };
        self.mapper.create_clone(new).await
    }
}

/// Seconds that it took.
pub async fn timed<T>(of: impl Future<Output = T>) -> (T, f64) {
    let start = Instant::now();
    let value = of.await;
    (value, start.elapsed().as_secs_f64())
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this part of all is not above.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted[at.max(1) - 1]
}

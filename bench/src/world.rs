//! What is measured on: the cores, a mapper with its metadata in memory, and a volume on a null pool and on a
//! pool in memory. Both are written once and flushed, so that what is read and written is there.

use atoll_backends::{MemoryOptions, MemoryPool, NullOptions, NullPool, ObjectSize, Pool, PoolId};
use atoll_mapper::format::{LogicalBlock, PoolKind, PoolRow};
use atoll_mapper::meta::SimMeta;
use atoll_mapper::types::{InstanceId, ResourceId, ResourceName};
use atoll_mapper::{Mapper, MapperConfig, NewPool, NewVolume, PoolFactory, Result, VolumeHandle};
use atoll_reactor::{Buf, CoreHandle, LocalFuture};
use std::fmt;
use std::sync::Arc;

/// Several times the caches' size.
pub const VOLUME_BYTES: u64 = 256 << 20;

/// What is below the mapper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolUnder {
    Null,
    Memory,
}

impl PoolUnder {
    const ALL: [PoolUnder; 2] = [PoolUnder::Null, PoolUnder::Memory];

    fn kind(self) -> PoolKind {
        match self {
            PoolUnder::Null => PoolKind::Null,
            PoolUnder::Memory => PoolKind::Memory,
        }
    }
}

impl fmt::Display for PoolUnder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolUnder::Null => "null",
            PoolUnder::Memory => "memory",
        })
    }
}

struct Pools;

impl PoolFactory for Pools {
    fn open(&self, row: &PoolRow, _unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        let pool: Arc<dyn Pool> = match row.kind {
            PoolKind::Memory => Arc::new(MemoryPool::new(MemoryOptions {
                object_size: row.object_size,
                capacity: 2 * VOLUME_BYTES,
                ..MemoryOptions::default()
            })),
            _ => Arc::new(NullPool::new(NullOptions {
                object_size: row.object_size,
                ..NullOptions::default()
            })),
        };
        LocalFuture::ready(Ok(pool))
    }
}

pub struct World {
    pub cores: Vec<CoreHandle>,
    /// Serves as long as it is kept.
    _mapper: Mapper,
    volumes: Vec<(PoolUnder, VolumeHandle)>,
}

impl World {
    pub async fn start(cores: Vec<CoreHandle>) -> World {
        let mapper = Mapper::start(
            Arc::new(SimMeta::new(1)),
            Arc::new(Pools),
            InstanceId([7; 16]),
            cores.clone(),
            MapperConfig::default(),
        );
        let mapper = mapper.await.expect("the mapper starts");
        let mut volumes = Vec::new();
        for pool in PoolUnder::ALL {
            let volume = volume(&mapper, pool).await;
            let filled = volume.clone();
            let filled = volume.home().call(move || fill(filled)).await;
            filled.expect("the core runs");
            volumes.push((pool, volume));
        }
        World {
            cores,
            _mapper: mapper,
            volumes,
        }
    }

    pub fn volume(&self, pool: PoolUnder) -> VolumeHandle {
        let found = self.volumes.iter().find(|(under, _)| *under == pool);
        found.expect("every pool has one").1.clone()
    }
}

async fn volume(mapper: &Mapper, pool: PoolUnder) -> VolumeHandle {
    let name = ResourceName::new(&pool.to_string()).expect("a legal name");
    let new = NewPool {
        name: name.clone(),
        id: PoolId([pool.kind() as u8; 16]),
        kind: pool.kind(),
        object_size: ObjectSize::DEFAULT,
        options: String::new(),
    };
    mapper.add_pool(new).await.expect("a pool");
    let mut id = [0; 16];
    id[14] = pool.kind() as u8;
    // Odd: its home is the second core, where the catalogue is not.
    id[15] = 1;
    let new = NewVolume {
        id: ResourceId(id),
        name: name.clone(),
        size: VOLUME_BYTES,
        block: LogicalBlock::Bytes512,
        pool: name.clone(),
    };
    mapper.create_volume(new).await.expect("a volume");
    mapper.open_volume(name).await.expect("it opens")
}

async fn fill(volume: VolumeHandle) {
    let object = u64::from(ObjectSize::DEFAULT.bytes());
    let mut data = Buf::alloc(ObjectSize::DEFAULT.bytes() as usize);
    data.fill(0x5a);
    let data = data.freeze();
    for offset in (0..VOLUME_BYTES).step_by(object as usize) {
        let written = volume.write(offset, data.clone(), false).await;
        written.expect("the volume is written");
    }
    volume.flush().await.expect("it is flushed");
}

//! A mapper on memory with volumes, for the server's tests and its example. Nothing of it survives.
#![allow(dead_code, reason = "each user takes what it needs")]

use atoll_backends::{MemoryOptions, MemoryPool, ObjectSize, Pool, PoolId};
use atoll_mapper::format::{LogicalBlock, PoolKind, PoolRow};
use atoll_mapper::meta::SimMeta;
use atoll_mapper::types::{InstanceId, ResourceId, ResourceName};
use atoll_mapper::{Mapper, MapperConfig, NewPool, NewVolume, PoolFactory, Result, VolumeHandle};
use atoll_reactor::{CoreHandle, LocalFuture};
use atoll_targets::scsi::{self, BlockSize, ByteCount};
use atoll_targets::server::TargetSpec;
use std::sync::Arc;

pub const OBJECT_SIZE: u32 = 1 << 20;

struct OnePool(Arc<dyn Pool>);

impl PoolFactory for OnePool {
    fn open(&self, _row: &PoolRow, _unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        LocalFuture::ready(Ok(self.0.clone()))
    }
}

pub fn memory(capacity: u64) -> Arc<dyn Pool> {
    Arc::new(MemoryPool::new(MemoryOptions {
        object_size: ObjectSize::new(OBJECT_SIZE).expect("a legal size"),
        capacity,
        zeroes_new: true,
    }))
}

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a legal name")
}

/// A mapper on these cores with one pool.
pub async fn mapper(cores: Vec<CoreHandle>, pool: Arc<dyn Pool>, seed: u64) -> Mapper {
    let mapper = Mapper::start(
        Arc::new(SimMeta::new(seed)),
        Arc::new(OnePool(pool)),
        InstanceId([7; 16]),
        cores,
        MapperConfig::default(),
    )
    .await
    .expect("the mapper starts");
    let new = NewPool {
        name: name("main"),
        id: PoolId([3; 16]),
        kind: PoolKind::Memory,
        object_size: ObjectSize::new(OBJECT_SIZE).expect("a legal size"),
        options: String::new(),
    };
    mapper.add_pool(new).await.expect("a pool");
    mapper
}

/// Creates and opens a volume; `number` makes its identity, and with two cores its parity is the home core.
pub async fn volume(mapper: &Mapper, label: &str, number: u8, size: u64) -> VolumeHandle {
    let mut id = [0; 16];
    id[15] = number;
    let new = NewVolume {
        id: ResourceId(id),
        name: name(label),
        size,
        block: LogicalBlock::Bytes512,
        pool: name("main"),
    };
    mapper.create_volume(new).await.expect("a volume");
    mapper.open_volume(name(label)).await.expect("it opens")
}

pub async fn resize(mapper: &Mapper, label: &str, size: u64) {
    let resized = mapper.resize_volume(name(label), size).await;
    resized.expect("the volume takes the size");
}

pub fn iqn(label: &str) -> String {
    format!("iqn.2026-11.io.atoll:{label}")
}

pub fn spec(label: &str, volume: &VolumeHandle) -> TargetSpec {
    TargetSpec {
        iqn: iqn(label),
        volume: volume.clone(),
        resource: scsi::ResourceId(u128::from_be_bytes(volume.id().0)),
        block_size: BlockSize::B512,
        object_size: ByteCount(u64::from(OBJECT_SIZE)),
        read_only: false,
    }
}

//! What the mapper and the reactor say, in the words of the admin API.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atoll_mapper::format::{LogicalBlock, PoolKind, ResourceKind};
use atoll_mapper::{PoolInfo, VolumeCounters, VolumeInfo, VolumeShared, types};
use atoll_targets::server::Counters;
use uuid::Uuid;

use crate::api::{
    BlockSize, CommandStats, CoreStats, GcStatus, IoStats, LeakScan, Pool, PoolState, PoolType,
    PoolUsage, TreeNode, Volume, VolumeKind, VolumeState,
};
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::{ByteSize, UnixSeconds};

use super::failure;
use super::pools::PoolOptions;

pub fn name_below(name: &ResourceName) -> Result<types::ResourceName> {
    types::ResourceName::new(name.as_str()).map_err(|error| failure::of_mapper(&error))
}

pub fn name_above(name: &types::ResourceName) -> Result<ResourceName> {
    name.as_str().parse()
}

pub fn block_below(block: BlockSize) -> LogicalBlock {
    match block {
        BlockSize::B512 => LogicalBlock::Bytes512,
        BlockSize::B4096 => LogicalBlock::Bytes4096,
    }
}

fn block_above(block: LogicalBlock) -> BlockSize {
    match block {
        LogicalBlock::Bytes512 => BlockSize::B512,
        LogicalBlock::Bytes4096 => BlockSize::B4096,
    }
}

pub fn kind(info: &VolumeInfo) -> Result<VolumeKind> {
    match info.row.kind {
        ResourceKind::Volume => Ok(VolumeKind::Volume),
        ResourceKind::Snapshot => Ok(VolumeKind::Snapshot),
        other => Err(Error::internal(format!(
            "{:?} is a resource of the kind {other:?}",
            info.row.name.as_str()
        ))),
    }
}

/// A volume or snapshot; what it uses is known elsewhere.
pub fn volume(info: &VolumeInfo, used: Option<ByteSize>) -> Result<Volume> {
    let faulted = info.faulted;
    Ok(Volume {
        name: name_above(&info.row.name)?,
        id: Uuid::from_bytes(info.id.0),
        kind: kind(info)?,
        size: ByteSize::bytes(info.row.size),
        block_size: block_above(info.row.block),
        pool: name_above(&info.pool)?,
        origin: info.origin.as_ref().map(name_above).transpose()?,
        protected: info.row.protected,
        used,
        state: if faulted {
            VolumeState::Faulted
        } else {
            VolumeState::Ok
        },
        fault: faulted.then(|| {
            "a flush failed, so it answers no I/O: stop the daemon, run `atoll fsck --deep --clear-faults`, start it again"
                .to_owned()
        }),
        created: UnixSeconds(info.row.created),
    })
}

pub fn pool_kind(pool_type: PoolType) -> PoolKind {
    match pool_type {
        PoolType::File => PoolKind::File,
        PoolType::Memory => PoolKind::Memory,
        PoolType::Null => PoolKind::Null,
    }
}

fn pool_type(kind: PoolKind) -> Result<PoolType> {
    match kind {
        PoolKind::File => Ok(PoolType::File),
        PoolKind::Memory => Ok(PoolType::Memory),
        PoolKind::Null => Ok(PoolType::Null),
        other => Err(Error::internal(format!(
            "a pool of the kind {other:?} is open"
        ))),
    }
}

pub fn pool(info: &PoolInfo, data: &Path) -> Result<Pool> {
    let row = &info.row;
    let below = |error| failure::of_mapper(&error);
    let options = PoolOptions::of(row).map_err(below)?;
    let path = match row.kind {
        PoolKind::File => Some(options.directory(data).map_err(below)?),
        _ => None,
    };
    // What a null pool says of its room means nothing.
    let room = info.capacity.filter(|_| row.kind != PoolKind::Null);
    let answers = info.capacity.is_some();
    Ok(Pool {
        name: name_above(&row.name)?,
        id: Uuid::from_bytes(row.id.0),
        pool_type: pool_type(row.kind)?,
        path: path.map(|path| path.display().to_string()),
        object_size: ByteSize::bytes(row.object_size.bytes().into()),
        capacity: room.map(|room| ByteSize::bytes(room.total)),
        free: room.map(|room| ByteSize::bytes(room.available)),
        volumes: info.volumes as u64,
        usage: None,
        state: if answers {
            PoolState::Ok
        } else {
            PoolState::Faulted
        },
        fault: (!answers).then(|| "its store does not answer".to_owned()),
        created: options.created,
    })
}

pub fn pool_usage(usage: atoll_mapper::PoolUsage) -> PoolUsage {
    PoolUsage {
        logical: ByteSize::bytes(usage.logical),
        mapped: ByteSize::bytes(usage.mapped),
        shared: ByteSize::bytes(usage.shared),
        unique: ByteSize::bytes(usage.unique),
        garbage: ByteSize::bytes(usage.garbage),
    }
}

pub fn tree_node(node: &atoll_mapper::TreeNode) -> Result<TreeNode> {
    let resource = node.resource.as_ref().map(|info| volume(info, None));
    Ok(TreeNode {
        node: node.node.get(),
        parent: node.parent.map(|parent| parent.get()),
        resource: resource.transpose()?.map(Volume::in_tree),
        own: ByteSize::bytes(node.own_bytes),
    })
}

pub fn gc_status(status: atoll_mapper::GcStatus) -> GcStatus {
    GcStatus {
        running: status.running,
        dying_nodes: status.dying_nodes,
        merging_nodes: status.merging_nodes,
        dead_objects: status.dead_objects,
        deleted_objects: status.deleted_objects,
        deleted_nodes: status.deleted_nodes,
        merged_nodes: status.merged_nodes,
        leak_scan: LeakScan {
            running: status.leaks.running,
            ended: status.leaks.ended,
            found: status.leaks.found,
        },
        last_error: status.last_error,
    }
}

pub fn io_stats(volume: &VolumeShared) -> IoStats {
    let sum = |counter: fn(&VolumeCounters) -> &AtomicU64| {
        let cores = volume.counters();
        cores
            .map(|core| counter(core).load(Ordering::Relaxed))
            .sum()
    };
    IoStats {
        reads: sum(|core| &core.reads),
        read_bytes: sum(|core| &core.read_bytes),
        writes: sum(|core| &core.writes),
        write_bytes: sum(|core| &core.written_bytes),
        flushes: sum(|core| &core.flushes),
        unmaps: sum(|core| &core.unmaps),
        unmap_bytes: sum(|core| &core.unmapped_bytes),
        errors: sum(|core| &core.errors),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub fn command_stats(counters: &Counters) -> CommandStats {
    CommandStats {
        reads: counters.reads,
        read_bytes: counters.read_bytes,
        read_ns: nanos(counters.read_latency),
        writes: counters.writes,
        write_bytes: counters.written_bytes,
        write_ns: nanos(counters.write_latency),
        others: counters.others,
        errors: counters.errors,
        aborted: counters.aborted,
    }
}

pub fn core_stats(core: &atoll_reactor::CoreHandle) -> CoreStats {
    let stats = core.stats();
    CoreStats {
        id: core.id().0.into(),
        turns: stats.turns,
        tasks: stats.tasks,
        submissions: stats.submissions,
        completions: stats.completions,
        enters: stats.enters,
        busy_ns: nanos(stats.busy),
        polling_ns: nanos(stats.polling),
        asleep_ns: nanos(stats.asleep),
    }
}

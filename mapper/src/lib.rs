//! The mapper: catalogue, maps and volumes. A resource is a map from offsets to objects; the logic
//! works on maps and never copies data. `FORMAT.md` draws every byte that it keeps.
#![forbid(unsafe_code)]

mod background;
mod budget;
mod cancel;
mod catalogue;
mod core_state;
pub mod error;
pub mod format;
pub mod fsck;
mod gc;
mod handle;
mod local;
mod mapper;
pub mod meta;
mod pool;
mod refs;
pub mod types;
mod volume;

pub use cancel::{Cancel, CancelSlots};
pub use catalogue::{
    Copied, ExportInfo, FlattenProgress, GcConfig, GcStatus, LeakScan, MAX_VOLUME_SIZE,
    MIN_VOLUME_SIZE, MapperConfig, NewClone, NewPool, NewSnapshot, NewVolume, PoolFactory,
    PoolInfo, PoolUsage, TreeNode, VOLUME_SIZE_UNIT, VolumeInfo, clear_faults, faulted_pools,
};
pub use error::{Error, ErrorKind, Result};
pub use handle::VolumeHandle;
pub use mapper::Mapper;
pub use volume::{
    ChangedExtent, Changes, MAX_IO_BYTES, MapExtent, Segments, VolumeCounters, VolumeShared,
};

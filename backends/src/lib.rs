//! Object stores: where a pool's objects live. `ObjectStore` is the face that the mapper knows;
//! `contract` is the suite that every store passes; `chaos` injects faults around any of them.
//! What objects mean, and which are alive, is the mapper's business.
#![forbid(unsafe_code)]

pub mod chaos;
mod check;
pub mod contract;
mod error;
pub mod file;
mod finish;
pub mod memory;
pub mod null;
mod slot;
mod store;
mod types;

pub use chaos::{Chaos, ChaosHandle, ChaosOptions};
pub use error::{Error, ErrorKind, Result};
pub use file::{FileOptions, FilePool, FileProbe};
pub use memory::{MemoryOptions, MemoryPool};
pub use null::{NullOptions, NullPool};
pub use store::{
    Capacity, ListCursor, ListPage, ObjectStat, ObjectStore, Pool, Properties, ReadHint, Record,
    WriteMode, ZeroMode,
};
pub use types::{
    BLOCK_SIZE, BlockRange, DEFAULT_OBJECT_SIZE, Generation, MAX_OBJECT_SIZE, MIN_OBJECT_SIZE,
    ObjectId, ObjectIndex, ObjectSize, PoolId,
};

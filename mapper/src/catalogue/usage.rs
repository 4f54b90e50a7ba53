//! How much is stored, and for whom; what the garbage collector has to do.

use super::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::types::ResourceName;
use std::rc::Rc;

/// Bytes of a pool, of objects where nothing else is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolUsage {
    /// Sizes of its resources together.
    pub logical: u64,
    /// Named by the maps of its resources.
    pub mapped: u64,
    /// Of these: reachable by more than one resource.
    pub shared: u64,
    /// Of these: by one only.
    pub unique: u64,
    /// Not deleted yet, and reachable by nobody.
    pub garbage: u64,
}

/// The leak scan: objects that were created before a crash and never committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeakScan {
    /// One is under way.
    pub running: bool,
    /// Scans that ended since the start, and objects that they found.
    pub ended: u64,
    pub found: u64,
}

/// What the garbage collector has to do, and has done since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GcStatus {
    /// Something is being done now.
    pub running: bool,
    /// Nodes of deleted resources whose objects are to be deleted.
    pub dying_nodes: u64,
    /// Nodes that are to be merged into their only child.
    pub merging_nodes: u64,
    /// Objects that are to be deleted, as far as they are known yet.
    pub dead_objects: u64,
    pub deleted_objects: u64,
    pub deleted_nodes: u64,
    pub merged_nodes: u64,
    pub leaks: LeakScan,
    /// What failed last, and is tried again.
    pub last_error: Option<String>,
}

impl Catalogue {
    pub(crate) async fn pool_usage(self: &Rc<Self>, _pool: &ResourceName) -> Result<PoolUsage> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
}

//! Verbs on the tree of nodes: snapshots, clones, rollback, flattening. How a map changes is the
//! volume's business; what of the tree is left over, the garbage collector's.

use super::{Catalogue, VolumeInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{NodeId, ResourceId, ResourceName};
use std::rc::Rc;

/// A snapshot that is asked for.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    pub id: ResourceId,
    pub volume: ResourceName,
    pub name: ResourceName,
}

/// A volume that is to begin as a snapshot is.
#[derive(Clone, Debug)]
pub struct NewClone {
    pub id: ResourceId,
    pub snapshot: ResourceName,
    pub name: ResourceName,
    /// Bytes, as of a new volume; `None`: the snapshot's.
    pub size: Option<u64>,
}

/// A node of the tree, and what it is to admins.
#[derive(Clone, Debug)]
pub struct TreeNode {
    pub node: NodeId,
    pub parent: Option<NodeId>,
    /// `None`: nothing names it any more, others inherit from it.
    pub resource: Option<VolumeInfo>,
    /// Bytes of the objects that it names itself.
    pub own_bytes: u64,
}

/// How far a flattening is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlattenProgress {
    /// Bytes of the volume that were looked at, and that there are to be looked at.
    pub done: u64,
    pub total: u64,
    pub copied: u64,
    /// It inherits nothing any more.
    pub ended: bool,
}

impl Catalogue {
    /// Snapshots of several volumes, all of one instant, which exist all or none.
    pub(crate) async fn create_snapshots(
        self: &Rc<Self>,
        _new: Vec<NewSnapshot>,
    ) -> Result<Vec<VolumeInfo>> {
        Err(unsupported())
    }

    pub(crate) async fn create_clone(self: &Rc<Self>, _new: NewClone) -> Result<VolumeInfo> {
        Err(unsupported())
    }

    pub(crate) async fn rollback(
        self: &Rc<Self>,
        _volume: &ResourceName,
        _snapshot: &ResourceName,
    ) -> Result<VolumeInfo> {
        Err(unsupported())
    }

    /// Goes on for at most a moment; called until it has ended.
    pub(crate) async fn flatten(
        self: &Rc<Self>,
        _volume: &ResourceName,
        _from: u64,
    ) -> Result<FlattenProgress> {
        Err(unsupported())
    }

    pub(crate) async fn protect(
        self: &Rc<Self>,
        _name: &ResourceName,
        _on: bool,
    ) -> Result<VolumeInfo> {
        Err(unsupported())
    }

    /// Parents before their children.
    pub(crate) async fn tree(self: &Rc<Self>) -> Result<Vec<TreeNode>> {
        Err(unsupported())
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "not yet")
}

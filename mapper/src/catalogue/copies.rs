//! Copies between resources of a pool, and what differs between two resources of one tree.

use super::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::types::ResourceName;
use std::rc::Rc;

/// What became of a range that was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Bytes for which both maps name the same objects now.
    pub shared: u64,
    /// Bytes that were read and written.
    pub copied: u64,
}

/// Bytes of which two resources may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangedExtent {
    pub offset: u64,
    pub len: u64,
    /// The later of both reads as zeros there.
    pub zero: bool,
}

/// A part of all changes, in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    pub extents: Vec<ChangedExtent>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

impl Catalogue {
    /// Copies a range between two resources, or inside of one, without overlap: aligned objects by naming them twice.
    pub(crate) async fn copy_range(
        self: &Rc<Self>,
        _from: &ResourceName,
        _offset: u64,
        _to: &ResourceName,
        _to_offset: u64,
        _len: u64,
    ) -> Result<Copied> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// What of `to`, from `offset` on, may differ from `from`; without `from`, what of it is stored. At most `most`
    /// extents.
    pub(crate) async fn changes(
        self: &Rc<Self>,
        _from: Option<&ResourceName>,
        _to: &ResourceName,
        _offset: u64,
        _most: usize,
    ) -> Result<Changes> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
}

//! What can be made to go wrong with a simulated disk's operations, and how they are told apart.

use std::path::Path;
use std::time::Duration;

/// Kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DiskOp {
    Open,
    Read,
    Write,
    SyncData,
    SyncAll,
    SyncFilesystem,
    Allocate,
    SetLen,
    Metadata,
    Lock,
    CreateDir,
    Remove,
    Rename,
    ReadDir,
    Capacity,
}

impl DiskOp {
    pub(super) fn is_sync(self) -> bool {
        matches!(
            self,
            DiskOp::SyncData | DiskOp::SyncAll | DiskOp::SyncFilesystem
        )
    }

    /// Those that chance may fail.
    pub(super) fn moves_content(self) -> bool {
        self.is_sync() || matches!(self, DiskOp::Read | DiskOp::Write)
    }
}

/// An operation that is about to begin.
#[derive(Clone, Copy, Debug)]
pub struct DiskCall<'a> {
    pub op: DiskOp,
    /// The path that the file was opened by, or that the call names (the source of a rename).
    pub path: &'a Path,
    /// Offset and length in bytes where the operation has them, else 0.
    pub offset: u64,
    pub len: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// It fails with this `errno`. A failed write may have written some of its blocks; a failed
    /// sync gives up what was not durable: a later one succeeds and does not bring it back.
    Error(i32),
    /// It takes so much longer.
    Delay(Duration),
    /// It does not end before a crash, which may apply it, or [`super::super::Sim::release_disk`].
    Hang,
}

type Ask = Box<dyn FnMut(&DiskCall<'_>) -> Option<DiskFault>>;

#[derive(Default)]
pub(super) struct Faults {
    ask: Option<Ask>,
    /// Counts `set` and `clear`, so that a closure that replaces itself is not put back.
    version: u64,
    taken: u64,
}

impl Faults {
    pub(super) fn set(&mut self, ask: Ask) {
        self.ask = Some(ask);
        self.version += 1;
    }

    pub(super) fn clear(&mut self) {
        self.ask = None;
        self.version += 1;
    }

    pub(super) fn take(&mut self) -> Option<Ask> {
        self.taken = self.version;
        self.ask.take()
    }

    pub(super) fn put_back(&mut self, ask: Ask) {
        if self.taken == self.version {
            self.ask = Some(ask);
        }
    }
}

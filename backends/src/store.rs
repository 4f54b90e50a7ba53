//! The face of every object store. Object-safe, asynchronous, without heap use per call.

use crate::{BlockRange, Generation, ObjectId, ObjectSize, Result};
use atoll_reactor::{LocalFuture, SharedBuf};
use std::rc::Rc;

/// What a store promises; fixed while the pool is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    pub object_size: ObjectSize,
    /// A write is never torn below this many bytes by a crash. A power of two, at least 512.
    pub atomic_unit: u32,
    /// Blocks of a new object that were not written yet read as zeros. Where it is false they
    /// read as anything, and the mapper keeps a bitmap.
    pub zeroes_new: bool,
    /// Each object is written once, whole, and never again; a change is a new object.
    pub write_once: bool,
    /// Reads come from a device so slow that a cache pays.
    pub cacheable: bool,
    /// Short name of the kind for people: `file`, `memory`, ...
    pub kind: &'static str,
}

/// What the reader knows of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadHint {
    /// The object will never change: complete, and content-addressed or in a node whose freezing
    /// batch is durable. A cache may keep its blocks over an unclean stop (C2).
    pub immutable: bool,
    /// Part of a scan (copy, export, filler, GC): not worth caching.
    pub scan: bool,
}

/// What a writer expects of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// The map does not name it yet: create it if it is missing.
    Create,
    /// The map names it: missing is `NotFound`, never a new object.
    Existing,
}

/// How a range is made to read as zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroMode {
    /// Give its space back where the store can.
    Punch,
    /// Keep its space where the store can.
    Keep,
}

/// An opaque pair that the mapper keeps for the store: committed in the mapper's batch, handed
/// back at the next opening. An empty value removes the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// What `stat` tells of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectStat {
    /// Bytes of space that it takes, as far as the store knows.
    pub allocated: u64,
}

/// A part of the list of all objects, in an order of the store's choice that does not change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    pub objects: Vec<ObjectId>,
    /// Where to go on; `None` at the end.
    pub next: Option<ListCursor>,
}

/// Opaque position in a listing.
pub type ListCursor = Vec<u8>;

/// Room in the pool in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    pub total: u64,
    pub available: u64,
}

/// One core's access to a pool's objects.
///
/// All ranges are whole blocks inside of the object. Operations on one object may run at the same
/// time; what overlapping writes leave is either, per atomic unit. An operation goes on to its end
/// at the store even if its future is dropped.
pub trait ObjectStore {
    fn properties(&self) -> &Properties;

    /// Reads the range. `NotFound` if the object is missing: never zeros (M9).
    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>>;

    /// Writes whole blocks from block `first` on. Complete at the store when it returns, so that
    /// any core reads it; durable after a later `sync`.
    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>>;

    /// Makes the range read as zeros; `NotFound` if the object is missing and `mode` is `Existing`.
    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>>;

    /// Makes durable what was complete at these objects before the call, whichever core wrote it,
    /// their existence included; a missing object is skipped. A failure means that any of it may
    /// be lost, also if a later call succeeds. The records are to be committed with the map that names the objects.
    fn sync<'a>(&'a self, ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>>;

    /// Makes durable everything that is complete at the pool, whoever wrote it: asked once after an
    /// unclean stop, before anything is acknowledged. What a killed daemon wrote is still there and
    /// read, but no `sync` of this run knows of it. A failure is one as of `sync`, of any object.
    fn sync_all(&self) -> LocalFuture<'_, Result<()>>;

    /// Removes the object; one that is missing already is no error. Durable in no particular
    /// time; the records are to be committed before [`ObjectStore::records_committed`].
    fn delete(&self, id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>>;

    /// The records' batch is durable: what they free may be used again.
    fn records_committed(&self, _records: &[Record]) {}

    fn stat(&self, id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>>;

    /// Up to `limit` objects from the cursor on. Objects created or deleted meanwhile may be
    /// in or not; every other one is listed exactly once.
    fn list(&self, from: Option<ListCursor>, limit: usize) -> LocalFuture<'_, Result<ListPage>>;

    /// Copies a range between two objects of the pool, on the server's side where there is one.
    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>>;

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>>;

    /// The pool's own mark: every generation below it may have been used. Zero in a new pool.
    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>>;

    /// Raises the mark, durably; a mark that is higher already stays.
    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>>;
}

/// A pool that this daemon has opened exclusively. Dropping the last one gives it free, when the
/// last operation on it has ended.
pub trait Pool: Send + Sync {
    /// This core's access. Called on the core.
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>>;
}

//! The face of the engine towards the control plane: everything an admin can ask of a running
//! daemon. Not the idempotency rules (`admin::service` has them) and no HTTP.

mod transfer;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::api::{
    AddExport, AddPool, AskTree, CloneSnapshot, CopyVolume, Copying, CreateVolume, Export,
    Flattening, GcStatus, ListVolumes, Pool, SnapshotOf, Stats, Status, TreePage, Volume,
    VolumeKind, VolumePage,
};
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

pub use transfer::Transfer;

/// An answer that comes later. It is polled on the admin thread, which must not be blocked.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What the engine does for admins.
///
/// A call that answered `Ok` is durable (A2). A future that is dropped before its end leaves the
/// change either made or not made, never half made. Requests have passed the checks of `api`.
/// Errors use the kinds as documented there; those of missing things say `no volume "x"` or the
/// like, those of [`InUse`](crate::error::ErrorKind::InUse) say who uses it.
pub trait Control: Transfer + 'static {
    /// Creates a volume. `AlreadyExists` whenever the name is taken: `if_not_exists` is not for
    /// the engine to look at. `NotFound` without the pool.
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume>;
    /// A page of volumes and snapshots, in order of their names, without what they use.
    fn volumes(&self, ask: ListVolumes) -> Answer<'_, VolumePage>;
    fn volume(&self, name: ResourceName) -> Answer<'_, Volume>;
    /// Grows or shrinks; the present size again is no change and no error. `Refused` for a snapshot.
    fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Answer<'_, Volume>;
    /// `AlreadyExists` if `to` is taken; `InUse` while exported, as initiators know the name.
    fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Answer<'_, Volume>;
    /// Frees the name at once and the space in the background; tells what it was. `InUse` while exported, open or
    /// protected.
    fn delete_volume(&self, name: ResourceName) -> Answer<'_, VolumeKind>;

    /// Takes snapshots of several volumes at one instant, all or none, and gives them in the order in which they were
    /// asked for. `AlreadyExists` if any of the names is taken.
    fn take_snapshots(&self, members: Vec<SnapshotOf>) -> Answer<'_, Vec<Volume>>;
    /// Makes a volume that begins as a snapshot is. `AlreadyExists` whenever the name is taken.
    fn clone_snapshot(&self, snapshot: ResourceName, request: CloneSnapshot) -> Answer<'_, Volume>;
    /// Whether a snapshot is among those that a volume or snapshot comes from.
    fn comes_from(&self, name: ResourceName, snapshot: ResourceName) -> Answer<'_, bool>;
    /// Makes the volume what a snapshot of its tree is. `InUse` while it is protected or a session is logged in.
    fn roll_back(&self, volume: ResourceName, snapshot: ResourceName) -> Answer<'_, Volume>;
    /// Copies into a volume what it inherits, a part with each call.
    fn flatten(&self, volume: ResourceName, from: u64) -> Answer<'_, Flattening>;
    /// Copies a resource into a volume, a part with each call. `InUse` while the volume is exported.
    fn copy_volume(&self, source: ResourceName, request: CopyVolume) -> Answer<'_, Copying>;
    /// The same again is no change and no error.
    fn protect(&self, name: ResourceName, protected: bool) -> Answer<'_, Volume>;
    /// A page of the tree that volumes and snapshots make.
    fn tree(&self, ask: AskTree) -> Answer<'_, TreePage>;
    fn gc_status(&self) -> Answer<'_, GcStatus>;
    /// Lets the garbage collector begin at once. It has ended when its status says that nothing runs.
    fn gc_run(&self) -> Answer<'_, GcStatus>;

    /// Exports a volume, or a snapshot, that one always read-only. `AlreadyExists` whenever it has an export already.
    fn add_export(&self, request: AddExport) -> Answer<'_, Export>;
    /// All exports, in order of their names.
    fn exports(&self) -> Answer<'_, Vec<Export>>;
    /// Asks the sessions to log out, ends them, and takes the export away.
    fn remove_export(&self, name: ResourceName) -> Answer<'_, ()>;

    /// Adds a pool. `AlreadyExists` whenever the name is taken; `InUse` where the directory
    /// belongs to another pool or to another daemon.
    fn add_pool(&self, request: AddPool) -> Answer<'_, Pool>;
    /// All pools, in order of their names.
    fn pools(&self) -> Answer<'_, Vec<Pool>>;
    fn pool(&self, name: ResourceName) -> Answer<'_, Pool>;
    /// Forgets a pool without volumes. `InUse` while there are any; `Refused` for the default.
    fn remove_pool(&self, name: ResourceName) -> Answer<'_, ()>;

    fn status(&self) -> Answer<'_, Status>;
    fn stats(&self) -> Answer<'_, Stats>;

    /// Where iSCSI is served; the port that was bound, where 0 was configured.
    fn iscsi_address(&self) -> SocketAddr;

    /// Stops: sessions are asked to log out, everything is flushed, stores and metadata are
    /// closed. Asked once. Other calls answer `Unavailable` from then on.
    fn shutdown(&self) -> Answer<'_, ()>;

    /// Ends when the engine cannot go on (a reactor died), with the reason; pending otherwise.
    fn failure(&self) -> Pin<Box<dyn Future<Output = Error> + Send + '_>>;
}

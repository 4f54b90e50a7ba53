//! The face of the engine towards the control plane: everything an admin can ask of a running
//! daemon. Not the idempotency rules (`admin::service` has them) and no HTTP.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::api::{AddExport, AddPool, CreateVolume, Export, Pool, Stats, Status, Volume};
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// An answer that comes later. It is polled on the admin thread, which must not be blocked.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What the engine does for admins.
///
/// A call that answered `Ok` is durable (A2). A future that is dropped before its end leaves the
/// change either made or not made, never half made. Requests have passed the checks of `api`.
/// Errors use the kinds as documented there; those of missing things say `no volume "x"` or the
/// like, those of [`InUse`](crate::error::ErrorKind::InUse) say who uses it.
pub trait Control: Send + Sync + 'static {
    /// Creates a volume. `AlreadyExists` whenever the name is taken: `if_not_exists` is not for
    /// the engine to look at. `NotFound` without the pool.
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume>;
    /// All volumes, in order of their names, without what they use.
    fn volumes(&self) -> Answer<'_, Vec<Volume>>;
    fn volume(&self, name: ResourceName) -> Answer<'_, Volume>;
    /// Grows or shrinks; the present size again is no change and no error.
    fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Answer<'_, Volume>;
    /// `AlreadyExists` if `to` is taken; `InUse` while exported, as initiators know the name.
    fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Answer<'_, Volume>;
    /// Frees the name at once and the space in the background. `InUse` while exported or open.
    fn delete_volume(&self, name: ResourceName) -> Answer<'_, ()>;

    /// Exports a volume. `AlreadyExists` whenever it has an export already.
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

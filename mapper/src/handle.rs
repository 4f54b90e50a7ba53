//! An opened volume as any core uses it: on the home core directly, elsewhere by message to it.

use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::types::ResourceId;
use crate::volume::{Segments, Volume, VolumeShared, Zeroing};
use atoll_reactor::{CoreHandle, RemoteError, SharedBuf, core_id};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// A volume that is open. Clones are the same volume.
///
/// Offsets and lengths are bytes, multiples of 512. Errors: `OutOfRange`, `Closed` after the volume was
/// closed, `Faulted` after a failed flush, `Timeout` when the store did not answer in time (a write may
/// still be applied; its blocks stay held until it has ended), and the pool's own.
#[derive(Clone)]
pub struct VolumeHandle {
    id: ResourceId,
    home: CoreHandle,
    shared: Arc<VolumeShared>,
}

impl VolumeHandle {
    pub(crate) fn new(id: ResourceId, home: CoreHandle, shared: Arc<VolumeShared>) -> VolumeHandle {
        VolumeHandle { id, home, shared }
    }

    pub fn id(&self) -> ResourceId {
        self.id
    }

    /// The core that changes the volume's map.
    pub fn home(&self) -> &CoreHandle {
        &self.home
    }

    /// Size in bytes, as of now.
    pub fn size(&self) -> u64 {
        self.shared.size()
    }

    pub fn shared(&self) -> &Arc<VolumeShared> {
        &self.shared
    }

    /// Reads a range; the segments together are as long as asked.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Segments> {
        if self.is_home() {
            return core_state()?.volume(self.id)?.read(offset, len).await;
        }
        self.remote(move |volume| async move { volume.read(offset, len).await })
            .await
    }

    /// Writes at an offset. Durable when it returns with `fua`, after a later flush otherwise.
    pub async fn write(&self, offset: u64, data: SharedBuf, fua: bool) -> Result<()> {
        if self.is_home() {
            return core_state()?
                .volume(self.id)?
                .write(offset, data, fua)
                .await;
        }
        self.remote(move |volume| async move { volume.write(offset, data, fua).await })
            .await
    }

    /// Makes everything that was acknowledged before durable.
    pub async fn flush(&self) -> Result<()> {
        if self.is_home() {
            return core_state()?.volume(self.id)?.flush().await;
        }
        self.remote(|volume| async move { volume.flush().await })
            .await
    }

    /// Gives a range back; it reads as zeros.
    pub async fn unmap(&self, offset: u64, len: u64) -> Result<()> {
        self.zero(offset, len, Zeroing::Unmap, false).await
    }

    /// Writes zeros; with `may_unmap` space may be given back.
    pub async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
        fua: bool,
    ) -> Result<()> {
        let how = if may_unmap {
            Zeroing::ZeroUnmap
        } else {
            Zeroing::Zero
        };
        self.zero(offset, len, how, fua).await
    }

    async fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> Result<()> {
        if self.is_home() {
            return core_state()?
                .volume(self.id)?
                .zero(offset, len, how, fua)
                .await;
        }
        self.remote(move |volume| async move { volume.zero(offset, len, how, fua).await })
            .await
    }

    fn is_home(&self) -> bool {
        core_id() == self.home.id()
    }

    async fn remote<F, Fut, T>(&self, operation: F) -> Result<T>
    where
        F: FnOnce(Rc<Volume>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        let id = self.id;
        on_core(&self.home, move || async move {
            operation(core_state()?.volume(id)?).await
        })
        .await
    }
}

/// Runs a fallible future on a core.
pub(crate) async fn on_core<F, Fut, T>(core: &CoreHandle, make: F) -> Result<T>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    core.call(make).await.unwrap_or_else(|error| {
        Err(match error {
            RemoteError::Full => {
                Error::new(ErrorKind::Busy, format!("core {}: {error}", core.id()))
            }
            RemoteError::Closed => {
                Error::new(ErrorKind::Closed, format!("core {}: {error}", core.id()))
            }
        })
    })
}

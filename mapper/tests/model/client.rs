//! A volume as it is used from one core, whichever the history runs on.

use atoll_mapper::{Error, ErrorKind, Result, Segments, VolumeHandle};
use atoll_reactor::{CoreHandle, SharedBuf};
use std::future::Future;

#[derive(Clone)]
pub struct Client {
    pub handle: VolumeHandle,
    pub core: CoreHandle,
}

impl Client {
    async fn run<F, Fut, T>(&self, operation: F) -> Result<T>
    where
        F: FnOnce(VolumeHandle) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        let handle = self.handle.clone();
        let outcome = self.core.call(move || operation(handle)).await;
        outcome.unwrap_or_else(|error| Err(Error::new(ErrorKind::Closed, error.to_string())))
    }

    pub async fn read(&self, offset: u64, len: u64) -> Result<Segments> {
        self.run(move |volume| async move { volume.read(offset, len).await })
            .await
    }

    pub async fn write(&self, offset: u64, data: SharedBuf, fua: bool) -> Result<()> {
        self.run(move |volume| async move { volume.write(offset, data, fua).await })
            .await
    }

    pub async fn flush(&self) -> Result<()> {
        self.run(|volume| async move { volume.flush().await }).await
    }

    pub async fn unmap(&self, offset: u64, len: u64) -> Result<()> {
        self.run(move |volume| async move { volume.unmap(offset, len).await })
            .await
    }

    pub async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<()> {
        self.run(
            move |volume| async move { volume.write_zeroes(offset, len, may_unmap, false).await },
        )
        .await
    }
}

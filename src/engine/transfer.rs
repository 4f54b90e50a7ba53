//! Content of resources for exports to files and imports from them: reads and writes on the
//! resource's home core, like one more initiator's. The rules of imports are in `importing`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use atoll_mapper::{VolumeHandle, VolumeInfo};
use atoll_reactor::{RemoteError, SharedBuf};
use axum::body::Bytes;
use uuid::Uuid;

use crate::api::{
    BeginImport, ChangePage, ChangedRange, ChangesQuery, CheckpointImport, DataRange, FinishImport,
    ImportState, Imported,
};
use crate::control::{Answer, Transfer};
use crate::error::{Error, Result};
use crate::name::ResourceName;

use super::convert::{name_above, name_below};
use super::verbs::Verbs;
use super::{Engine, failure, lock};

/// Resources whose handles are kept: an export or import asks for the same one again and again.
const MAX_HANDLES: usize = 64;
/// How long to wait for room in the inbox of a core.
const FULL_PAUSE: Duration = Duration::from_millis(1);

fn below(error: atoll_mapper::Error) -> Error {
    failure::of_mapper(&error)
}

impl Engine {
    /// The resource of that name, if it still is the one that is meant.
    pub(super) async fn resource(&self, name: &ResourceName, id: Uuid) -> Result<VolumeInfo> {
        let info = self.mapper.volume(name_below(name)?).await.map_err(below)?;
        if info.id.0 == *id.as_bytes() {
            return Ok(info);
        }
        Err(Error::not_found(format!(
            "{:?} is another resource now than it was",
            name.as_str()
        )))
    }

    pub(super) async fn handle(&self, name: &ResourceName, id: Uuid) -> Result<VolumeHandle> {
        self.resource(name, id).await?;
        let kept = lock(&self.handles).get(&id).cloned();
        if let Some(handle) = kept {
            return Ok(handle);
        }
        let opened = self.mapper.open_volume(name_below(name)?).await;
        let handle = opened.map_err(below)?;
        if handle.id().0 == *id.as_bytes() {
            let mut handles = lock(&self.handles);
            if handles.len() >= MAX_HANDLES {
                handles.clear();
            }
            handles.insert(id, handle.clone());
            return Ok(handle);
        }
        Err(Error::not_found("it was replaced meanwhile"))
    }

    pub(super) async fn changes_of(
        &self,
        from: Option<ResourceName>,
        name: &ResourceName,
        offset: u64,
        most: u32,
    ) -> Result<ChangePage> {
        let from = from.map(|from| name_below(&from)).transpose()?;
        let changes = self
            .mapper
            .changes(from, name_below(name)?, offset, most as usize);
        let changes = changes.await.map_err(below)?;
        let range = |extent: &atoll_mapper::ChangedExtent| ChangedRange {
            offset: extent.offset,
            length: extent.len,
            zero: extent.zero,
        };
        Ok(ChangePage {
            ranges: changes.extents.iter().map(range).collect(),
            next: changes.next,
        })
    }

    async fn changes(&self, name: ResourceName, query: ChangesQuery) -> Result<ChangePage> {
        self.resource(&name, query.id).await?;
        if let (Some(from), Some(id)) = (&query.from, query.from_id) {
            self.resource(from, id).await?;
        }
        self.changes_of(query.from, &name, query.offset, query.most)
            .await
    }

    async fn read_data(&self, name: ResourceName, range: DataRange) -> Result<Bytes> {
        let handle = self.handle(&name, range.id).await?;
        let DataRange { offset, length, .. } = range;
        let segments = at_home(&handle, move |handle| async move {
            handle.read(offset, length).await
        });
        let segments = segments.await?;
        let mut bytes = Vec::with_capacity(range.length as usize);
        for segment in &segments {
            bytes.extend_from_slice(segment);
        }
        Ok(bytes.into())
    }

    async fn write_data(&self, name: ResourceName, range: DataRange, data: Bytes) -> Result<()> {
        self.writing(&name, range, move |handle| {
            let data = SharedBuf::copy_of(&data);
            async move { handle.write(range.offset, data, false).await }
        })
        .await
    }

    async fn zero_data(&self, name: ResourceName, range: DataRange) -> Result<()> {
        self.writing(&name, range, move |handle| async move {
            handle.unmap(range.offset, range.length).await
        })
        .await
    }

    /// Writes for the import that has the volume. It goes on to its end though nobody waits any more: until
    /// then the import stays as it is.
    async fn writing<F, Fut>(&self, name: &ResourceName, range: DataRange, write: F) -> Result<()>
    where
        F: FnOnce(VolumeHandle) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = atoll_mapper::Result<()>> + 'static,
    {
        let session = range.session.unwrap_or_default();
        let handle = self.handle(name, range.id).await?;
        let right = self.imports.writing(range.id, session).await?;
        let written = tokio::spawn(async move {
            let written = at_home(&handle, write).await;
            drop(right);
            written
        });
        written
            .await
            .unwrap_or_else(|e| Err(Error::internal(format!("the write ended: {e}"))))
    }
}

/// Runs it on the home core, as soon as that has room for it.
pub(super) async fn at_home<F, Fut, T>(handle: &VolumeHandle, run: F) -> Result<T>
where
    F: FnOnce(VolumeHandle) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = atoll_mapper::Result<T>> + 'static,
    T: Send + 'static,
{
    loop {
        let (own, run) = (handle.clone(), run.clone());
        let called = handle.home().call(move || run(own));
        match called.await {
            Ok(outcome) => return outcome.map_err(below),
            Err(RemoteError::Full) => tokio::time::sleep(FULL_PAUSE).await,
            Err(error) => return Err(Error::unavailable(format!("the home core: {error}"))),
        }
    }
}

/// The name of what the mapper tells of.
pub(super) fn name_of(info: &VolumeInfo) -> Result<ResourceName> {
    name_above(&info.row.name)
}

impl Transfer for Verbs {
    fn changes(&self, name: ResourceName, query: ChangesQuery) -> Answer<'_, ChangePage> {
        self.ask(|engine| async move { engine.changes(name, query).await })
    }

    fn read_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, Bytes> {
        self.ask(move |engine| async move { engine.read_data(name, range).await })
    }

    fn write_data(&self, name: ResourceName, range: DataRange, data: Bytes) -> Answer<'_, ()> {
        self.ask(move |engine| async move { engine.write_data(name, range, data).await })
    }

    fn zero_data(&self, name: ResourceName, range: DataRange) -> Answer<'_, ()> {
        self.ask(move |engine| async move { engine.zero_data(name, range).await })
    }

    fn begin_import(&self, name: ResourceName, request: BeginImport) -> Answer<'_, ImportState> {
        self.change(|engine| async move { engine.begin_import(name, request).await })
    }

    /// No change of the catalogue: the verbs of others need not wait for its flush.
    fn checkpoint_import(
        &self,
        name: ResourceName,
        request: CheckpointImport,
    ) -> Answer<'_, ImportState> {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            let kept =
                tokio::spawn(async move { engine.checkpoint_import(name, request).await }).await;
            kept.unwrap_or_else(|e| Err(Error::internal(format!("the checkpoint ended: {e}"))))
        })
    }

    fn finish_import(&self, name: ResourceName, request: FinishImport) -> Answer<'_, Imported> {
        self.change(|engine| async move { engine.finish_import(name, request).await })
    }
}

//! The mapper as the rest of the daemon uses it, from any thread: every verb runs on core 0.

use crate::catalogue::{
    Catalogue, ExportInfo, MapperConfig, NewPool, NewVolume, PoolFactory, PoolInfo, VolumeInfo,
    catalogue, start,
};
use crate::error::Result;
use crate::format::Protocol;
use crate::handle::{VolumeHandle, on_core};
use crate::meta::MetaStore;
use crate::types::{InstanceId, ResourceName};
use atoll_reactor::CoreHandle;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// A running mapper. Clones are the same one.
#[derive(Clone)]
pub struct Mapper {
    catalogue: CoreHandle,
}

impl Mapper {
    /// Opens the catalogue and its pools on these cores, the first of which runs the verbs. `instance`
    /// names a store that is new.
    pub async fn start(
        meta: Arc<dyn MetaStore>,
        factory: Arc<dyn PoolFactory>,
        instance: InstanceId,
        cores: Vec<CoreHandle>,
        config: MapperConfig,
    ) -> Result<Mapper> {
        let first = cores[0].clone();
        on_core(&first, move || {
            start(meta, factory, instance, cores, config)
        })
        .await?;
        Ok(Mapper { catalogue: first })
    }

    async fn verb<F, Fut, T>(&self, verb: F) -> Result<T>
    where
        F: FnOnce(Rc<Catalogue>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        on_core(
            &self.catalogue,
            move || async move { verb(catalogue()?).await },
        )
        .await
    }

    /// Makes everything durable and ends. Who serves volumes has stopped before.
    pub async fn stop(&self) -> Result<()> {
        self.verb(|catalogue| async move { catalogue.stop().await })
            .await
    }

    pub async fn create_volume(&self, new: NewVolume) -> Result<VolumeInfo> {
        self.verb(|catalogue| async move { catalogue.create_volume(new).await })
            .await
    }

    /// In order of their names.
    pub async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.verb(|catalogue| async move { catalogue.list_volumes() })
            .await
    }

    pub async fn volume(&self, name: ResourceName) -> Result<VolumeInfo> {
        self.verb(move |catalogue| async move { catalogue.volume_by_name(&name) })
            .await
    }

    /// Bytes of objects that the volume's committed map names. Reads the whole map.
    pub async fn mapped_bytes(&self, name: ResourceName) -> Result<u64> {
        self.verb(move |catalogue| async move {
            let id = catalogue.volume_by_name(&name)?.id;
            catalogue.mapped_bytes(id).await
        })
        .await
    }

    /// Opens it on its home core; opening it again is the same volume.
    pub async fn open_volume(&self, name: ResourceName) -> Result<VolumeHandle> {
        self.verb(move |catalogue| async move { catalogue.open_volume(&name).await })
            .await
    }

    /// To `size` bytes. What a shrink cut off never comes back.
    pub async fn resize_volume(&self, name: ResourceName, size: u64) -> Result<VolumeInfo> {
        self.verb(move |catalogue| async move { catalogue.resize_volume(&name, size).await })
            .await
    }

    pub async fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Result<VolumeInfo> {
        self.verb(move |catalogue| async move { catalogue.rename_volume(&name, to).await })
            .await
    }

    pub async fn delete_volume(&self, name: ResourceName) -> Result<()> {
        self.verb(move |catalogue| async move { catalogue.delete_volume(&name).await })
            .await
    }

    pub async fn add_export(
        &self,
        name: ResourceName,
        protocol: Protocol,
        read_only: bool,
    ) -> Result<ExportInfo> {
        self.verb(
            move |catalogue| async move { catalogue.add_export(&name, protocol, read_only).await },
        )
        .await
    }

    /// In order of their names.
    pub async fn exports(&self) -> Result<Vec<ExportInfo>> {
        self.verb(|catalogue| async move { catalogue.list_exports() })
            .await
    }

    pub async fn remove_export(
        &self,
        name: ResourceName,
        protocol: Protocol,
    ) -> Result<ExportInfo> {
        self.verb(move |catalogue| async move { catalogue.remove_export(&name, protocol).await })
            .await
    }

    pub async fn add_pool(&self, new: NewPool) -> Result<PoolInfo> {
        self.verb(|catalogue| async move { catalogue.add_pool(new).await })
            .await
    }

    pub async fn pools(&self) -> Result<Vec<PoolInfo>> {
        self.verb(|catalogue| async move { catalogue.list_pools().await })
            .await
    }

    pub async fn pool(&self, name: ResourceName) -> Result<PoolInfo> {
        self.verb(move |catalogue| async move { catalogue.pool_by_name(&name).await })
            .await
    }

    pub async fn remove_pool(&self, name: ResourceName) -> Result<()> {
        self.verb(move |catalogue| async move { catalogue.remove_pool(&name).await })
            .await
    }
}

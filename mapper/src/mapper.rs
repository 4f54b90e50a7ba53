//! The mapper as the rest of the daemon uses it, from any thread: every verb runs on core 0.

use crate::catalogue::{
    Catalogue, Copied, ExportInfo, FlattenProgress, GcStatus, MapperConfig, NewClone, NewPool,
    NewSnapshot, NewVolume, PoolFactory, PoolInfo, PoolUsage, TreeNode, VolumeInfo, catalogue,
    start,
};
use crate::error::Result;
use crate::format::Protocol;
use crate::handle::{VolumeHandle, on_core};
use crate::meta::MetaStore;
use crate::types::{InstanceId, ResourceName};
use crate::volume::Changes;
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

    /// Bytes of the objects that the committed maps of a resource and of all that it inherits from name, at most what all
    /// of the resource takes: an upper bound, because an ancestor's object may be covered.
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

    /// Snapshots of several volumes, all of one instant, which exist all or none. A snapshot has every write that was
    /// acknowledged before it was asked for, and none that was submitted after it was answered.
    pub async fn create_snapshots(&self, new: Vec<NewSnapshot>) -> Result<Vec<VolumeInfo>> {
        self.verb(|catalogue| async move { catalogue.create_snapshots(new).await })
            .await
    }

    /// A volume that begins as a snapshot is.
    pub async fn create_clone(&self, new: NewClone) -> Result<VolumeInfo> {
        self.verb(|catalogue| async move { catalogue.create_clone(new).await })
            .await
    }

    /// The volume becomes what a snapshot of its tree is, its size too.
    pub async fn rollback(
        &self,
        volume: ResourceName,
        snapshot: ResourceName,
    ) -> Result<VolumeInfo> {
        self.verb(move |catalogue| async move { catalogue.rollback(&volume, &snapshot).await })
            .await
    }

    /// Copies into the volume what it inherits, a part with each call, from byte `from` on: 0 first, then what the answer
    /// says is done, until it has ended.
    pub async fn flatten(&self, volume: ResourceName, from: u64) -> Result<FlattenProgress> {
        self.verb(move |catalogue| async move { catalogue.flatten(&volume, from).await })
            .await
    }

    /// A protected resource cannot be deleted, and a protected volume not be rolled back.
    pub async fn protect(&self, name: ResourceName, on: bool) -> Result<VolumeInfo> {
        self.verb(move |catalogue| async move { catalogue.protect(&name, on).await })
            .await
    }

    /// All nodes, parents before their children.
    pub async fn tree(&self) -> Result<Vec<TreeNode>> {
        self.verb(|catalogue| async move { catalogue.tree().await })
            .await
    }

    /// Copies a range between two resources of a pool, or inside of one without overlap: where objects are aligned by
    /// naming them twice.
    pub async fn copy_range(
        &self,
        from: ResourceName,
        offset: u64,
        to: ResourceName,
        to_offset: u64,
        len: u64,
    ) -> Result<Copied> {
        self.verb(move |catalogue| async move {
            catalogue
                .copy_range(&from, offset, &to, to_offset, len)
                .await
        })
        .await
    }

    /// What of `to`, from byte `offset` on, may differ from `from`, a resource of the same tree; without `from`, what
    /// of it is stored. At most `most` extents.
    pub async fn changes(
        &self,
        from: Option<ResourceName>,
        to: ResourceName,
        offset: u64,
        most: usize,
    ) -> Result<Changes> {
        self.verb(move |catalogue| async move {
            catalogue.changes(from.as_ref(), &to, offset, most).await
        })
        .await
    }

    pub async fn pool_usage(&self, pool: ResourceName) -> Result<PoolUsage> {
        self.verb(move |catalogue| async move { catalogue.pool_usage(&pool).await })
            .await
    }

    pub async fn gc_status(&self) -> Result<GcStatus> {
        self.verb(|catalogue| async move { catalogue.gc_status().await })
            .await
    }

    /// Lets the garbage collector begin at once, the leak scan too; the status says when nothing runs any more.
    pub async fn gc_run(&self) -> Result<()> {
        self.verb(|catalogue| async move { catalogue.gc_run().await })
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

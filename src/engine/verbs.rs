//! The admin's verbs on the engine. A change runs as a task of its own, one at a time: a client
//! that goes away leaves none half made. Not the checks of requests, which `admin` has done.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use atoll_backends::{ObjectSize, PoolId};
use atoll_mapper::format::{Protocol as Below, ResourceKind as Kind};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{ExportInfo, Mapper, NewPool, NewVolume};
use uuid::Uuid;

use crate::api::*;
use crate::config::PollMode;
use crate::control::{Answer, Control};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::{ByteSize, UnixSeconds};

use super::convert::{self, name_above, name_below};
use super::pools::{MEMORY_POOL_CAPACITY, PoolOptions};
use super::portal::{Sessions, Target};
use super::{Engine, failure, lock};

/// LUN of a volume in the target that exports it.
const LUN: u16 = 0;

fn below(error: atoll_mapper::Error) -> Error {
    failure::of_mapper(&error)
}

/// A running engine as the control plane has it.
pub struct Verbs {
    pub(super) engine: Arc<Engine>,
}

impl Verbs {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Runs a change to its end, whether or not anybody waits for it.
    pub(super) fn change<T, F>(
        &self,
        verb: impl FnOnce(Arc<Engine>) -> F + Send + 'static,
    ) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            let change = tokio::spawn(async move {
                let other = Arc::clone(&engine);
                let stopped = other.stopped.lock().await;
                if *stopped {
                    return Err(Error::unavailable("the daemon is stopping"));
                }
                verb(engine).await
            });
            change
                .await
                .unwrap_or_else(|e| Err(Error::internal(format!("the change ended: {e}"))))
        })
    }

    pub(super) fn ask<T, F>(&self, verb: impl FnOnce(Arc<Engine>) -> F) -> Answer<'_, T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Box::pin(verb(Arc::clone(&self.engine)))
    }
}

/// What a pool's row in the catalogue begins with.
pub fn new_pool(
    name: ResourceName,
    pool_type: PoolType,
    path: Option<String>,
    object_size: ByteSize,
) -> Result<NewPool> {
    let options = PoolOptions {
        path,
        capacity: (pool_type == PoolType::Memory).then_some(MEMORY_POOL_CAPACITY),
        created: UnixSeconds::from(std::time::SystemTime::now()),
    };
    let size = u32::try_from(object_size.get()).ok();
    Ok(NewPool {
        name: name_below(&name)?,
        id: PoolId(*Uuid::new_v4().as_bytes()),
        kind: convert::pool_kind(pool_type),
        object_size: size
            .and_then(ObjectSize::new)
            .ok_or_else(|| Error::invalid(format!("objects of {object_size} are not possible")))?,
        options: options.to_text()?,
    })
}

/// Opens the volume of an export.
pub async fn target_of(mapper: &Mapper, name: &ResourceName, read_only: bool) -> Result<Target> {
    let info = mapper.volume(name_below(name)?).await.map_err(below)?;
    let volume = mapper.open_volume(name_below(name)?).await.map_err(below)?;
    Ok(Target {
        iqn: name.iqn(),
        volume,
        info,
        read_only,
    })
}

impl Engine {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        let pool = name_below(&request.pool)?;
        let new = NewVolume {
            id: ResourceId(*Uuid::new_v4().as_bytes()),
            name: name_below(&request.name)?,
            size: request.size.get(),
            block: convert::block_below(request.block_size),
            pool,
        };
        let info = self.mapper.create_volume(new).await.map_err(|error| {
            let error = below(error);
            match error.kind {
                ErrorKind::NotFound => error.hint("atoll pool list"),
                _ => error,
            }
        })?;
        convert::volume(&info, Some(ByteSize::default()))
    }

    async fn volume(&self, name: ResourceName) -> Result<Volume> {
        let name = name_below(&name)?;
        let info = self.mapper.volume(name.clone()).await.map_err(below)?;
        let used = self.mapper.mapped_bytes(name).await.map_err(below)?;
        convert::volume(&info, Some(ByteSize::bytes(used)))
    }

    pub(super) async fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Result<Volume> {
        let id = self.writable(&name).await?.id;
        self.imports.restart(Uuid::from_bytes(id.0)).await?;
        let resized = self.mapper.resize_volume(name_below(&name)?, size.get());
        let info = resized.await.map_err(below)?;
        if self.export_of(&name).await?.is_some() {
            self.portal.capacity_changed(&name.iqn()).await?;
        }
        convert::volume(&info, None)
    }

    async fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Result<Volume> {
        let renamed = self
            .mapper
            .rename_volume(name_below(&name)?, name_below(&to)?);
        match renamed.await {
            Ok(info) => convert::volume(&info, None),
            Err(error) => Err(self.in_use(error, &name).await),
        }
    }

    async fn delete_volume(&self, name: ResourceName) -> Result<VolumeKind> {
        let was = convert::volume(&self.info(&name).await?, None)?;
        was.check_unprotected()?;
        lock(&self.handles).remove(&was.id);
        match self.mapper.delete_volume(name_below(&name)?).await {
            Ok(()) => self.imports.end(was.id).await.map(|()| was.kind),
            Err(error) => Err(self.in_use(error, &name).await),
        }
    }

    pub(super) async fn export_of(&self, name: &ResourceName) -> Result<Option<ExportInfo>> {
        let exports = self.mapper.exports().await.map_err(below)?;
        let wanted = name_below(name)?;
        Ok(exports.into_iter().find(|export| export.name == wanted))
    }

    /// Volume first, so that an export which cannot be served is not kept; catalogue before
    /// target, so that nobody writes to what a crash would hide again.
    async fn add_export(&self, request: AddExport) -> Result<Export> {
        let AddExport {
            name, read_only, ..
        } = request;
        if let Some(export) = self.export_of(&name).await? {
            let error = format!("volume {:?} is exported already", export.name.as_str());
            return Err(Error::new(ErrorKind::AlreadyExists, error));
        }
        let info = self.info(&name).await?;
        self.check_whole(&info)?;
        let kind = convert::kind(&info)?;
        let read_only = read_only || kind == VolumeKind::Snapshot;
        let target = target_of(&self.mapper, &name, read_only).await?;
        let added = self
            .mapper
            .add_export(name_below(&name)?, Below::Iscsi, read_only);
        let info = added.await.map_err(below)?;
        if let Err(error) = self.portal.add(target).await {
            let taken_back = self.mapper.remove_export(name_below(&name)?, Below::Iscsi);
            if let Err(why) = taken_back.await {
                tracing::error!(export = %name, error = %why, "kept, but not served");
                lock(&self.unserved).insert(name, error.message.clone());
            }
            return Err(error);
        }
        self.export(&info, kind, 0)
    }

    async fn remove_export(&self, name: ResourceName) -> Result<()> {
        let removed = self.mapper.remove_export(name_below(&name)?, Below::Iscsi);
        removed.await.map_err(|error| {
            let error = below(error);
            match error.kind {
                ErrorKind::NotFound => Error::not_found(format!("no export {:?}", name.as_str())),
                _ => error,
            }
        })?;
        let unserved = lock(&self.unserved).remove(&name).is_some();
        if unserved {
            return Ok(());
        }
        self.portal.remove(&name.iqn()).await
    }

    async fn exports(&self) -> Result<Vec<Export>> {
        let sessions = self.portal.sessions().await?;
        let infos = self.mapper.exports().await.map_err(below)?;
        let mut exports = Vec::new();
        for info in &infos {
            let name = name_above(&info.name)?;
            let kind = convert::kind(&self.info(&name).await?)?;
            exports.push(self.export(info, kind, sessions.of(&name.iqn()))?);
        }
        Ok(exports)
    }

    fn export(&self, info: &ExportInfo, kind: VolumeKind, sessions: u64) -> Result<Export> {
        let name = name_above(&info.name)?;
        Ok(Export {
            target: name.iqn(),
            kind,
            lun: LUN,
            read_only: info.read_only,
            protocols: vec![Protocol::Iscsi],
            portals: vec![self.portal.reached_at()],
            sessions,
            fault: lock(&self.unserved).get(&name).cloned(),
            name,
        })
    }

    async fn add_pool(&self, request: AddPool) -> Result<Pool> {
        let AddPool {
            name,
            pool_type,
            path,
            object_size,
            ..
        } = request;
        let new = new_pool(name, pool_type, path, object_size)?;
        let info = self.mapper.add_pool(new).await.map_err(|error| {
            let error = below(error);
            match error.kind {
                ErrorKind::InUse => error.hint(
                    "name another directory; that of a pool that was removed stays, and is yours to delete",
                ),
                _ => error,
            }
        })?;
        convert::pool(&info, &self.data)
    }

    async fn pools(&self) -> Result<Vec<Pool>> {
        let infos = self.mapper.pools().await.map_err(below)?;
        infos
            .iter()
            .map(|info| convert::pool(info, &self.data))
            .collect()
    }

    async fn pool(&self, name: ResourceName) -> Result<Pool> {
        let info = self.mapper.pool(name_below(&name)?).await.map_err(below)?;
        let pool = convert::pool(&info, &self.data)?;
        let usage = match pool.state {
            PoolState::Ok => self.pool_usage(&name).await?,
            PoolState::Faulted => None,
        };
        Ok(Pool { usage, ..pool })
    }

    async fn remove_pool(&self, name: ResourceName) -> Result<()> {
        if name == default_pool() {
            return Err(Error::refused(format!(
                "pool {:?} is the default one, which every daemon has",
                name.as_str()
            )));
        }
        self.mapper
            .remove_pool(name_below(&name)?)
            .await
            .map_err(below)
    }

    async fn status(&self) -> Result<Status> {
        let exports = self.mapper.exports().await.map_err(below)?;
        let infos = self.mapper.volumes().await.map_err(below)?;
        let volumes = infos.iter().filter(|info| info.row.kind == Kind::Volume);
        let volumes = volumes.count();
        let pools = self.mapper.pools().await.map_err(below)?;
        let sessions = self.portal.sessions().await?;
        let address = self.portal.address();
        let advertise = self.config.iscsi.advertise;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            data: self.data.display().to_string(),
            cores: self.core_status(&sessions),
            listeners: vec![Listener {
                protocol: Protocol::Iscsi,
                address: address.to_string(),
                advertise: advertise.map(|advertise| advertise.address(address).to_string()),
            }],
            pools: pools.len() as u64,
            volumes: volumes as u64,
            snapshots: (infos.len() - volumes) as u64,
            exports: exports.len() as u64,
            sessions: sessions.all(),
            metadata: self.metadata_status().await?,
        })
    }

    fn core_status(&self, sessions: &Sessions) -> Vec<CoreStatus> {
        let reactor = &self.config.reactor;
        let poll = match reactor.poll {
            PollMode::Adaptive => "adaptive",
            PollMode::Always => "always",
            PollMode::Never => "never",
        };
        let cores = self.cores.iter().zip(&reactor.cores);
        cores
            .map(|(core, cpu)| CoreStatus {
                id: core.id().0.into(),
                cpu: *cpu,
                poll: poll.to_owned(),
                busy_share: core.stats().busy_share(),
                buffers: reactor.buffer_memory,
                sessions: sessions.on(core.id()),
            })
            .collect()
    }

    async fn metadata_status(&self) -> Result<MetadataStatus> {
        let meta = Arc::clone(&self.meta);
        let asked = self.cores[0].call(move || async move { meta.status().await });
        let status = asked
            .await
            .map_err(|e| Error::unavailable(format!("core 0: {e}")))?
            .map_err(below)?;
        let fault = match (status.failed, status.full) {
            (true, _) => Some("it has failed and takes no change: restart the daemon"),
            (_, true) => Some("its file system is full: only what frees space is possible"),
            _ => None,
        };
        let path = super::absolute(&self.config.metadata_path())?;
        Ok(MetadataStatus {
            store: "rocksdb".to_owned(),
            path: path.display().to_string(),
            used: ByteSize::bytes(status.bytes_used),
            free: status.bytes_free.map(ByteSize::bytes),
            page_memory: self.config.metadata.page_memory,
            fault: fault.map(str::to_owned),
        })
    }

    async fn stats(&self) -> Result<Stats> {
        let infos = self.mapper.volumes().await.map_err(below)?;
        let mut volumes = Vec::new();
        for info in infos {
            if let Some(shared) = &info.shared {
                volumes.push(VolumeStats {
                    name: name_above(&info.row.name)?,
                    io: convert::io_stats(shared),
                });
            }
        }
        Ok(Stats {
            uptime_seconds: self.started.elapsed().as_secs(),
            cores: self.cores.iter().map(convert::core_stats).collect(),
            volumes,
            exports: self.export_stats().await?,
        })
    }

    async fn export_stats(&self) -> Result<Vec<ExportStats>> {
        let mut exports = Vec::new();
        for info in self.mapper.exports().await.map_err(below)? {
            let name = name_above(&info.name)?;
            if let Some(stats) = self.portal.stats(&name.iqn()).await? {
                exports.push(ExportStats {
                    name,
                    commands: convert::command_stats(&stats.counters),
                });
            }
        }
        Ok(exports)
    }
}

impl Control for Verbs {
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume> {
        self.change(|engine| async move { engine.create_volume(request).await })
    }

    fn volumes(&self, ask: ListVolumes) -> Answer<'_, VolumePage> {
        self.ask(|engine| async move { engine.volumes(ask).await })
    }

    fn volume(&self, name: ResourceName) -> Answer<'_, Volume> {
        self.ask(|engine| async move { engine.volume(name).await })
    }

    fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Answer<'_, Volume> {
        self.change(move |engine| async move { engine.resize_volume(name, size).await })
    }

    fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Answer<'_, Volume> {
        self.change(|engine| async move { engine.rename_volume(name, to).await })
    }

    fn delete_volume(&self, name: ResourceName) -> Answer<'_, VolumeKind> {
        self.change(|engine| async move { engine.delete_volume(name).await })
    }

    fn take_snapshots(&self, members: Vec<SnapshotOf>) -> Answer<'_, Vec<Volume>> {
        self.change(|engine| async move { engine.take_snapshots(members).await })
    }

    fn clone_snapshot(&self, snapshot: ResourceName, request: CloneSnapshot) -> Answer<'_, Volume> {
        self.change(|engine| async move { engine.clone_snapshot(snapshot, request).await })
    }

    fn comes_from(&self, name: ResourceName, snapshot: ResourceName) -> Answer<'_, bool> {
        self.ask(|engine| async move { engine.comes_from(&name, &snapshot).await })
    }

    fn roll_back(&self, volume: ResourceName, snapshot: ResourceName) -> Answer<'_, Volume> {
        self.change(|engine| async move { engine.roll_back(volume, snapshot).await })
    }

    fn flatten(&self, volume: ResourceName, from: u64) -> Answer<'_, Flattening> {
        self.change(move |engine| async move { engine.flatten(volume, from).await })
    }

    fn copy_volume(&self, source: ResourceName, request: CopyVolume) -> Answer<'_, Copying> {
        self.change(|engine| async move { engine.copy_volume(source, request).await })
    }

    fn protect(&self, name: ResourceName, protected: bool) -> Answer<'_, Volume> {
        self.change(move |engine| async move { engine.protect(name, protected).await })
    }

    fn tree(&self, ask: AskTree) -> Answer<'_, TreePage> {
        self.ask(|engine| async move { engine.tree(ask).await })
    }

    fn gc_status(&self) -> Answer<'_, GcStatus> {
        self.ask(|engine| async move { engine.gc_status().await })
    }

    fn gc_run(&self) -> Answer<'_, GcStatus> {
        self.change(|engine| async move { engine.gc_run().await })
    }

    fn add_export(&self, request: AddExport) -> Answer<'_, Export> {
        self.change(|engine| async move { engine.add_export(request).await })
    }

    fn exports(&self) -> Answer<'_, Vec<Export>> {
        self.ask(|engine| async move { engine.exports().await })
    }

    fn remove_export(&self, name: ResourceName) -> Answer<'_, ()> {
        self.change(|engine| async move { engine.remove_export(name).await })
    }

    fn add_pool(&self, request: AddPool) -> Answer<'_, Pool> {
        self.change(|engine| async move { engine.add_pool(request).await })
    }

    fn pools(&self) -> Answer<'_, Vec<Pool>> {
        self.ask(|engine| async move { engine.pools().await })
    }

    fn pool(&self, name: ResourceName) -> Answer<'_, Pool> {
        self.ask(|engine| async move { engine.pool(name).await })
    }

    fn remove_pool(&self, name: ResourceName) -> Answer<'_, ()> {
        self.change(|engine| async move { engine.remove_pool(name).await })
    }

    fn status(&self) -> Answer<'_, Status> {
        self.ask(|engine| async move { engine.status().await })
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.ask(|engine| async move { engine.stats().await })
    }

    fn iscsi_address(&self) -> SocketAddr {
        self.engine.portal.address()
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        self.ask(|engine| async move { engine.stop().await })
    }

    fn failure(&self) -> Pin<Box<dyn Future<Output = Error> + Send + '_>> {
        // A reactor that dies ends the process by itself: half a daemon would leave its volumes
        // hanging where their initiators could fail over.
        Box::pin(pending())
    }
}

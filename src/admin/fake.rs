//! An engine that keeps its catalogue in memory and moves no data: the tests' other side of
//! `Control`. Identities and times are fixed, so that answers can be compared as text.

mod snapshots;
mod transfer;

use std::collections::BTreeMap;
use std::future::{Future, pending, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};

use uuid::Uuid;

use crate::api::*;
use crate::control::{Answer, Control};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::{ByteSize, UnixSeconds};

const CREATED: UnixSeconds = UnixSeconds(1_796_083_199);

#[derive(Default)]
struct Catalogue {
    volumes: BTreeMap<ResourceName, Volume>,
    exports: BTreeMap<ResourceName, Export>,
    pools: BTreeMap<ResourceName, Pool>,
    nodes: BTreeMap<u64, snapshots::Node>,
    last_node: u64,
    /// Identities given out.
    ids: u128,
    /// How often the garbage collector will be seen running, and nodes that it has merged.
    gc_steps: u64,
    merged: u64,
    contents: BTreeMap<Uuid, transfer::Content>,
    imports: BTreeMap<Uuid, transfer::Unfinished>,
    writes_left: Option<u64>,
    stopped: bool,
}

pub struct FakeControl {
    catalogue: Mutex<Catalogue>,
    /// `shutdown` never ends.
    pub hang_at_shutdown: bool,
    /// What `failure` ends with.
    pub failure: Option<Error>,
}

impl FakeControl {
    pub fn new() -> Self {
        let fake = Self {
            catalogue: Mutex::default(),
            hang_at_shutdown: false,
            failure: None,
        };
        let main = AddPool {
            name: default_pool(),
            pool_type: PoolType::File,
            path: Some("/data/main".to_owned()),
            object_size: DEFAULT_OBJECT_SIZE,
            if_not_exists: false,
        };
        fake.with(|c| c.add_pool(main)).unwrap();
        fake
    }

    fn lock(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap()
    }

    fn with<T>(&self, call: impl FnOnce(&mut Catalogue) -> Result<T>) -> Result<T> {
        let mut catalogue = self.lock();
        if catalogue.stopped {
            return Err(Error::unavailable("the daemon is stopping"));
        }
        call(&mut catalogue)
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn answer<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Catalogue) -> Result<T>,
    ) -> Answer<'_, T> {
        Box::pin(ready(self.with(call)))
    }
}

fn no(what: &str, name: &ResourceName) -> Error {
    Error::not_found(format!("no {what} {:?}", name.as_str()))
}

fn taken(what: &str, name: &ResourceName) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("there is a {what} {:?} already", name.as_str()),
    )
}

impl Catalogue {
    fn volume(&self, name: &ResourceName) -> Result<Volume> {
        let found = self.volumes.get(name).cloned();
        let volume = found.ok_or_else(|| no("volume", name))?;
        Ok(Volume {
            origin: self.origins(name).into_iter().next(),
            ..volume
        })
    }

    fn new_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn volumes(&self, ask: &ListVolumes) -> Result<VolumePage> {
        let all: Vec<&Volume> = self.volumes.values().collect();
        let (page, more) = ask.page(
            &all,
            |volume| volume.name.as_str(),
            |v, kind| v.kind == kind,
        );
        let page = page.into_iter().map(|i| self.volume(&all[i].name));
        let volumes = page.collect::<Result<Vec<_>>>()?;
        let last = volumes.last().filter(|_| more);
        Ok(VolumePage {
            next: last.map(|volume| volume.name.clone()),
            volumes,
        })
    }

    fn create_volume(&mut self, request: CreateVolume) -> Result<Volume> {
        if self.volumes.contains_key(&request.name) {
            return Err(taken("volume", &request.name));
        }
        let pool = self
            .pools
            .get_mut(&request.pool)
            .ok_or_else(|| no("pool", &request.pool))?;
        pool.volumes += 1;
        self.add_root(&request.name);
        let volume = Volume {
            name: request.name.clone(),
            id: self.new_id(),
            kind: VolumeKind::Volume,
            size: request.size,
            block_size: request.block_size,
            pool: request.pool,
            origin: None,
            protected: false,
            used: Some(ByteSize::default()),
            state: VolumeState::Ok,
            fault: None,
            created: CREATED,
        };
        self.volumes.insert(request.name, volume.clone());
        Ok(volume)
    }

    fn not_exported(&self, name: &ResourceName) -> Result<()> {
        match self.exports.get(name) {
            Some(export) => Err(
                Error::in_use(format!("it is exported as {}", export.target))
                    .hint(format!("atoll export remove {name}")),
            ),
            None => Ok(()),
        }
    }

    fn add_pool(&mut self, request: AddPool) -> Result<Pool> {
        if self.pools.contains_key(&request.name) {
            return Err(taken("pool", &request.name));
        }
        let pool = Pool {
            name: request.name.clone(),
            id: Uuid::from_u128(0x100 + self.pools.len() as u128),
            pool_type: request.pool_type,
            path: request.path,
            object_size: request.object_size,
            capacity: (request.pool_type == PoolType::File).then_some(ByteSize::mib(1 << 20)),
            free: (request.pool_type == PoolType::File).then_some(ByteSize::mib(1 << 19)),
            volumes: 0,
            usage: None,
            state: PoolState::Ok,
            fault: None,
            created: CREATED,
        };
        self.pools.insert(request.name, pool.clone());
        Ok(pool)
    }

    fn status(&self) -> Status {
        Status {
            version: "0.0.0".to_owned(),
            pid: 1,
            uptime_seconds: 61,
            data: "/data".to_owned(),
            cores: vec![CoreStatus {
                id: 0,
                cpu: 3,
                poll: "adaptive".to_owned(),
                busy_share: 0.25,
                buffers: ByteSize::mib(64),
                sessions: 0,
            }],
            listeners: vec![Listener {
                protocol: Protocol::Iscsi,
                address: "127.0.0.1:3260".to_owned(),
                advertise: None,
            }],
            pools: self.pools.len() as u64,
            volumes: self.count(VolumeKind::Volume),
            snapshots: self.count(VolumeKind::Snapshot),
            exports: self.exports.len() as u64,
            sessions: 0,
            metadata: MetadataStatus {
                store: "memory".to_owned(),
                path: "/data/meta".to_owned(),
                used: ByteSize::default(),
                free: Some(ByteSize::mib(1024)),
                page_memory: ByteSize::mib(64),
                fault: None,
            },
        }
    }

    fn count(&self, kind: VolumeKind) -> u64 {
        self.volumes.values().filter(|v| v.kind == kind).count() as u64
    }

    fn stats(&self) -> Stats {
        let io = IoStats {
            reads: 2,
            read_bytes: 8192,
            ..IoStats::default()
        };
        let of = |name: &ResourceName| VolumeStats {
            name: name.clone(),
            io,
        };
        Stats {
            uptime_seconds: 61,
            cores: vec![CoreStats {
                turns: 7,
                busy_ns: 1_500_000,
                ..CoreStats::default()
            }],
            volumes: self.volumes.keys().map(of).collect(),
            exports: Vec::new(),
        }
    }
}

impl Control for FakeControl {
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume> {
        self.answer(|c| c.create_volume(request))
    }

    fn volumes(&self, ask: ListVolumes) -> Answer<'_, VolumePage> {
        self.answer(move |c| c.volumes(&ask))
    }

    fn volume(&self, name: ResourceName) -> Answer<'_, Volume> {
        self.answer(|c| c.volume(&name))
    }

    fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Answer<'_, Volume> {
        self.answer(|c| {
            let volume = c
                .volumes
                .get_mut(&name)
                .ok_or_else(|| no("volume", &name))?;
            if volume.kind == VolumeKind::Snapshot {
                return Err(Error::refused("it is a snapshot, which never changes"));
            }
            volume.size = size;
            c.volume(&name)
        })
    }

    fn rename_volume(&self, name: ResourceName, to: ResourceName) -> Answer<'_, Volume> {
        self.answer(|c| {
            let mut volume = c.volume(&name)?;
            c.not_exported(&name)?;
            if c.volumes.contains_key(&to) {
                return Err(taken("volume", &to));
            }
            c.volumes.remove(&name);
            c.rename_node(&name, &to)?;
            volume.name = to.clone();
            c.volumes.insert(to, volume.clone());
            Ok(volume)
        })
    }

    fn delete_volume(&self, name: ResourceName) -> Answer<'_, VolumeKind> {
        self.answer(|c| {
            let volume = c.volume(&name)?;
            volume.check_unprotected()?;
            c.not_exported(&name)?;
            c.drop_node(&name)?;
            c.volumes.remove(&name);
            c.contents.remove(&volume.id);
            c.imports.remove(&volume.id);
            c.pools
                .get_mut(&volume.pool)
                .map(|pool| pool.volumes -= 1)
                .ok_or_else(|| no("pool", &volume.pool))?;
            Ok(volume.kind)
        })
    }

    fn take_snapshots(&self, members: Vec<SnapshotOf>) -> Answer<'_, Vec<Volume>> {
        self.answer(move |c| c.take_snapshots(&members))
    }

    fn clone_snapshot(&self, snapshot: ResourceName, request: CloneSnapshot) -> Answer<'_, Volume> {
        self.answer(move |c| c.clone_snapshot(&snapshot, request))
    }

    fn comes_from(&self, name: ResourceName, snapshot: ResourceName) -> Answer<'_, bool> {
        self.answer(move |c| Ok(c.origins(&name).contains(&snapshot)))
    }

    fn roll_back(&self, volume: ResourceName, snapshot: ResourceName) -> Answer<'_, Volume> {
        self.answer(move |c| c.roll_back(&volume, &snapshot))
    }

    fn flatten(&self, volume: ResourceName, from: u64) -> Answer<'_, Flattening> {
        self.answer(move |c| c.flatten(&volume, from))
    }

    fn copy_volume(&self, source: ResourceName, request: CopyVolume) -> Answer<'_, Copying> {
        self.answer(move |c| c.copy_volume(&source, &request))
    }

    fn protect(&self, name: ResourceName, protected: bool) -> Answer<'_, Volume> {
        self.answer(move |c| c.protect(&name, protected))
    }

    fn tree(&self, ask: AskTree) -> Answer<'_, TreePage> {
        self.answer(move |c| ask.page(c.tree()?))
    }

    fn gc_status(&self) -> Answer<'_, GcStatus> {
        self.answer(|c| Ok(c.gc_status()))
    }

    fn gc_run(&self) -> Answer<'_, GcStatus> {
        self.answer(|c| Ok(c.gc_run()))
    }

    fn add_export(&self, request: AddExport) -> Answer<'_, Export> {
        self.answer(|c| {
            let kind = c.volume(&request.name)?.kind;
            if c.exports.contains_key(&request.name) {
                return Err(taken("export of volume", &request.name));
            }
            let export = Export {
                target: request.name.iqn(),
                name: request.name.clone(),
                kind,
                lun: 0,
                read_only: request.read_only || kind == VolumeKind::Snapshot,
                protocols: request.protocols,
                portals: vec!["127.0.0.1:3260".to_owned()],
                sessions: 0,
                fault: None,
            };
            c.exports.insert(request.name, export.clone());
            Ok(export)
        })
    }

    fn exports(&self) -> Answer<'_, Vec<Export>> {
        self.answer(|c| Ok(c.exports.values().cloned().collect()))
    }

    fn remove_export(&self, name: ResourceName) -> Answer<'_, ()> {
        self.answer(|c| {
            c.exports
                .remove(&name)
                .map(|_| ())
                .ok_or_else(|| no("export", &name))
        })
    }

    fn add_pool(&self, request: AddPool) -> Answer<'_, Pool> {
        self.answer(|c| c.add_pool(request))
    }

    fn pools(&self) -> Answer<'_, Vec<Pool>> {
        self.answer(|c| Ok(c.pools.values().cloned().collect()))
    }

    fn pool(&self, name: ResourceName) -> Answer<'_, Pool> {
        self.answer(|c| {
            let pool = c.pools.get(&name).cloned();
            let pool = pool.ok_or_else(|| no("pool", &name))?;
            let usage = Some(c.usage(&name));
            Ok(Pool { usage, ..pool })
        })
    }

    fn remove_pool(&self, name: ResourceName) -> Answer<'_, ()> {
        self.answer(|c| {
            let pool = c.pools.get(&name).ok_or_else(|| no("pool", &name))?;
            if pool.volumes > 0 {
                return Err(Error::in_use(format!("{} volumes are in it", pool.volumes)));
            }
            c.pools.remove(&name);
            Ok(())
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        self.answer(|c| Ok(c.status()))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.answer(|c| Ok(c.stats()))
    }

    fn iscsi_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 3260))
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        if self.hang_at_shutdown {
            return Box::pin(pending());
        }
        self.lock().stopped = true;
        Box::pin(ready(Ok(())))
    }

    fn failure(&self) -> Pin<Box<dyn Future<Output = Error> + Send + '_>> {
        match &self.failure {
            Some(error) => Box::pin(ready(error.clone())),
            None => Box::pin(pending()),
        }
    }
}

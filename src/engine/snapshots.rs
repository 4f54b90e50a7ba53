//! The admin's verbs on the tree of resources: snapshots, clones, rollback, flattening, copies; and
//! what the garbage collector is asked. A long verb is done in steps, each a change of its own.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use atoll_mapper::format::ResourceKind;
use atoll_mapper::types::ResourceId;
use atoll_mapper::{ErrorKind as Below, NewClone, NewSnapshot, VolumeInfo};
use uuid::Uuid;

use super::convert::{self, name_below};
use super::{Engine, failure};
use crate::api::*;
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// Bytes of a copy that are asked for at first, and most of one piece. Pieces grow while all of them
/// is shared, which takes no time; what is really copied holds other verbs up for a piece.
const COPY_PIECE: u64 = 64 << 20;
const MAX_COPY_PIECE: u64 = 1 << 30;
/// How long a step of a copy goes on.
const COPY_STEP: Duration = Duration::from_millis(250);

fn below(error: atoll_mapper::Error) -> Error {
    failure::of_mapper(&error)
}

fn new_id() -> ResourceId {
    ResourceId(*Uuid::new_v4().as_bytes())
}

impl Engine {
    pub(super) async fn info(&self, name: &ResourceName) -> Result<VolumeInfo> {
        self.mapper.volume(name_below(name)?).await.map_err(below)
    }

    /// What is to be changed: a volume.
    pub(super) async fn writable(&self, name: &ResourceName) -> Result<VolumeInfo> {
        let info = self.info(name).await?;
        match info.row.kind {
            ResourceKind::Volume => Ok(info),
            ResourceKind::Snapshot => Err(Error::refused(format!(
                "{:?} is a snapshot, which never changes",
                name.as_str()
            ))
            .hint(format!("atoll volume clone {name} NEW"))),
            other => Err(Error::refused(format!(
                "{:?} is no volume but a {other:?}",
                name.as_str()
            ))),
        }
    }

    async fn snapshot(&self, name: &ResourceName) -> Result<VolumeInfo> {
        let info = self.info(name).await?;
        if info.row.kind != ResourceKind::Snapshot {
            let text = format!("{:?} is a volume, no snapshot", name.as_str());
            return Err(Error::refused(text).hint(format!("atoll volume snapshot {name} SNAP")));
        }
        Ok(info)
    }

    pub(super) async fn volumes(&self, ask: ListVolumes) -> Result<VolumePage> {
        let infos = self.mapper.volumes().await.map_err(below)?;
        let is = |info: &VolumeInfo, kind| convert::kind(info).is_ok_and(|its| its == kind);
        let (page, more) = ask.page(&infos, |info| info.row.name.as_str(), is);
        let page = page.iter().map(|i| convert::volume(&infos[*i], None));
        let volumes = page.collect::<Result<Vec<_>>>()?;
        let last = volumes.last().filter(|_| more);
        Ok(VolumePage {
            next: last.map(|volume| volume.name.clone()),
            volumes,
        })
    }

    pub(super) async fn take_snapshots(&self, members: Vec<SnapshotOf>) -> Result<Vec<Volume>> {
        let mut new = Vec::new();
        for SnapshotOf { volume, name } in &members {
            self.check_whole(&self.writable(volume).await?)?;
            new.push(NewSnapshot {
                id: new_id(),
                volume: name_below(volume)?,
                name: name_below(name)?,
            });
        }
        let taken = self.mapper.create_snapshots(new).await.map_err(below)?;
        let taken = taken.iter().map(|info| convert::volume(info, None));
        let mut taken = taken.collect::<Result<Vec<_>>>()?;
        // Below they are in another order.
        let places: HashMap<_, _> = (0..).zip(&members).map(|(i, m)| (&m.name, i)).collect();
        taken.sort_by_key(|snapshot| places.get(&snapshot.name).copied().unwrap_or(usize::MAX));
        Ok(taken)
    }

    pub(super) async fn clone_snapshot(
        &self,
        snapshot: ResourceName,
        request: CloneSnapshot,
    ) -> Result<Volume> {
        self.snapshot(&snapshot).await?;
        let new = NewClone {
            id: new_id(),
            snapshot: name_below(&snapshot)?,
            name: name_below(&request.to)?,
            size: request.size.map(ByteSize::get),
        };
        let info = self.mapper.create_clone(new).await.map_err(below)?;
        convert::volume(&info, None)
    }

    pub(super) async fn comes_from(
        &self,
        name: &ResourceName,
        snapshot: &ResourceName,
    ) -> Result<bool> {
        let wanted = name_below(snapshot)?;
        let mut passed = HashSet::new();
        let mut at = self.info(name).await?.origin;
        while let Some(origin) = at {
            if origin == wanted {
                return Ok(true);
            }
            // No name is passed twice: that ends, whatever changes meanwhile.
            if !passed.insert(origin.clone()) {
                break;
            }
            at = match self.mapper.volume(origin).await {
                Ok(info) => info.origin,
                Err(error) if error.kind() == Below::NotFound => None,
                Err(error) => return Err(below(error)),
            };
        }
        Ok(false)
    }

    pub(super) async fn roll_back(
        &self,
        volume: ResourceName,
        snapshot: ResourceName,
    ) -> Result<Volume> {
        let before = self.writable(&volume).await?;
        convert::volume(&before, None)?.check_unprotected()?;
        self.snapshot(&snapshot).await?;
        let exported = self.export_of(&volume).await?.is_some();
        if exported {
            let sessions = self.portal.sessions().await?.of(&volume.iqn());
            if sessions > 0 {
                return Err(Error::in_use(format!(
                    "{sessions} sessions are logged in to it, whose initiators would not know that its data has changed"
                ))
                .hint(format!("log out there, or `atoll export remove {volume}`")));
            }
        }
        // What was imported into it goes; it is whole again.
        self.imports.restart(Uuid::from_bytes(before.id.0)).await?;
        let done = self
            .mapper
            .rollback(name_below(&volume)?, name_below(&snapshot)?);
        let info = done.await.map_err(below)?;
        self.imports.end(Uuid::from_bytes(info.id.0)).await?;
        if exported && info.row.size != before.row.size {
            self.portal.capacity_changed(&volume.iqn()).await?;
        }
        convert::volume(&info, None)
    }

    pub(super) async fn flatten(&self, volume: ResourceName, from: u64) -> Result<Flattening> {
        self.writable(&volume).await?;
        let step = self.mapper.flatten(name_below(&volume)?, from);
        let step = step.await.map_err(below)?;
        Ok(Flattening {
            done: step.done,
            total: step.total,
            copied: step.copied,
            ended: step.ended,
        })
    }

    /// Copies for a moment, at least a piece.
    pub(super) async fn copy_volume(
        &self,
        source: ResourceName,
        request: CopyVolume,
    ) -> Result<Copying> {
        let CopyVolume { to, from } = request;
        let original = self.info(&source).await?;
        self.check_whole(&original)?;
        let total = original.row.size;
        let target = self.writable(&to).await?;
        self.check_whole(&target)?;
        let room = target.row.size;
        if room < total || from > total {
            let [source, room] = [total, room].map(ByteSize::bytes);
            return Err(Error::invalid(format!(
                "the source has {source}, the copy has room for {room} and is at byte {from}"
            )));
        }
        if self.export_of(&to).await?.is_some() {
            let text = format!("{:?} is exported", to.as_str());
            return Err(Error::in_use(text).hint(format!("atoll export remove {to}")));
        }
        let (source, to) = (name_below(&source)?, name_below(&to)?);
        let mut step = Copying {
            done: from,
            total,
            ..Copying::default()
        };
        let (began, mut piece) = (Instant::now(), COPY_PIECE);
        while step.done < total {
            let len = piece.min(total - step.done);
            let copy =
                self.mapper
                    .copy_range(source.clone(), step.done, to.clone(), step.done, len);
            let copied = copy.await.map_err(below)?;
            step.done += len;
            step.shared += copied.shared;
            step.copied += copied.copied;
            if began.elapsed() >= COPY_STEP {
                break;
            }
            piece = match copied.copied {
                0 => MAX_COPY_PIECE.min(piece * 2),
                _ => COPY_PIECE,
            };
        }
        step.ended = step.done == total;
        Ok(step)
    }

    pub(super) async fn protect(&self, name: ResourceName, protected: bool) -> Result<Volume> {
        let set = self.mapper.protect(name_below(&name)?, protected);
        convert::volume(&set.await.map_err(below)?, None)
    }

    pub(super) async fn tree(&self, ask: AskTree) -> Result<TreePage> {
        let nodes = self.mapper.tree().await.map_err(below)?;
        let nodes = nodes.iter().map(convert::tree_node);
        ask.page(nodes.collect::<Result<Vec<_>>>()?)
    }

    pub(super) async fn gc_status(&self) -> Result<GcStatus> {
        let status = self.mapper.gc_status().await.map_err(below)?;
        Ok(convert::gc_status(status))
    }

    pub(super) async fn gc_run(&self) -> Result<GcStatus> {
        self.mapper.gc_run().await.map_err(below)?;
        self.gc_status().await
    }

    /// What a pool stores; nothing where it cannot be told, which hides nothing else of the pool.
    pub(super) async fn pool_usage(&self, name: &ResourceName) -> Result<Option<PoolUsage>> {
        match self.mapper.pool_usage(name_below(name)?).await {
            Ok(usage) => Ok(Some(convert::pool_usage(usage))),
            Err(error) => {
                tracing::warn!(pool = %name, %error, "how much it stores is not known");
                Ok(None)
            }
        }
    }

    /// What a change of `name` is refused for, with the way out where the export is in the way.
    pub(super) async fn in_use(&self, error: atoll_mapper::Error, name: &ResourceName) -> Error {
        let error = below(error);
        let exported = match error.kind {
            ErrorKind::InUse => self
                .export_of(name)
                .await
                .is_ok_and(|found| found.is_some()),
            _ => false,
        };
        match exported {
            true => error.hint(format!("atoll export remove {name}")),
            false => error,
        }
    }
}

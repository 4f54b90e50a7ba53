//! When content may be imported into a volume, and what remembers that it was: a snapshot whose
//! id tells what it is a copy of. A difference is taken only by a volume that is at its base.

use atoll_mapper::format::{PoolKind, ResourceKind};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{NewSnapshot, VolumeInfo};
use uuid::Uuid;

use crate::api::{BeginImport, CheckpointImport, FinishImport, ImportState, Imported, imported_id};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

use super::convert::{self, name_below};
use super::imports::Record;
use super::transfer::{at_home, name_of};
use super::{Engine, failure};

fn below(error: atoll_mapper::Error) -> Error {
    failure::of_mapper(&error)
}

fn id_of(info: &VolumeInfo) -> Uuid {
    Uuid::from_bytes(info.id.0)
}

/// Refuses what an unfinished import makes impossible.
fn unfinished(name: &ResourceName) -> Error {
    Error::refused(format!(
        "volume {:?} is incomplete: an import into it has not ended",
        name.as_str()
    ))
    .hint(format!(
        "go on with it: `atoll volume import-file {name} FILE --resume`, or delete the volume"
    ))
}

impl Engine {
    pub(super) async fn begin_import(
        &self,
        name: ResourceName,
        request: BeginImport,
    ) -> Result<ImportState> {
        let info = self.resource(&name, request.id).await?;
        if info.row.kind != ResourceKind::Volume {
            return Err(Error::refused(format!("{:?} is no volume", name.as_str())));
        }
        if self.export_of(&name).await?.is_some() {
            return Err(Error::in_use(format!("it is exported as {}", name.iqn()))
                .hint(format!("atoll export remove {name}")));
        }
        if self.imports.is_unfinished(request.id) {
            return self.resume_import(&name, &info, &request).await;
        }
        self.check_not_imported(&info, request.source).await?;
        if !request.force {
            match request.base {
                Some(base) => self.check_at_base(&name, &info, base).await?,
                None => self.check_empty(&name).await?,
            }
        }
        let record = Record {
            source: request.source,
            base: request.base,
            done: 0,
        };
        self.imports.begin(request.id, record).await?;
        self.fit(&name, &info, &request).await?;
        let session = self.imports.held(request.id).await?.session;
        Ok(state(record, false, session))
    }

    async fn resume_import(
        &self,
        name: &ResourceName,
        info: &VolumeInfo,
        request: &BeginImport,
    ) -> Result<ImportState> {
        if !request.resume {
            return Err(unfinished(name));
        }
        let record = self.imports.held(request.id).await?.record;
        let record = record.ok_or_else(|| unfinished(name))?;
        if (record.source, record.base) != (request.source, request.base) {
            return Err(Error::refused(
                "what was begun to be imported into it is not what this file holds",
            )
            .hint("go on with the file of before, or delete the volume and begin anew"));
        }
        self.fit(name, info, request).await?;
        let mut import = self.imports.held(request.id).await?;
        import.session = Uuid::new_v4();
        let record = import.record.ok_or_else(|| unfinished(name))?;
        Ok(state(record, true, import.session))
    }

    /// Gives the volume the size that what comes has.
    async fn fit(
        &self,
        name: &ResourceName,
        info: &VolumeInfo,
        request: &BeginImport,
    ) -> Result<()> {
        match request.size {
            Some(size) if size.get() != info.row.size => {
                self.resize_volume(name.clone(), size).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// One answer looks at a part only.
    async fn any_changes(&self, from: Option<&ResourceName>, name: &ResourceName) -> Result<bool> {
        let mut next = Some(0);
        while let Some(offset) = next {
            let page = self.changes_of(from.cloned(), name, offset, 1).await?;
            if !page.ranges.is_empty() {
                return Ok(true);
            }
            next = page.next;
        }
        Ok(false)
    }

    async fn check_empty(&self, name: &ResourceName) -> Result<()> {
        if !self.any_changes(None, name).await? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("volume {:?} is there already, and not empty", name.as_str()),
        )
        .hint("import into a new one"))
    }

    /// The snapshot that an earlier import of the same source left.
    async fn check_not_imported(&self, volume: &VolumeInfo, source: Uuid) -> Result<()> {
        let wanted = imported_id(id_of(volume), source);
        for info in self.mapper.volumes().await.map_err(below)? {
            if id_of(&info) == wanted {
                let snapshot = name_of(&info)?;
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "it was imported already, as snapshot {:?}",
                        snapshot.as_str()
                    ),
                )
                .hint(
                    "nothing is left to do; to import it once more, delete that snapshot first",
                ));
            }
        }
        Ok(())
    }

    /// The volume's content is that of the base, or of the copy that an import has made of it.
    async fn check_at_base(
        &self,
        name: &ResourceName,
        volume: &VolumeInfo,
        base: Uuid,
    ) -> Result<()> {
        let wanted = [base, imported_id(id_of(volume), base)];
        let mut changed_since = None;
        for info in self.mapper.volumes().await.map_err(below)? {
            if !wanted.contains(&id_of(&info)) || info.row.kind != ResourceKind::Snapshot {
                continue;
            }
            let snapshot = name_of(&info)?;
            match self.any_changes(Some(&snapshot), name).await {
                Ok(false) if info.row.size == volume.row.size => return Ok(()),
                Ok(_) => changed_since = Some(snapshot),
                // Of another tree: it says nothing of this volume.
                Err(error) if error.kind == ErrorKind::Invalid => {}
                Err(error) => return Err(error),
            }
        }
        Err(match changed_since {
            Some(snapshot) => Error::refused(format!(
                "volume {:?} has changed since snapshot {:?}, which this difference builds on",
                name.as_str(),
                snapshot.as_str()
            ))
            .hint(format!(
                "`atoll volume rollback {name} {snapshot}` gives up what was written since; --force imports over it, and the result is neither"
            )),
            None => Error::refused(format!(
                "volume {:?} has no snapshot of what this difference builds on",
                name.as_str()
            ))
            .hint("import what comes before it first, in order: the whole export, then each difference"),
        })
    }

    /// Not so what is in memory only.
    async fn outlives_a_restart(&self, name: &ResourceName) -> Result<bool> {
        let info = self.mapper.volume(name_below(name)?).await.map_err(below)?;
        let pool = self.mapper.pool(info.pool).await.map_err(below)?;
        Ok(!matches!(pool.row.kind, PoolKind::Memory | PoolKind::Null))
    }

    /// Refuses to make anything of a volume that is not whole.
    pub(super) fn check_whole(&self, info: &VolumeInfo) -> Result<()> {
        match self.imports.is_unfinished(id_of(info)) {
            true => Err(unfinished(&name_of(info)?)),
            false => Ok(()),
        }
    }

    pub(super) async fn checkpoint_import(
        &self,
        name: ResourceName,
        request: CheckpointImport,
    ) -> Result<ImportState> {
        let handle = self.handle(&name, request.id).await?;
        drop(self.imports.writing(request.id, request.session).await?);
        at_home(&handle, |handle| async move { handle.flush().await }).await?;
        let mut import = self.imports.held(request.id).await?;
        let ours = import.session == request.session;
        let record = import.record.as_mut().filter(|_| ours);
        let record = record.ok_or_else(super::imports::taken_over)?;
        if self.outlives_a_restart(&name).await? {
            record.done = record.done.max(request.done.get());
        }
        self.imports.keep(request.id, *record).await?;
        Ok(state(*record, true, request.session))
    }

    pub(super) async fn finish_import(
        &self,
        name: ResourceName,
        request: FinishImport,
    ) -> Result<Imported> {
        let info = self.resource(&name, request.id).await?;
        drop(self.imports.writing(request.id, request.session).await?);
        let import = self.imports.held(request.id).await?;
        let source = import.record.map_or_else(Uuid::nil, |record| record.source);
        let handle = self.handle(&name, request.id).await?;
        at_home(&handle, |handle| async move { handle.flush().await }).await?;
        let snapshot = match request.snapshot {
            Some(snapshot) => Some(self.keep_imported(&name, &info, source, snapshot).await?),
            None => None,
        };
        drop(import);
        self.imports.end(request.id).await?;
        let info = self.resource(&name, request.id).await?;
        Ok(Imported {
            volume: convert::volume(&info, None)?,
            snapshot,
        })
    }

    /// Takes the snapshot; the one that is there if this was done before the daemon stopped.
    async fn keep_imported(
        &self,
        name: &ResourceName,
        info: &VolumeInfo,
        source: Uuid,
        snapshot: ResourceName,
    ) -> Result<ResourceName> {
        let id = imported_id(id_of(info), source);
        for there in self.mapper.volumes().await.map_err(below)? {
            if id_of(&there) == id {
                return name_of(&there);
            }
        }
        let new = NewSnapshot {
            id: ResourceId(*id.as_bytes()),
            volume: name_below(name)?,
            name: name_below(&snapshot)?,
        };
        let made = self.mapper.create_snapshots(vec![new]).await;
        made.map(|_| snapshot).map_err(|error| {
            let error = below(error).context("everything was imported, but not its snapshot");
            match error.kind {
                ErrorKind::AlreadyExists => error.hint("--resume --snapshot ANOTHER-NAME"),
                _ => error,
            }
        })
    }
}

fn state(record: Record, resumed: bool, session: Uuid) -> ImportState {
    ImportState {
        source: record.source,
        base: record.base,
        done: ByteSize::bytes(record.done),
        resumed,
        session,
    }
}

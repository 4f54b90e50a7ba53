//! The rules between the API and the engine: requests are checked before the engine sees them, and
//! repeating a command that was already done is no error where nothing differs (A3).

mod snapshots;

use std::sync::Arc;

use crate::api::{
    AddExport, AddPool, BeginImport, CreateVolume, Export, ImportState, Pool, Removed,
    RenameVolume, Volume, VolumeKind, check_volume_size,
};
use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// What is there now, and whether this request has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made<T> {
    New(T),
    Unchanged(T),
}

/// The engine behind the rules.
#[derive(Clone)]
pub struct Service {
    control: Arc<dyn Control>,
}

impl Service {
    pub fn new(control: Arc<dyn Control>) -> Self {
        Self { control }
    }

    /// What needs no rule is asked directly.
    pub fn control(&self) -> &dyn Control {
        &*self.control
    }

    pub async fn create_volume(&self, request: CreateVolume) -> Result<Made<Volume>> {
        check_volume_size(request.size)?;
        let taken = match self.control.create_volume(request.clone()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => error,
            other => return other.map(Made::New),
        };
        let there = self.control.volume(request.name.clone()).await?;
        let differences = differences(&[
            (
                "kind",
                there.kind.to_string(),
                VolumeKind::Volume.to_string(),
            ),
            ("size", there.size.exact(), request.size.exact()),
            ("pool", there.pool.to_string(), request.pool.to_string()),
            (
                "block size",
                block_size(&there),
                u32::from(request.block_size).to_string(),
            ),
        ]);
        unless_different(taken, request.if_not_exists, there, differences)
    }

    pub async fn resize_volume(&self, name: ResourceName, size: ByteSize) -> Result<Volume> {
        check_volume_size(size)?;
        self.control.resize_volume(name, size).await
    }

    pub async fn rename_volume(&self, name: ResourceName, request: RenameVolume) -> Result<Volume> {
        let to = request.to;
        match self.control.rename_volume(name.clone(), to.clone()).await {
            Err(error)
                if error.kind == ErrorKind::NotFound
                    && self.control.volume(to.clone()).await.is_ok() =>
            {
                Err(error.hint(format!(
                    "there is a volume {:?}: if it was renamed already, nothing is left to do",
                    to.as_str()
                )))
            }
            other => other,
        }
    }

    pub async fn add_export(&self, request: AddExport) -> Result<Made<Export>> {
        request.check()?;
        let taken = match self.control.add_export(request.clone()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => error,
            other => return other.map(Made::New),
        };
        let exports = self.control.exports().await?;
        let there = exports
            .into_iter()
            .find(|export| export.name == request.name);
        let there = there.ok_or_else(|| taken.clone().hint("it has gone meanwhile: try again"))?;
        let same_protocols = there.protocols.len() == request.protocols.len()
            && request
                .protocols
                .iter()
                .all(|protocol| there.protocols.contains(protocol));
        // Of a snapshot both are the same export.
        let read_only = request.read_only || there.kind == VolumeKind::Snapshot;
        if same_protocols && there.read_only == read_only {
            return Ok(Made::Unchanged(there));
        }
        let mode = |read_only| if read_only { "read-only" } else { "writable" };
        Err(taken.hint(format!(
            "it is {}, asked for was {}: remove the export first",
            mode(there.read_only),
            mode(request.read_only)
        )))
    }

    pub async fn add_pool(&self, request: AddPool) -> Result<Made<Pool>> {
        request.check()?;
        let taken = match self.control.add_pool(request.clone()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => error,
            other => return other.map(Made::New),
        };
        let there = self.control.pool(request.name.clone()).await?;
        let path = |path: &Option<String>| path.clone().unwrap_or_else(|| "none".to_owned());
        let differences = differences(&[
            (
                "type",
                format!("{:?}", there.pool_type),
                format!("{:?}", request.pool_type),
            ),
            ("path", path(&there.path), path(&request.path)),
            (
                "object size",
                there.object_size.exact(),
                request.object_size.exact(),
            ),
        ]);
        unless_different(taken, request.if_not_exists, there, differences)
    }

    pub async fn begin_import(
        &self,
        name: ResourceName,
        request: BeginImport,
    ) -> Result<ImportState> {
        request.size.map_or(Ok(()), check_volume_size)?;
        self.control.begin_import(name, request).await
    }

    pub async fn delete_volume(&self, name: ResourceName, if_exists: bool) -> Result<Removed> {
        let deleted = self.control.delete_volume(name.clone());
        let mut kind = None;
        let done = async { deleted.await.map(|it| kind = Some(it)) };
        let removed = removed(name, if_exists, done).await?;
        Ok(Removed { kind, ..removed })
    }

    pub async fn remove_export(&self, name: ResourceName, if_exists: bool) -> Result<Removed> {
        let done = self.control.remove_export(name.clone());
        removed(name, if_exists, done).await
    }

    pub async fn remove_pool(&self, name: ResourceName, if_exists: bool) -> Result<Removed> {
        let done = self.control.remove_pool(name.clone());
        removed(name, if_exists, done).await
    }
}

fn block_size(volume: &Volume) -> String {
    u32::from(volume.block_size).to_string()
}

/// What of (property, there, asked for) differs, as a hint.
fn differences(properties: &[(&str, String, String)]) -> Option<String> {
    let differing: Vec<String> = properties
        .iter()
        .filter(|(_, there, asked)| there != asked)
        .map(|(what, there, asked)| format!("{what} is {there}, asked for was {asked}"))
        .collect();
    (!differing.is_empty()).then(|| format!("it differs: {}", differing.join("; ")))
}

/// What is there already, if it is as asked for and that was to be taken for done; else why not.
fn unless_different<T>(
    taken: Error,
    if_not_exists: bool,
    there: T,
    differences: Option<String>,
) -> Result<Made<T>> {
    match differences {
        None if if_not_exists => Ok(Made::Unchanged(there)),
        None => Err(taken.hint("it is as asked for; --if-not-exists takes that for done")),
        Some(differences) => Err(taken.hint(differences)),
    }
}

async fn removed(
    name: ResourceName,
    if_exists: bool,
    done: impl Future<Output = Result<()>>,
) -> Result<Removed> {
    match done.await {
        Ok(()) => Ok(Removed {
            name,
            kind: None,
            removed: true,
        }),
        Err(Error {
            kind: ErrorKind::NotFound,
            ..
        }) if if_exists => Ok(Removed {
            name,
            kind: None,
            removed: false,
        }),
        Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Err(error.hint(
            "if it was removed already, nothing is left to do; --if-exists takes that for done",
        )),
        Err(error) => Err(error),
    }
}

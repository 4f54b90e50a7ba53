//! What each verb asks of the daemon, and what it says when it is done. No printing: the answer is
//! an [`Output`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::admin::client::{Answered, Client};
use crate::api::{
    AddExport, AddPool, CreateVolume, Export, FsckReport, Pool, Protocol, Removed, RenameVolume,
    ResizeVolume, Stats, Status, Volume, VolumeKind,
};
use crate::config::{Config, Overrides};
use crate::daemon::DataLock;
use crate::engine;
use crate::error::{Error, Result};
use crate::name::ResourceName;

use super::args::{ExportVerb, Fsck, Global, PoolAdd, PoolVerb, VolumeCreate, VolumeVerb};
use super::progress::Stage;
use super::render::{self, Output};
use super::snapshots;

/// How often the sign of life of a long verb moves.
const SPINNER_TICK: Duration = Duration::from_millis(100);

pub fn volume(client: &Client, verb: VolumeVerb, stage: &mut Stage<'_>) -> Result<Output> {
    match verb {
        VolumeVerb::Create(create) => create_volume(client, create),
        VolumeVerb::List(list) => snapshots::list(client, list),
        VolumeVerb::ExportFile(_) | VolumeVerb::ImportFile(_) => Err(Error::internal(
            "verbs that move content have no single answer",
        )),
        VolumeVerb::Show { name } => client
            .get(&format!("/v1/volumes/{name}"))
            .map(|volume| render::volume(&volume))
            .map_err(|e| {
                e.context(format_args!(
                    "cannot show volume {name:?}",
                    name = name.as_str()
                ))
            }),
        VolumeVerb::Resize { name, size } => client
            .post(
                &format!("/v1/volumes/{name}/resize"),
                &ResizeVolume { size },
            )
            .map(|Answered { value, .. }: Answered<Volume>| {
                Output::new(
                    &value,
                    format!("volume {} has {}\n", value.name, value.size),
                )
            })
            .map_err(|e| e.context(format_args!("cannot resize volume {:?}", name.as_str()))),
        VolumeVerb::Rename { from, to } => client
            .post(&format!("/v1/volumes/{from}/rename"), &RenameVolume { to })
            .map(|Answered { value, .. }: Answered<Volume>| {
                let text = format!("renamed {} {from} to {}\n", value.kind, value.name);
                Output::new(&value, text)
            })
            .map_err(|e| e.context(format_args!("cannot rename volume {:?}", from.as_str()))),
        VolumeVerb::Delete { name, if_exists } => {
            remove(client, "volume", "delete", "deleted", &name, if_exists)
        }
        VolumeVerb::Snapshot(take) => snapshots::take(client, take),
        VolumeVerb::Clone(clone) => snapshots::clone(client, clone),
        VolumeVerb::Rollback { volume, snapshot } => {
            snapshots::roll_back(client, &volume, snapshot)
        }
        VolumeVerb::Flatten { volume } => snapshots::flatten(client, volume, stage),
        VolumeVerb::Tree { name } => snapshots::tree(client, name.as_ref()),
        VolumeVerb::Protect { name } => snapshots::protect(client, &name, true),
        VolumeVerb::Unprotect { name } => snapshots::protect(client, &name, false),
        VolumeVerb::Copy { source, target } => snapshots::copy(client, &source, target, stage),
    }
}

fn create_volume(client: &Client, create: VolumeCreate) -> Result<Output> {
    let VolumeCreate {
        name,
        size,
        pool,
        block_size,
        if_not_exists,
    } = create;
    let what = format!("cannot create volume {:?}", name.as_str());
    let request = CreateVolume {
        name,
        size,
        pool,
        block_size,
        if_not_exists,
    };
    let Answered { value, created } = client
        .post::<Volume>("/v1/volumes", &request)
        .map_err(|e| e.context(what))?;
    let said = if created {
        "created volume"
    } else {
        "unchanged, there already: volume"
    };
    let text = format!(
        "{said} {}: {} in pool {}\n",
        value.name, value.size, value.pool
    );
    Ok(Output::new(&value, text))
}

pub fn export(client: &Client, verb: ExportVerb) -> Result<Output> {
    match verb {
        // iSCSI is all there is: with and without the flag the same is asked for.
        ExportVerb::Add {
            name,
            iscsi: _,
            read_only,
        } => {
            let what = format!("cannot export {:?}", name.as_str());
            let request = AddExport {
                name,
                protocols: vec![Protocol::Iscsi],
                read_only,
            };
            let Answered { value, created } = client
                .post::<Export>("/v1/exports", &request)
                .map_err(|e| e.context(what))?;
            Ok(render::export_added(&value, created))
        }
        ExportVerb::List => client
            .get::<Vec<Export>>("/v1/exports")
            .map(|exports| render::exports(&exports))
            .map_err(|e| e.context("cannot list the exports")),
        ExportVerb::Remove { name, if_exists } => {
            remove(client, "export", "remove", "removed", &name, if_exists)
        }
    }
}

pub fn pool(client: &Client, verb: PoolVerb) -> Result<Output> {
    match verb {
        PoolVerb::Add(add) => add_pool(client, add),
        PoolVerb::List => client
            .get::<Vec<Pool>>("/v1/pools")
            .map(|pools| render::pools(&pools))
            .map_err(|e| e.context("cannot list the pools")),
        PoolVerb::Show { name } => client
            .get(&format!("/v1/pools/{name}"))
            .map(|pool| render::pool(&pool))
            .map_err(|e| e.context(format_args!("cannot show pool {:?}", name.as_str()))),
        PoolVerb::Remove { name, if_exists } => {
            remove(client, "pool", "remove", "removed", &name, if_exists)
        }
    }
}

fn add_pool(client: &Client, add: PoolAdd) -> Result<Output> {
    let PoolAdd {
        name,
        pool_type,
        path,
        object_size,
        if_not_exists,
    } = add;
    let what = format!("cannot add pool {:?}", name.as_str());
    let path = path
        .map(|path| absolute(&path))
        .transpose()
        .map_err(|e| e.context(&what))?;
    let request = AddPool {
        name,
        pool_type,
        path,
        object_size,
        if_not_exists,
    };
    let Answered { value, created } = client
        .post::<Pool>("/v1/pools", &request)
        .map_err(|e| e.context(what))?;
    let said = if created {
        "added pool"
    } else {
        "unchanged, there already: pool"
    };
    let text = format!("{said} {}: {}\n", value.name, render::pool_place(&value));
    Ok(Output::new(&value, text))
}

/// The daemon's working directory is not ours: it is told the whole path, in UTF-8 as JSON wants.
fn absolute(path: &Path) -> Result<String> {
    let whole: PathBuf = std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("the directory {}: {e}", path.display())))?;
    whole
        .into_os_string()
        .into_string()
        .map_err(|path| Error::invalid(format!("the directory {} is not UTF-8", path.display())))
}

fn remove(
    client: &Client,
    noun: &str,
    verb: &str,
    done: &str,
    name: &ResourceName,
    if_exists: bool,
) -> Result<Output> {
    let removed: Removed = client
        .delete(&format!("/v1/{noun}s/{name}?if_exists={if_exists}"))
        .map_err(|e| e.context(format_args!("cannot {verb} {noun} {:?}", name.as_str())))?;
    let text = if removed.removed {
        let noun = match removed.kind {
            Some(VolumeKind::Snapshot) => "snapshot",
            _ => noun,
        };
        format!("{done} {noun} {name}\n")
    } else {
        format!("unchanged: there is no {noun} {name}\n")
    };
    Ok(Output::new(&removed, text))
}

pub fn status(client: &Client) -> Result<Output> {
    let status: Status = client
        .get("/v1/status")
        .map_err(|e| e.context("cannot ask for the status"))?;
    Ok(render::status(&status))
}

pub fn stats(client: &Client) -> Result<Output> {
    let stats: Stats = client
        .get("/v1/stats")
        .map_err(|e| e.context("cannot ask for the counters"))?;
    Ok(render::stats(&stats))
}

/// Checks the data directory while holding the lock that a daemon would hold. Shows how far it is
/// on stderr, where that is a terminal.
pub fn fsck(global: &Global, fsck: Fsck) -> Result<FsckReport> {
    let overrides = Overrides {
        data: global.data.clone(),
        admin: global.admin.clone(),
        // Nothing listens: the rules of listening do not matter here.
        insecure_no_auth: true,
        ..Overrides::default()
    };
    let config = Config::load(fsck.config.as_deref(), overrides)?;
    let context = format!("cannot check {}", config.data.display());
    let _lock = DataLock::existing(&config.data).map_err(|e| e.context(&context))?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(SPINNER_TICK);
    let shown = bar.clone();
    let tell = move |step, done| shown.set_message(format!("{step}: {done}"));
    let depth = match (fsck.deep, fsck.clear_faults) {
        (_, true) => engine::Depth::DataAndClear,
        (true, false) => engine::Depth::Data,
        (false, false) => engine::Depth::Names,
    };
    let report = engine::fsck(&config, depth, Box::new(tell));
    bar.finish_and_clear();
    report.map_err(|e| e.context(&context))
}

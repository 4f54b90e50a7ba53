//! Verbs on the tree of snapshots and clones, and on the garbage collector: what they ask of the
//! daemon. Long ones ask for step after step, and show how far they are.

use std::time::Duration;

use super::args::{GcVerb, SnapshotGroup, SnapshotVerb, VolumeClone, VolumeList, VolumeSnapshot};
use super::progress::Stage;
use super::render::{self, Output};
use crate::admin::client::{Answered, Client};
use crate::api::{
    CloneSnapshot, CopiedVolume, CopyVolume, Copying, CreateVolume, Flatten, Flattened, Flattening,
    GcStatus, PAGE_LIMIT, Protect, RollBack, TREE_PAGE_LIMIT, TakeGroup, TakeSnapshot, TreePage,
    Volume, VolumeKind, VolumePage,
};
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

/// How often it is looked whether the garbage collector has ended.
const GC_POLL: Duration = Duration::from_millis(200);

fn quoted(name: &ResourceName) -> String {
    format!("{:?}", name.as_str())
}

pub fn list(client: &Client, list: VolumeList) -> Result<Output> {
    let filter = list.kind.map(|kind| format!("&kind={kind}"));
    let filter = filter.unwrap_or_default();
    let mut volumes: Vec<Volume> = Vec::new();
    let mut after = String::new();
    loop {
        let page: VolumePage = client
            .get(&format!("/v1/volumes?limit={PAGE_LIMIT}{filter}{after}"))
            .map_err(|e| e.context("cannot list the volumes"))?;
        volumes.extend(page.volumes);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let nouns = match list.kind {
        Some(VolumeKind::Snapshot) => "snapshots",
        _ => "volumes",
    };
    Ok(render::volumes(&volumes, nouns))
}

pub fn tree(client: &Client, name: Option<&ResourceName>) -> Result<Output> {
    let filter = name.map(|name| format!("&name={name}")).unwrap_or_default();
    let mut nodes = Vec::new();
    let mut after = String::new();
    loop {
        let page: TreePage = client
            .get(&format!("/v1/tree?limit={TREE_PAGE_LIMIT}{filter}{after}"))
            .map_err(|e| e.context("cannot show the tree"))?;
        nodes.extend(page.nodes);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    Ok(render::tree(&nodes))
}

pub fn take(client: &Client, take: VolumeSnapshot) -> Result<Output> {
    let VolumeSnapshot {
        volume,
        snapshot,
        if_not_exists,
    } = take;
    let what = format!("cannot take snapshot {}", quoted(&snapshot));
    let request = TakeSnapshot {
        snapshot,
        if_not_exists,
    };
    let Answered { value, created } = client
        .post::<Volume>(&format!("/v1/volumes/{volume}/snapshot"), &request)
        .map_err(|e| e.context(what))?;
    let text = render::snapshots(created, &[(volume, value.clone())]);
    Ok(Output::new(&value, text))
}

pub fn snapshot(client: &Client, verb: SnapshotVerb) -> Result<Output> {
    let SnapshotVerb::Group(SnapshotGroup {
        name,
        volumes,
        if_not_exists,
    }) = verb;
    let what = format!("cannot take snapshots {}", quoted(&name));
    let request = TakeGroup {
        name,
        volumes: volumes.clone(),
        if_not_exists,
    };
    let Answered { value, created } = client
        .post::<Vec<Volume>>("/v1/snapshots", &request)
        .map_err(|e| e.context(what))?;
    let members: Vec<_> = volumes.into_iter().zip(value.iter().cloned()).collect();
    Ok(Output::new(&value, render::snapshots(created, &members)))
}

pub fn clone(client: &Client, clone: VolumeClone) -> Result<Output> {
    let VolumeClone {
        snapshot,
        volume,
        size,
        if_not_exists,
    } = clone;
    let what = format!("cannot clone snapshot {}", quoted(&snapshot));
    let request = CloneSnapshot {
        to: volume,
        size,
        if_not_exists,
    };
    let Answered { value, created } = client
        .post::<Volume>(&format!("/v1/volumes/{snapshot}/clone"), &request)
        .map_err(|e| e.context(what))?;
    let said = if created {
        "created volume"
    } else {
        "unchanged, there already: volume"
    };
    let text = format!(
        "{said} {} from snapshot {snapshot}: {} in pool {}\n",
        value.name, value.size, value.pool
    );
    Ok(Output::new(&value, text))
}

pub fn roll_back(client: &Client, volume: &ResourceName, snapshot: ResourceName) -> Result<Output> {
    let request = RollBack { snapshot };
    let Answered { value, .. } = client
        .post::<Volume>(&format!("/v1/volumes/{volume}/rollback"), &request)
        .map_err(|e| e.context(format_args!("cannot roll back volume {}", quoted(volume))))?;
    let text = format!(
        "rolled volume {volume} back to snapshot {}: {}\n",
        request.snapshot, value.size
    );
    Ok(Output::new(&value, text))
}

pub fn protect(client: &Client, name: &ResourceName, protected: bool) -> Result<Output> {
    let (verb, done) = match protected {
        true => ("protect", "protected"),
        false => ("unprotect", "unprotected"),
    };
    let Answered { value, .. } = client
        .post::<Volume>(
            &format!("/v1/volumes/{name}/protect"),
            &Protect { protected },
        )
        .map_err(|e| e.context(format_args!("cannot {verb} {}", quoted(name))))?;
    let text = format!("{done} {} {name}\n", value.kind);
    Ok(Output::new(&value, text))
}

pub fn flatten(client: &Client, name: ResourceName, stage: &mut Stage<'_>) -> Result<Output> {
    let mut progress = stage.begin(&format!("flattening {name}"));
    let (mut from, mut copied) = (0, 0);
    loop {
        let step: Flattening = client
            .post(&format!("/v1/volumes/{name}/flatten"), &Flatten { from })
            .map_err(|e| e.context(format_args!("cannot flatten volume {}", quoted(&name))))?
            .value;
        progress.bytes(step.done, step.total);
        copied += step.copied;
        if step.ended {
            break;
        }
        from = step.done;
    }
    drop(progress);
    let flattened = Flattened {
        name: name.clone(),
        copied: ByteSize::bytes(copied),
    };
    Ok(render::flattened(&name, &flattened))
}

pub fn copy(
    client: &Client,
    source: &ResourceName,
    target: ResourceName,
    stage: &mut Stage<'_>,
) -> Result<Output> {
    let what = format!("cannot copy {}", quoted(source));
    let of: Volume = client
        .get(&format!("/v1/volumes/{source}"))
        .map_err(|e| e.context(&what))?;
    let create = CreateVolume {
        name: target.clone(),
        size: of.size,
        pool: of.pool,
        block_size: of.block_size,
        if_not_exists: false,
    };
    let volume = client
        .post::<Volume>("/v1/volumes", &create)
        .map_err(|e| {
            // That it is as large as the source says nothing of what it holds.
            Error { hint: None, ..e }.context(&what)
        })?
        .value;
    let mut progress = stage.begin(&format!("copying {source} to {target}"));
    let (mut from, mut shared, mut copied) = (0, 0, 0);
    loop {
        let request = CopyVolume {
            to: target.clone(),
            from,
        };
        let step: Copying = client
            .post(&format!("/v1/volumes/{source}/copy"), &request)
            .map_err(|mut e| {
                let rest = format!(
                    "{target} has a part of it: `atoll volume delete {target}`, then copy again"
                );
                let hint = match e.hint.take() {
                    Some(hint) => format!("{hint}; {rest}"),
                    None => rest,
                };
                e.context(&what).hint(hint)
            })?
            .value;
        progress.bytes(step.done, step.total);
        shared += step.shared;
        copied += step.copied;
        if step.ended {
            break;
        }
        from = step.done;
    }
    drop(progress);
    let copy = CopiedVolume {
        volume,
        shared: ByteSize::bytes(shared),
        copied: ByteSize::bytes(copied),
    };
    Ok(render::copied(source, &copy))
}

pub fn gc(client: &Client, verb: GcVerb, stage: &mut Stage<'_>) -> Result<Output> {
    let status = || -> Result<GcStatus> {
        client
            .get("/v1/gc")
            .map_err(|e| e.context("cannot ask for the garbage collector's status"))
    };
    let wait = match verb {
        GcVerb::Status => return Ok(render::gc(&status()?)),
        GcVerb::Run { wait } => wait,
    };
    let mut seen: GcStatus = client
        .post("/v1/gc", &serde_json::json!({}))
        .map_err(|e| e.context("cannot let the garbage collector begin"))?
        .value;
    let mut progress = stage.begin("collecting");
    while wait && seen.running {
        progress.says(&render::gc_progress(&seen));
        std::thread::sleep(GC_POLL);
        seen = status()?;
    }
    drop(progress);
    Ok(render::gc(&seen))
}

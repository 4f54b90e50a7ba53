//! Answers about the tree of volumes and snapshots, and about the garbage collector.

use std::fmt::Write as _;

use super::{Output, or_none, properties, table};
use crate::api::{CopiedVolume, Flattened, GcStatus, TreeNode, Volume};
use crate::cli::tree::{self, Line};
use crate::name::ResourceName;

fn yes_or_dash(yes: bool) -> String {
    if yes { "yes" } else { "-" }.to_owned()
}

pub fn volumes(volumes: &[Volume], nouns: &str) -> Output {
    let rows = volumes.iter().map(|v| {
        let origin = v.origin.as_ref().map(ResourceName::to_string);
        vec![
            v.name.to_string(),
            v.kind.to_string(),
            v.size.to_string(),
            u32::from(v.block_size).to_string(),
            v.pool.to_string(),
            origin.unwrap_or_else(|| "-".to_owned()),
            yes_or_dash(v.protected),
            super::volume_state(v).to_owned(),
            v.created.to_string(),
        ]
    });
    let header = [
        "NAME",
        "KIND",
        "SIZE",
        "BLOCK",
        "POOL",
        "ORIGIN",
        "PROTECTED",
        "STATE",
        "CREATED",
    ];
    let text = table(&header, &[2, 3], rows);
    Output::new(&volumes, or_none(volumes.len(), nouns, text))
}

pub fn snapshots(created: bool, members: &[(ResourceName, Volume)]) -> String {
    let said = if created {
        "took snapshot"
    } else {
        "unchanged, there already: snapshot"
    };
    let mut text = String::new();
    for (volume, snapshot) in members {
        let _ = writeln!(
            text,
            "{said} {} of {volume}: {} in pool {}",
            snapshot.name, snapshot.size, snapshot.pool
        );
    }
    text
}

pub fn tree(nodes: &[TreeNode]) -> Output {
    let trees = tree::draw(nodes);
    let row = |line: &Line<'_>| {
        let own = line.node.own.to_string();
        let Some(resource) = &line.node.resource else {
            let name = format!("{}(deleted)", line.prefix);
            return vec![name, "-".to_owned(), "-".to_owned(), own, "-".to_owned()];
        };
        vec![
            format!("{}{}", line.prefix, resource.name),
            resource.kind.to_string(),
            resource.size.to_string(),
            own,
            yes_or_dash(resource.protected),
        ]
    };
    // A line between trees: the next root is no descendant of the tree above it.
    let empty = vec![String::new(); 5];
    let rows: Vec<_> = trees
        .iter()
        .map(|lines| lines.iter().map(row).collect::<Vec<_>>())
        .collect();
    let text = table(
        &["NAME", "KIND", "SIZE", "OWN", "PROTECTED"],
        &[2, 3],
        rows.join(&empty),
    );
    Output::new(&nodes, or_none(nodes.len(), "volumes", text))
}

pub fn flattened(name: &ResourceName, flattened: &Flattened) -> Output {
    let text = format!(
        "flattened volume {name}: {} copied into it\n",
        flattened.copied
    );
    Output::new(flattened, text)
}

pub fn copied(source: &ResourceName, copied: &CopiedVolume) -> Output {
    let CopiedVolume {
        volume,
        shared,
        copied: written,
    } = copied;
    let text = format!(
        "copied {source} to volume {}: {shared} shared, {written} copied\n",
        volume.name
    );
    Output::new(copied, text)
}

pub fn gc(status: &GcStatus) -> Output {
    let scan = &status.leak_scan;
    let mut rows = vec![
        (
            "running",
            if status.running { "yes" } else { "no" }.to_owned(),
        ),
        ("dying maps", status.dying_nodes.to_string()),
        ("maps to merge", status.merging_nodes.to_string()),
        ("objects to delete", status.dead_objects.to_string()),
        ("deleted maps", status.deleted_nodes.to_string()),
        ("merged maps", status.merged_nodes.to_string()),
        ("deleted objects", status.deleted_objects.to_string()),
        (
            "leak scan",
            format!(
                "{}, {} ended, {} objects found",
                if scan.running {
                    "running"
                } else {
                    "not running"
                },
                scan.ended,
                scan.found
            ),
        ),
    ];
    let failed = status.last_error.clone();
    rows.extend(failed.map(|error| ("last error", error)));
    Output::new(status, properties(&rows))
}

/// What it does, in a line.
pub fn gc_progress(status: &GcStatus) -> String {
    let mut text = format!(
        "{} maps to delete, {} to merge, {} objects to delete",
        status.dying_nodes, status.merging_nodes, status.dead_objects
    );
    if status.leak_scan.running {
        text.push_str(", leak scan");
    }
    if let Some(error) = &status.last_error {
        let _ = write!(text, "; failed and tried again: {error}");
    }
    text
}

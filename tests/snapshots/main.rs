//! Snapshots, clones and the collector against the daemon, with initiators that verify: what a snapshot holds is of one
//! instant and never changes, the volumes beside it go on, crashes included, and what is deleted is given back.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

mod clones;
mod forest;
mod group;
mod kills;
mod load;

use std::net::SocketAddr;
use std::path::Path;

use atoll_e2e::Daemon;
use atoll_e2e::daemon::{IQN, binary};
use atoll_e2e::initiator::Initiator;
use atoll_e2e::process;
use serde_json::Value;

/// A pool of its own with small objects, so that a small volume has many of them.
fn add_pool(daemon: &Daemon, object_size: &str) {
    let path = daemon.options().data.with_file_name("pool");
    let path = path.to_str().expect("UTF-8");
    let file = ["pool", "add", "small", "--type", "file", "--path", path];
    daemon.run(&[&file[..], &["--object-size", object_size]].concat());
}

fn login(portal: SocketAddr, export: &str) -> Initiator {
    let session = Initiator::login(
        portal,
        &format!("{IQN}:{export}"),
        "iqn.2026-11.test:snapshots",
    );
    session.unwrap_or_else(|e| panic!("{export}: {e}"))
}

/// The export goes first: nothing that is exported is deleted.
fn delete(daemon: &Daemon, name: &str) {
    daemon.run(&["export", "remove", name]);
    daemon.run(&["volume", "delete", name]);
}

/// All that was deleted is given back, and what of the pool is used is used by its volumes.
fn collect(daemon: &Daemon) {
    daemon.run(&["gc", "run", "--wait"]);
    let status = daemon.json(&["gc", "status"]);
    for left in ["dying_nodes", "merging_nodes", "dead_objects"] {
        assert_eq!(status[left], 0, "{status}");
    }
    assert_eq!(status["running"], false, "{status}");
    assert_eq!(status["last_error"], Value::Null, "{status}");
    let usage = daemon.json(&["pool", "show", "small"])["usage"].clone();
    assert_eq!(usage["garbage"], 0, "{usage}");
    let part = |name: &str| usage[name].as_u64().expect("a number");
    assert_eq!(part("mapped"), part("shared") + part("unique"), "{usage}");
}

/// Reads every object of a stopped daemon, and panics unless all is well; what else there is to say: kinds of findings.
fn fsck_deep(data: &Path) -> Vec<String> {
    let mut command = process::command(binary());
    let said = process::succeed(
        command
            .args(["fsck", "--deep", "--json", "--data"])
            .arg(data),
    );
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    if !findings.is_empty() {
        eprintln!("{report:#}");
    }
    let kinds = findings.iter().map(|finding| finding["kind"].as_str());
    kinds.map(|kind| kind.expect("a kind").to_owned()).collect()
}

/// What [`fsck_deep`] says where nothing is left to be collected or deleted, and nothing has leaked.
const NOTHING: [&str; 0] = [];

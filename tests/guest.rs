//! The Linux kernel's own initiator, in a guest: discovery, digests, the commands, file systems, snapshots, resizes,
//! restarts of the daemon under load. What the guest does is in `tests/guest/jobs`; here is the host's part.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use atoll_e2e::daemon::{IQN, fsck};
use atoll_e2e::guest::{Image, Job, Said};
use atoll_e2e::{Daemon, Options, Scratch, soak};

/// Where the guest is made: with what is kept over clones where there is such a place, else with what cargo makes.
fn image_dir() -> PathBuf {
    std::env::var_os("ATOLL_CACHE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guest"),
        |cache| PathBuf::from(cache).join("guest"),
    )
}

/// The guest; or nothing where it cannot be made, which is told, and is a failure in CI.
fn image() -> Option<Image> {
    let reason = match Image::make(&image_dir()) {
        Ok(image) => return Some(image),
        Err(reason) => reason,
    };
    assert!(
        std::env::var_os("CI").is_none(),
        "the guest cannot be made: {reason}"
    );
    eprintln!("SKIPPED: the guest cannot be made on this machine: {reason}");
    None
}

#[test]
fn the_kernels_initiator_is_served_and_recovers_when_the_daemon_is_killed_or_stopped_under_load() {
    let Some(image) = image() else { return };
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new("ext", "512M", &[]);
    daemon.export_new("xfs", "512M", &["--block-size", "4096"]);
    daemon.export_new("disk", "128M", &[]);
    let drive = format!(
        "if=none,id=disk,format=raw,cache=none,discard=unmap,file={}",
        daemon.url("disk")
    );
    let disk = ["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"];

    let started = Instant::now();
    let job = Job {
        name: "initiator",
        port: daemon.iscsi().port(),
        rounds: if soak() { 50 } else { 1 },
    };
    let mut guest = image.boot(&job, scratch.path(), &disk);
    let status = loop {
        match guest.next() {
            Some(Said::Ask(words)) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let answer;
                (daemon, answer) = do_for(daemon, &words);
                guest.answer(&answer);
            }
            Some(Said::Ended(status)) => break status,
            other => panic!("the job says {other:?}"),
        }
    };
    assert_eq!(status, 0, "the job failed");
    eprintln!("{}\nin {:?}", guest.said().join("\n"), started.elapsed());
    guest.wait();

    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    fsck(&options.data);
}

/// Does what the guest asked for, and answers.
fn do_for(daemon: Daemon, words: &[&str]) -> (Daemon, String) {
    // The guest knows only this address.
    let iscsi = daemon.iscsi().to_string();
    let again = |options: Options| Daemon::start(Options { iscsi, ..options });
    match words {
        ["kill"] => (again(daemon.kill()), "done".into()),
        ["stop"] => {
            let (options, status) = daemon.stop();
            assert!(status.success(), "{status}");
            (again(options), "done".into())
        }
        ["resize", volume, size] => {
            daemon.run(&["volume", "resize", volume, size]);
            (daemon, "done".into())
        }
        ["snapshot", volume] => {
            daemon.run(&["volume", "snapshot", volume, "snap"]);
            (daemon, "done".into())
        }
        // Of that snapshot, which goes then.
        ["clone"] => {
            daemon.run(&["volume", "clone", "snap", "clone"]);
            daemon.run(&["export", "add", "clone"]);
            daemon.run(&["volume", "delete", "snap"]);
            (daemon, "done".into())
        }
        ["forget", volume] => {
            daemon.run(&["export", "remove", volume]);
            daemon.run(&["volume", "delete", volume]);
            daemon.run(&["gc", "run", "--wait"]);
            (daemon, "done".into())
        }
        ["used", volume] => {
            let used = daemon.json(&["volume", "show", volume])["used"].clone();
            (daemon, used.to_string())
        }
        ["sessions", export] => {
            let exports = daemon.json(&["export", "list"]);
            let target = format!("{IQN}:{export}");
            let mut exports = exports.as_array().expect("a list").iter();
            let found = exports.find(|export| export["target"] == target.as_str());
            let sessions = found.expect("the export")["sessions"].to_string();
            (daemon, sessions)
        }
        other => panic!("the guest asks for {other:?}"),
    }
}

//! The admin command line against a daemon: what it refuses, what it repeats, what a restart keeps.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::IQN;
use atoll_e2e::initiator::{Durability, Initiator};
use atoll_e2e::{Daemon, Options, Scratch};
use serde_json::Value;

const SECTOR: usize = 512;

fn daemon(scratch: &Scratch) -> Daemon {
    Daemon::start(Options::in_dir(scratch.path()))
}

fn login(daemon: &Daemon, volume: &str) -> Initiator {
    Initiator::login(
        daemon.iscsi(),
        &format!("{IQN}:{volume}"),
        "iqn.2026-11.test:cli",
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn a_name_that_breaks_the_rule_is_refused_with_the_rule() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let long = "a".repeat(201);
    for name in ["", "Upper", "sp ace", "sl/ash", "ünder", "co:lon", &long] {
        let said = daemon.refused(&["volume", "create", name, "--size", "1G"]);
        assert!(
            said.contains("a-z") && said.contains("0-9"),
            "{name:?}: {said}"
        );
    }
    let longest = "a.b_c-9".repeat(40)[..200].to_owned();
    daemon.export_new(&longest, "16M", &[]);
    assert!(login(&daemon, &longest).sectors().is_ok());
}

#[test]
fn a_size_out_of_bounds_is_refused() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    for size in ["0", "512K", "2P", "1000001", "-1G", "ten"] {
        daemon.refused(&["volume", "create", "vol", &format!("--size={size}")]);
    }
    for (name, size) in [("least", "1M"), ("most", "1P")] {
        daemon.run(&["volume", "create", name, "--size", size]);
    }
    daemon.refused(&[
        "volume",
        "create",
        "vol",
        "--size",
        "1G",
        "--block-size",
        "1024",
    ]);
    daemon.refused(&[
        "volume", "create", "vol", "--size", "1G", "--pool", "nowhere",
    ]);
    assert_eq!(
        names(&daemon.json(&["volume", "list"])),
        ["least", "most"],
        "a refused command left something"
    );
}

#[test]
fn a_volume_lives_through_create_rename_resize_and_delete_and_names_are_reusable() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.run(&["volume", "create", "a", "--size", "16M"]);
    daemon.refused(&["volume", "create", "a", "--size", "32M"]);
    daemon.run(&["volume", "rename", "a", "b"]);
    daemon.run(&["volume", "create", "a", "--size", "32M"]);
    daemon.refused(&["volume", "rename", "a", "b"]);
    daemon.run(&["volume", "resize", "b", "64M"]);
    let shown = daemon.json(&["volume", "show", "b"]);
    assert_eq!(
        (&shown["name"], &shown["size"], &shown["block_size"]),
        (&"b".into(), &(64 << 20).into(), &512.into())
    );
    daemon.run(&["volume", "delete", "b"]);
    daemon.refused(&["volume", "show", "b"]);
    daemon.refused(&["volume", "delete", "b"]);
    assert_eq!(names(&daemon.json(&["volume", "list"])), ["a"]);
}

#[test]
fn a_new_volume_of_a_deleted_ones_name_has_nothing_of_it() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("vol", "16M", &[]);
    let mut data = vec![0xee; 2048 * SECTOR];
    login(&daemon, "vol")
        .write(0, &mut data, Durability::Now)
        .unwrap_or_else(|e| panic!("{e}"));
    daemon.run(&["export", "remove", "vol"]);
    daemon.run(&["volume", "delete", "vol"]);
    daemon.export_new("vol", "16M", &[]);
    let read = login(&daemon, "vol")
        .read(0, 2048)
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(
        read.iter().all(|&byte| byte == 0),
        "data of the deleted volume"
    );
}

#[test]
fn what_shrinking_cut_off_does_not_come_back() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("vol", "16M", &[]);
    let (kept, cut) = ((7 << 20) / SECTOR as u64, (9 << 20) / SECTOR as u64);
    let mut data = vec![0xee; 64 * SECTOR];
    let mut session = login(&daemon, "vol");
    for lba in [kept, cut] {
        session
            .write(lba, &mut data, Durability::Now)
            .unwrap_or_else(|e| panic!("{e}"));
    }
    session.logout();
    daemon.run(&["volume", "resize", "vol", "8M"]);
    assert!(
        login(&daemon, "vol").read(cut, 1).is_err(),
        "a read beyond the end"
    );
    daemon.run(&["volume", "resize", "vol", "16M"]);
    let mut session = login(&daemon, "vol");
    assert!(session.read(kept, 64).unwrap_or_else(|e| panic!("{e}")) == data);
    assert!(
        session
            .read(cut, 64)
            .unwrap_or_else(|e| panic!("{e}"))
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn what_is_in_use_is_not_deleted_and_says_who_uses_it() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("vol", "16M", &[]);
    let _session = login(&daemon, "vol");
    let said = daemon.refused(&["volume", "delete", "vol"]);
    assert!(said.contains("export"), "{said}");
    let said = daemon.refused(&["pool", "remove", "main"]);
    assert!(said.contains("vol") || said.contains("default"), "{said}");
}

#[test]
fn pools_of_every_type_serve_volumes() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let dir = scratch.path().join("pool");
    let dir = dir.to_str().expect("UTF-8");
    daemon.run(&[
        "pool",
        "add",
        "files",
        "--type",
        "file",
        "--path",
        dir,
        "--object-size",
        "64K",
    ]);
    daemon.run(&["pool", "add", "ram", "--type", "memory"]);
    daemon.run(&["pool", "add", "void", "--type", "null"]);
    daemon.refused(&["pool", "add", "again", "--type", "file", "--path", dir]);
    daemon.refused(&[
        "pool",
        "add",
        "odd",
        "--type",
        "memory",
        "--object-size",
        "3M",
    ]);
    assert_eq!(
        names(&daemon.json(&["pool", "list"])),
        ["files", "main", "ram", "void"]
    );
    for pool in ["files", "ram", "void"] {
        daemon.export_new(pool, "16M", &["--pool", pool]);
        let mut data = vec![0x3c; 300 * SECTOR];
        let mut session = login(&daemon, pool);
        session
            .write(77, &mut data, Durability::Now)
            .unwrap_or_else(|e| panic!("{pool}: {e}"));
        let read = session
            .read(77, 300)
            .unwrap_or_else(|e| panic!("{pool}: {e}"));
        assert!(pool == "void" || read == data, "{pool}: other data");
        session.logout();
        daemon.refused(&["pool", "remove", pool]);
        daemon.run(&["export", "remove", pool]);
        daemon.run(&["volume", "delete", pool]);
    }
}

#[test]
fn a_read_only_export_refuses_writes_and_serves_reads() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.run(&["volume", "create", "vol", "--size", "16M"]);
    daemon.run(&["export", "add", "vol", "--iscsi", "--read-only"]);
    let mut session = login(&daemon, "vol");
    assert!(
        session
            .write(0, &mut vec![1; SECTOR], Durability::Flush)
            .is_err()
    );
    assert!(
        session
            .read(0, 8)
            .unwrap_or_else(|e| panic!("{e}"))
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn a_volume_is_rolled_back_only_while_no_initiator_is_logged_in_and_snapshots_take_no_writes() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("vol", "16M", &[]);
    let [old, new] = [0x11, 0x22].map(|byte| vec![byte; 64 * SECTOR]);
    let mut session = login(&daemon, "vol");
    let mut write = |data: &[u8]| {
        session
            .write(8, &mut data.to_vec(), Durability::Now)
            .unwrap_or_else(|e| panic!("{e}"));
    };
    write(&old);
    daemon.run(&["volume", "snapshot", "vol", "snap"]);
    write(&new);
    daemon.run(&["export", "add", "snap"]);
    let mut snapshot = login(&daemon, "snap");
    assert!(
        snapshot
            .write(8, &mut new.clone(), Durability::Flush)
            .is_err(),
        "a snapshot took a write"
    );
    assert!(snapshot.read(8, 64).unwrap_or_else(|e| panic!("{e}")) == old);

    let said = daemon.refused(&["volume", "rollback", "vol", "snap"]);
    assert!(said.contains("logged in"), "{said}");
    assert!(session.read(8, 64).unwrap_or_else(|e| panic!("{e}")) == new);
    session.logout();
    daemon.run(&["export", "remove", "vol"]);
    daemon.run(&["volume", "rollback", "vol", "snap"]);
    daemon.run(&["export", "add", "vol"]);
    let read = login(&daemon, "vol").read(8, 64);
    assert!(read.unwrap_or_else(|e| panic!("{e}")) == old);
}

#[test]
fn what_an_admin_set_survives_a_crash() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    daemon.export_new("one", "16M", &["--block-size", "4096"]);
    daemon.run(&["volume", "create", "two", "--size", "32M"]);
    daemon.run(&["export", "add", "two", "--iscsi", "--read-only"]);
    daemon.run(&["volume", "create", "three", "--size", "1G"]);
    daemon.run(&["snapshot", "group", "mon", "one", "three"]);
    daemon.run(&["volume", "clone", "one-mon", "clone", "--size", "64M"]);
    daemon.run(&["volume", "protect", "one-mon"]);
    daemon.run(&["volume", "rollback", "three", "three-mon"]);
    daemon.run(&["export", "add", "three-mon"]);
    let state = |daemon: &Daemon| {
        let mut pools = daemon.json(&["pool", "list"]);
        for pool in pools.as_array_mut().expect("a list") {
            pool["free"].take(); // what else is on the disk changes it
        }
        let mut exports = daemon.json(&["export", "list"]);
        for export in exports.as_array_mut().expect("a list") {
            export["portals"].take(); // the port is a new one each time
        }
        let volumes = daemon.json(&["volume", "list"]);
        (volumes, daemon.json(&["volume", "tree"]), pools, exports)
    };
    let before = state(&daemon);
    let daemon = Daemon::start(daemon.kill());
    assert_eq!(before, state(&daemon));
}

#[test]
fn without_a_daemon_a_command_says_so() {
    let scratch = Scratch::new();
    let daemon = daemon(&scratch);
    let mut command = daemon.command(&["status"]);
    let (_options, _status) = daemon.stop();
    let output = atoll_e2e::process::run(&mut command);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("admin.sock") && !said.contains("panicked"),
        "{said}"
    );
}

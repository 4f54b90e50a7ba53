//! Data directories that earlier versions wrote are opened, shown as they were, and go on working.
//! `ATOLL_WRITE_FIXTURE=FILE` writes a new one, once per version of the formats.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::{IQN, fsck};
use atoll_e2e::initiator::{Durability, Initiator};
use atoll_e2e::{Daemon, Options, Scratch, process};
use std::path::{Path, PathBuf};

const INITIATOR: &str = "iqn.2026-11.io.atoll.test:fixture";
const SECTOR: usize = 512;

/// What a write of sectors leaves: each filled by its place.
fn pattern(lba: u64, sectors: usize) -> Vec<u8> {
    (lba..lba + sectors as u64)
        .flat_map(|sector| {
            let word = sector.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            (0..SECTOR / 8).flat_map(move |n| (word.rotate_left(n as u32)).to_le_bytes())
        })
        .collect()
}

/// Written in `plain`: first sector and count. Two objects whole or in part, and pieces of blocks.
const WRITTEN: [(u64, usize); 4] = [(0, 64), (8190, 5), (20_001, 130), (65_536, 2048)];
/// Given back afterwards, whole blocks.
const UNMAPPED: (u64, usize) = (65_600, 64);
const SIZE: &str = "64M";
const SECTORS: u64 = 131_072;

fn login(daemon: &Daemon, name: &str) -> Initiator {
    Initiator::login(daemon.iscsi(), &format!("{IQN}:{name}"), INITIATOR).expect("login")
}

/// A directory with a bit of everything, left as a killed daemon leaves it.
fn build(dir: &Path) {
    let daemon = Daemon::start(Options::in_dir(dir));
    daemon.export_new("plain", SIZE, &[]);
    daemon.export_new("blocks", "16M", &["--block-size", "4096"]);
    daemon.run(&["volume", "create", "gone", "--size", "8M"]);
    daemon.run(&["volume", "delete", "gone"]);
    daemon.run(&["volume", "create", "renamed-from", "--size", "32M"]);
    daemon.run(&["volume", "resize", "renamed-from", "8M"]);
    daemon.run(&["volume", "rename", "renamed-from", "renamed"]);
    let mut plain = login(&daemon, "plain");
    for (lba, sectors) in WRITTEN {
        plain
            .write(lba, &mut pattern(lba, sectors), Durability::Flush)
            .expect("write");
    }
    plain.unmap(UNMAPPED.0, UNMAPPED.1).expect("unmap");
    plain.flush().expect("flush");
    plain.logout();
    drop(daemon.kill());
}

/// All of `plain` that is of interest is as it was written.
fn verify(daemon: &Daemon) {
    let listed = daemon.json(&["volume", "list"]);
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    assert_eq!(names, ["blocks", "plain", "renamed"]);
    let mut plain = login(daemon, "plain");
    assert_eq!(plain.sectors().expect("capacity"), SECTORS);
    let mut expected = vec![0; SECTORS as usize * SECTOR];
    for (lba, sectors) in WRITTEN {
        let at = lba as usize * SECTOR;
        expected[at..at + sectors * SECTOR].copy_from_slice(&pattern(lba, sectors));
    }
    let at = UNMAPPED.0 as usize * SECTOR;
    expected[at..at + UNMAPPED.1 * SECTOR].fill(0);
    for (n, part) in expected.chunks(512 << 10).enumerate() {
        let lba = (n * (512 << 10) / SECTOR) as u64;
        let found = plain.read(lba, part.len() / SECTOR).expect("read");
        let wrong = found.iter().zip(part).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "sectors from {lba}");
    }
    // It goes on working.
    plain
        .write(100_000, &mut pattern(7, 8), Durability::Now)
        .expect("write");
    assert_eq!(plain.read(100_000, 8).expect("read"), pattern(7, 8));
    plain.logout();
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn every_released_data_directory_is_opened_and_is_as_it_was() {
    let mut seen = 0;
    for entry in std::fs::read_dir(vectors().join("data")).expect("the fixtures") {
        let archive = entry.expect("an entry").path();
        let scratch = Scratch::new();
        process::succeed(
            process::command("tar")
                .arg("-xzf")
                .arg(&archive)
                .arg("-C")
                .arg(scratch.path()),
        );
        let data = scratch.path().join("data");
        fsck(&data);
        let daemon = Daemon::start(Options::in_dir(scratch.path()));
        verify(&daemon);
        let (_, status) = daemon.stop();
        assert!(status.success(), "{}: {status}", archive.display());
        fsck(&data);
        seen += 1;
    }
    assert!(seen > 0, "no fixture was found");
}

#[test]
fn a_fixture_written_now_holds_the_same() {
    let scratch = Scratch::new();
    let data = scratch.path().join("data");
    build(scratch.path());
    if let Some(archive) = std::env::var_os("ATOLL_WRITE_FIXTURE") {
        // The ballast is made anew by every start.
        process::succeed(
            process::command("tar")
                .arg("-czSf")
                .arg(archive)
                .args(["--exclude=ballast", "--exclude=*.sock", "--exclude=LOG*"])
                .arg("-C")
                .arg(scratch.path())
                .arg("data"),
        );
    }
    fsck(&data);
    verify(&Daemon::start(Options::in_dir(scratch.path())));
}

//! The power-loss file system keeps its promises: what was synced never vanishes, what was not may, a rename is whole.
//! All through the kernel, as the daemon meets it.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_e2e::powerfs::{PowerFs, Survival};
use atoll_e2e::verify::{BLOCK_SECTORS, Lba, Oracle, SECTOR, Tag};
use atoll_e2e::{Scratch, process, seed};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A mounted file system, or none where FUSE cannot be used, which is said.
fn mounted(seed: u64) -> Option<(PowerFs, Scratch)> {
    let scratch = Scratch::new();
    match PowerFs::mount(&scratch.dir("mnt"), seed) {
        Ok(fs) => Some((fs, scratch)),
        Err(error) => {
            eprintln!("skipped: FUSE cannot be used here: {error}");
            None
        }
    }
}

fn sync_dir(path: &Path) {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn create_synced(path: &Path, text: &str) {
    let mut file = File::create(path).expect("create");
    file.write_all(text.as_bytes()).expect("write");
    file.sync_all().expect("fsync");
    sync_dir(path.parent().expect("a directory"));
}

#[test]
fn what_was_not_synced_vanishes() {
    let Some((mut fs, _scratch)) = mounted(1) else {
        return;
    };
    let root = fs.path().to_owned();
    create_synced(&root.join("kept"), "first");
    fs::write(root.join("kept"), "second, longer").expect("overwrite");
    let named = File::create(root.join("data-without-name")).expect("create");
    named.sync_all().expect("fsync");
    drop(named);
    fs::create_dir(root.join("dir")).expect("mkdir");
    fs.lose_power_as(Survival::Nothing);
    assert_eq!(
        fs::read(root.join("kept")).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    fs.restore_power().expect("remount");
    assert_eq!(
        fs::read_to_string(root.join("kept")).expect("synced"),
        "first"
    );
    let left: Vec<PathBuf> = fs::read_dir(&root)
        .expect("readdir")
        .map(|e| e.expect("entry").path())
        .collect();
    assert_eq!(left, [root.join("kept")]);
}

#[test]
fn what_was_synced_survives_whatever_else_does() {
    for (survival, seed) in Survival::ALL
        .into_iter()
        .flat_map(|survival| (0..8).map(move |seed| (survival, seed)))
    {
        let Some((mut fs, _scratch)) = mounted(seed) else {
            return;
        };
        let root = fs.path().to_owned();
        fs::create_dir(root.join("dir")).expect("mkdir");
        sync_dir(&root);
        create_synced(&root.join("dir/file"), "text");
        create_synced(&root.join("dir/deleted"), "text");
        fs::remove_file(root.join("dir/deleted")).expect("unlink");
        fs::create_dir(root.join("unsynced")).expect("mkdir");
        fs::write(root.join("unsynced/file"), "text").expect("write");
        fs.lose_power_as(survival);
        fs.restore_power().expect("remount");
        assert_eq!(
            fs::read_to_string(root.join("dir/file")).expect("synced"),
            "text",
            "{survival:?} {seed}"
        );
        match survival {
            Survival::Nothing => assert!(
                root.join("dir/deleted").exists(),
                "the removal was not synced"
            ),
            Survival::Everything => {
                assert!(!root.join("dir/deleted").exists());
                assert_eq!(
                    fs::read_to_string(root.join("unsynced/file")).expect("lucky"),
                    "text"
                );
            }
            Survival::Prefix | Survival::Scatter => {}
        }
    }
}

#[test]
fn a_rename_is_on_the_medium_whole_or_not_at_all() {
    let mut outcomes = Vec::new();
    for seed in 0..24 {
        let Some((mut fs, _scratch)) = mounted(seed) else {
            return;
        };
        let root = fs.path().to_owned();
        for dir in ["a", "b"] {
            fs::create_dir(root.join(dir)).expect("mkdir");
        }
        sync_dir(&root);
        create_synced(&root.join("a/new"), "new");
        create_synced(&root.join("b/target"), "old");
        fs::rename(root.join("a/new"), root.join("b/target")).expect("rename");
        fs.lose_power();
        fs.restore_power().expect("remount");
        let target = fs::read_to_string(root.join("b/target")).expect("old or new, never missing");
        let source = root.join("a/new").exists();
        assert_eq!(
            source,
            target == "old",
            "seed {seed}: half a rename: target {target:?}, source there: {source}"
        );
        outcomes.push(source);
    }
    assert!(
        outcomes.contains(&true) && outcomes.contains(&false),
        "a rename can be lost and can survive"
    );
}

#[test]
fn a_file_moved_into_an_unsynced_directory_is_in_one_of_both() {
    for seed in 0..24 {
        let Some((mut fs, _scratch)) = mounted(seed) else {
            return;
        };
        let root = fs.path().to_owned();
        create_synced(&root.join("file"), "text");
        fs::create_dir_all(root.join("x/y")).expect("mkdir");
        fs::rename(root.join("file"), root.join("x/y/file")).expect("rename");
        if seed % 2 == 0 {
            sync_dir(&root.join("x/y"));
        }
        fs.lose_power();
        fs.restore_power().expect("remount");
        let (here, there) = (root.join("file").exists(), root.join("x/y/file").exists());
        assert!(
            here != there,
            "seed {seed}: a durable file was lost or doubled: {here} {there}"
        );
        assert!(
            seed % 2 != 0 || there,
            "seed {seed}: the directory that it moved to was synced"
        );
    }
}

/// Random writes, hole punches and syncs of several files through O_DIRECT and buffered handles, power lost again and
/// again, against the oracle.
#[test]
fn random_histories_leave_what_was_synced_and_nothing_foreign() {
    const SECTORS: u64 = 64 * BLOCK_SECTORS;
    const ROUNDS: usize = 40;
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let Some((mut fs, _scratch)) = mounted(seed) else {
        return;
    };
    let paths: Vec<PathBuf> = (0..3)
        .map(|index| fs.path().join(format!("file-{index}")))
        .collect();
    let mut oracles: Vec<Oracle> = (0..3)
        .map(|index| Oracle::new(Tag(seed ^ index), SECTORS))
        .collect();
    for path in &paths {
        let file = File::create(path).expect("create");
        file.set_len(SECTORS * SECTOR as u64).expect("truncate");
        file.sync_all().expect("fsync");
    }
    sync_dir(fs.path());
    for round in 0..ROUNDS {
        for (path, oracle) in paths.iter().zip(&mut oracles) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .expect("open");
            for _ in 0..rng.random_range(0..24) {
                step(&file, oracle, &mut rng);
            }
        }
        let survival = fs.lose_power();
        fs.restore_power().expect("remount");
        for (path, oracle) in paths.iter().zip(&mut oracles) {
            let data = fs::read(path).expect("a synced name");
            assert_eq!(
                data.len() as u64,
                SECTORS * SECTOR as u64,
                "a synced length"
            );
            // This medium tears at sectors.
            let checked = oracle.check_torn(Lba(0), &data);
            checked
                .unwrap_or_else(|e| panic!("round {round}, {survival:?}, {}: {e}", path.display()));
        }
    }
}

fn step(file: &File, oracle: &mut Oracle, rng: &mut ChaCha8Rng) {
    let sectors = *[1, 3, 8, 64].choose(rng).expect("not empty");
    let lba = rng.random_range(0..=oracle.sectors() - sectors);
    match rng.random_range(0..10) {
        0 => {
            let flush = oracle.begin_flush();
            file.sync_data().expect("fdatasync");
            oracle.end_flush(&flush);
        }
        1 => {
            let ticket = oracle.begin_zero(Lba(lba), sectors);
            punch(file, lba, sectors);
            oracle.acknowledge(&ticket, false);
        }
        _ => {
            let mut data = vec![0; sectors as usize * SECTOR];
            let ticket = oracle.begin_write(Lba(lba), &mut data);
            file.write_all_at(&data, lba * SECTOR as u64)
                .expect("write");
            oracle.acknowledge(&ticket, false);
        }
    }
}

fn punch(file: &File, lba: u64, sectors: u64) {
    use std::os::fd::AsRawFd;
    let (offset, len) = (lba * SECTOR as u64, sectors * SECTOR as u64);
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let (offset, len) = (offset.to_string(), len.to_string());
    process::succeed(Command::new("fallocate").args([
        "--punch-hole",
        "--offset",
        &offset,
        "--length",
        &len,
        &path,
    ]));
}

#[test]
fn direct_io_locks_and_allocation_behave_as_the_daemon_needs() {
    let Some((fs, _scratch)) = mounted(1) else {
        return;
    };
    let path = fs.path().join("direct");
    let direct = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let direct = direct.expect("O_DIRECT");
    direct.try_lock().expect("flock");
    let second = File::open(&path).expect("open");
    assert!(
        second.try_lock().is_err(),
        "a second exclusive lock was granted"
    );
    process::succeed(
        Command::new("fallocate")
            .args(["--length", "1M"])
            .arg(&path),
    );
    assert_eq!(direct.metadata().expect("stat").len(), 1 << 20);
    process::succeed(
        Command::new("fallocate")
            .args(["--zero-range", "--offset", "1M", "--length", "4K"])
            .arg(&path),
    );
    assert_eq!(direct.metadata().expect("stat").len(), (1 << 20) + 4096);
    process::succeed(
        Command::new("fallocate")
            .args(["--keep-size", "--offset", "8M", "--length", "4K"])
            .arg(&path),
    );
    assert_eq!(direct.metadata().expect("stat").len(), (1 << 20) + 4096);
    fs::create_dir(fs.path().join("full")).expect("mkdir");
    fs::write(fs.path().join("full/file"), "").expect("write");
    let error = fs::remove_dir(fs.path().join("full")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
}

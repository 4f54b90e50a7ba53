//! The crash model against a plain model of what was promised, and the errors of the calls.

use crate::buf::{Buf, SharedBuf};
use crate::fs::{self, Allocate, File, OpenOptions};
use crate::sim::{DiskConfig, DiskFault, DiskOp, Sim, SimConfig, SimDisk};
use crate::{spawn, timeout};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

fn create() -> OpenOptions {
    OpenOptions {
        create: true,
        ..OpenOptions::read_write()
    }
}

fn at(path: &str) -> &Path {
    Path::new(path)
}

async fn open(path: &str) -> File {
    File::open(at(path), create()).await.expect("opens")
}

async fn write(file: &File, bytes: &[u8], offset: u64) {
    let data = SharedBuf::copy_of(bytes);
    file.write_all_at(data, offset).await.expect("writes");
}

async fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let (done, buf) = file.read_at(Buf::alloc(len), offset).await;
    buf[..done.expect("reads")].to_vec()
}

/// Runs `then` on the disk after a restart.
fn after<T: 'static>(
    seed: u64,
    disk: SimDisk,
    then: impl Future<Output = T> + 'static,
) -> (T, SimDisk) {
    let mut sim = Sim::with_disk(seed, 1, disk);
    let value = sim.block_on(then);
    (value, sim.stop())
}

#[test]
fn what_was_synced_with_its_directory_survives_every_crash() {
    for seed in 0..200 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            fs::create_dir_all(at("/a/b")).await.expect("creates");
            let file = open("/a/b/file").await;
            write(&file, &[7; 10_000], 123).await;
            file.sync_data().await.expect("syncs");
            fs::sync_dir(at("/a/b")).await.expect("syncs");
            fs::sync_dir(at("/a")).await.expect("syncs");
            fs::sync_dir(at("/")).await.expect("syncs");
        });
        let content = sim.crash().peek(at("/a/b/file")).expect("is there");
        assert_eq!(content.len(), 10_123, "seed {seed}");
        assert!(content[123..].iter().all(|b| *b == 7), "seed {seed}");
        assert!(content[..123].iter().all(|b| *b == 0), "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_sometimes_vanishes_sometimes_stays_and_sometimes_tears() {
    let (mut none, mut all, mut torn, mut nameless) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            let file = open("/file").await;
            write(&file, &[1; 16384], 0).await;
            file.sync_data().await.expect("syncs");
            if crate::now().as_nanos().is_multiple_of(2) {
                fs::sync_dir(at("/")).await.expect("syncs");
            }
            write(&file, &[2; 16384], 0).await;
        });
        let Ok(content) = sim.crash().peek(at("/file")) else {
            nameless += 1;
            continue;
        };
        assert_eq!(content.len(), 16384, "seed {seed}");
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0]), "seed {seed}");
            assert!(sector[0] == 1 || sector[0] == 2, "seed {seed}");
        }
        match content.iter().filter(|b| **b == 2).count() {
            0 => none += 1,
            16384 => all += 1,
            _ => torn += 1,
        }
    }
    assert!(none > 10 && all > 10 && torn > 10 && nameless > 10);
}

#[test]
fn a_write_under_way_at_a_crash_is_torn_at_the_atomic_unit_only() {
    for seed in 0..100 {
        let config = SimConfig {
            disk: DiskConfig {
                atomic_unit: 4096,
                ..DiskConfig::default()
            },
            ..SimConfig::default()
        };
        let mut sim = Sim::with_config(seed, 1, config);
        sim.block_on(async {
            let file = open("/file").await;
            write(&file, &[1; 32768], 0).await;
            file.sync_filesystem().await.expect("syncs");
            drop(spawn(async move { write(&file, &[2; 32768], 0).await }));
        });
        sim.run_steps(seed % 7);
        let content = sim.crash().peek(at("/file")).expect("is there");
        for block in content.chunks(4096) {
            assert!(block.iter().all(|b| *b == block[0]), "seed {seed}");
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_had_ended() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            fs::create_dir(at("/d")).await.expect("creates");
            let file = open("/d/file").await;
            write(&file, b"written", 5000).await;
            fs::rename(at("/d/file"), at("/moved"))
                .await
                .expect("moves");
        });
        let disk = sim.kill();
        let content = disk.peek(at("/moved")).expect("is there");
        assert_eq!(&content[5000..], b"written");
        // Still not on the medium.
        let disk = Sim::with_disk(seed, 1, disk).crash();
        let _ = disk.peek(at("/moved"));
    }
}

#[test]
fn a_rename_is_old_or_new_after_a_crash_never_neither() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..200 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            fs::create_dir(at("/d")).await.expect("creates");
            for (name, text) in [("/current", b"1"), ("/d/next", b"2")] {
                let file = open(name).await;
                write(&file, text, 0).await;
                file.sync_filesystem().await.expect("syncs");
            }
            fs::rename(at("/d/next"), at("/current"))
                .await
                .expect("moves");
        });
        let disk = sim.crash();
        let content = disk.peek(at("/current")).expect("always there");
        let next = disk.peek(at("/d/next"));
        match content[0] {
            b'1' => {
                assert_eq!(next.expect("not moved"), b"2", "seed {seed}");
                old += 1;
            }
            _ => {
                assert!(next.is_err(), "seed {seed}");
                new += 1;
            }
        }
    }
    assert!(old > 10 && new > 10);
}

#[test]
fn a_file_moved_into_a_new_directory_is_never_lost() {
    for seed in 0..200 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            let file = open("/x").await;
            write(&file, b"data", 0).await;
            file.sync_filesystem().await.expect("syncs");
            fs::create_dir_all(at("/n/m")).await.expect("creates");
            fs::rename(at("/x"), at("/n/m/y")).await.expect("moves");
            if crate::now().as_nanos().is_multiple_of(2) {
                fs::sync_dir(at("/n/m")).await.expect("syncs");
            }
        });
        let disk = sim.crash();
        let places = [disk.peek(at("/x")), disk.peek(at("/n/m/y"))];
        assert_eq!(places.iter().flatten().count(), 1, "seed {seed}");
    }
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_later_one() {
    let mut lost = 0;
    for seed in 0..100 {
        let mut sim = Sim::new(seed, 1);
        let disk = sim.disk();
        sim.block_on(async move {
            let file = open("/file").await;
            file.sync_filesystem().await.expect("syncs");
            write(&file, &[5; 8192], 0).await;
            disk.inject_nth(DiskOp::SyncData, 1, DiskFault::Error(libc::EIO));
            let error = file.sync_data().await.expect_err("injected");
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            file.sync_data().await.expect("the kernel forgot");
        });
        let content = sim.crash().peek(at("/file")).expect("is there");
        lost += u32::from(content.contains(&0));
    }
    // In the rest the kernel had written it back on its own before.
    assert!(lost > 90, "{lost}");
}

#[test]
fn locks_last_until_the_last_handle_and_the_last_operation_are_gone() {
    let mut sim = Sim::new(3, 1);
    let disk = sim.disk();
    sim.block_on(async move {
        let first = open("/lock").await;
        let second = open("/lock").await;
        assert!(first.try_lock().await.expect("locks"));
        assert!(first.try_lock().await.expect("has it"));
        assert!(!second.try_lock().await.expect("asks"));
        disk.inject_nth(DiskOp::Write, 1, DiskFault::Delay(Duration::from_secs(9)));
        let slow = first.clone();
        let gave_up = timeout(Duration::from_secs(1), async move {
            write(&slow, b"late", 0).await;
        });
        assert!(gave_up.await.is_err());
        drop(first);
        assert!(!second.try_lock().await.expect("still running"));
        crate::sleep(Duration::from_secs(10)).await;
        assert!(second.try_lock().await.expect("free now"));
        assert_eq!(read(&second, 0, 4).await, b"late");
    });
}

#[test]
fn a_hung_write_may_land_later_or_never() {
    let mut seen = [0; 2];
    for seed in 0..40 {
        let mut sim = Sim::new(seed, 1);
        sim.disk().inject_nth(DiskOp::Write, 1, DiskFault::Hang);
        sim.block_on(async {
            let file = open("/file").await;
            file.sync_filesystem().await.expect("syncs");
            let hung = timeout(Duration::from_secs(60), write(&file, b"x", 0));
            assert!(hung.await.is_err());
            assert_eq!(file.metadata().await.expect("stats").len, 0);
        });
        assert_eq!(sim.disk().in_flight(), 1);
        let content = sim.kill().peek(at("/file")).expect("is there");
        seen[content.len()] += 1;
    }
    assert!(seen.iter().all(|count| *count > 3), "{seen:?}");
}

#[test]
fn calls_fail_as_posix_says() {
    let mut sim = Sim::new(1, 1);
    sim.block_on(async {
        let kind = |result: std::io::Result<()>| result.expect_err("fails").kind();
        let missing = File::open(at("/no"), OpenOptions::read_only()).await;
        assert_eq!(kind(missing.map(drop)), ErrorKind::NotFound);
        assert_eq!(
            kind(fs::create_dir(at("/")).await),
            ErrorKind::AlreadyExists
        );
        assert_eq!(kind(fs::create_dir(at("/a/b")).await), ErrorKind::NotFound);
        fs::create_dir(at("/d")).await.expect("creates");
        let file = open("/d/f").await;
        assert_eq!(
            kind(fs::create_dir(at("/d/f/x")).await),
            ErrorKind::NotADirectory
        );
        assert_eq!(
            kind(fs::remove_dir(at("/d")).await),
            ErrorKind::DirectoryNotEmpty
        );
        assert_eq!(
            kind(fs::remove_dir(at("/d/f")).await),
            ErrorKind::NotADirectory
        );
        assert_eq!(
            kind(fs::remove_file(at("/d")).await),
            ErrorKind::IsADirectory
        );
        assert_eq!(
            kind(fs::rename(at("/d"), at("/d/e")).await),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            kind(fs::rename(at("/d/f"), at("/d")).await),
            ErrorKind::IsADirectory
        );
        let again = OpenOptions {
            create_new: true,
            ..create()
        };
        let again = File::open(at("/d/f"), again).await;
        assert_eq!(kind(again.map(drop)), ErrorKind::AlreadyExists);
        let direct = OpenOptions {
            direct: true,
            ..create()
        };
        let direct = File::open(at("/d/f"), direct).await.expect("opens");
        let unaligned = direct.write_all_at(SharedBuf::copy_of(&[1; 512]), 0).await;
        assert_eq!(kind(unaligned), ErrorKind::InvalidInput);
        let unaligned = direct
            .write_all_at(SharedBuf::copy_of(&[1; 4096]), 512)
            .await;
        assert_eq!(kind(unaligned), ErrorKind::InvalidInput);
        direct
            .write_all_at(SharedBuf::copy_of(&[1; 4096]), 4096)
            .await
            .expect("aligned");
        assert_eq!(file.metadata().await.expect("stats").allocated, 4096);
        let names = fs::read_dir(at("/d")).await.expect("lists");
        assert_eq!(names.len(), 1);
        let reader = File::open(at("/d/f"), OpenOptions::read_only())
            .await
            .expect("opens");
        let refused = reader.write_all_at(SharedBuf::copy_of(&[1]), 0).await;
        assert_eq!(
            refused.expect_err("read only").raw_os_error(),
            Some(libc::EBADF)
        );
    });
}

#[test]
fn an_unlinked_file_works_until_it_is_closed_and_then_gives_its_space_back() {
    let config = SimConfig {
        disk: DiskConfig {
            capacity: 64 << 10,
            ..DiskConfig::default()
        },
        ..SimConfig::default()
    };
    let mut sim = Sim::with_config(5, 1, config);
    sim.block_on(async {
        let file = open("/f").await;
        write(&file, &[9; 40 << 10], 0).await;
        let full = file
            .write_all_at(SharedBuf::copy_of(&[9; 40 << 10]), 40 << 10)
            .await;
        assert_eq!(full.expect_err("full").kind(), ErrorKind::StorageFull);
        fs::remove_file(at("/f")).await.expect("removes");
        assert_eq!(read(&file, 100, 50).await, [9; 50]);
        assert_eq!(fs::capacity(at("/")).await.expect("asks").available, 0);
        drop(file);
        assert_eq!(
            fs::capacity(at("/")).await.expect("asks").available,
            64 << 10
        );
    });
}

#[test]
fn allocate_punches_zeroes_and_extends() {
    let mut sim = Sim::new(6, 1);
    sim.block_on(async {
        let file = open("/f").await;
        write(&file, &[3; 20_000], 0).await;
        file.allocate(Allocate::PunchHole, 1000, 8000)
            .await
            .expect("punches");
        let stat = file.metadata().await.expect("stats");
        assert_eq!((stat.len, stat.allocated), (20_000, 4 * 4096));
        let bytes = read(&file, 0, 20_000).await;
        assert!(bytes[1000..9000].iter().all(|b| *b == 0));
        assert!(bytes[..1000].iter().chain(&bytes[9000..]).all(|b| *b == 3));
        file.allocate(Allocate::ZeroRange, 4096, 4096)
            .await
            .expect("zeroes");
        file.allocate(Allocate::Extend, 0, 1 << 20)
            .await
            .expect("extends");
        let stat = file.metadata().await.expect("stats");
        assert_eq!((stat.len, stat.allocated), (1 << 20, 1 << 20));
        file.set_len(10_000).await.expect("shrinks");
        file.set_len(12_000).await.expect("grows");
        assert!(read(&file, 10_000, 4096).await.iter().all(|b| *b == 0));
        assert_eq!(read(&file, 9_999, 1).await, [3]);
    });
}

/// One file of the model: every content that a block may have after a crash, beginning with the
/// synced one, ending with the current one.
type Model = Rc<RefCell<Vec<Vec<u8>>>>;

const BLOCKS: usize = 8;

async fn random_writer(file: File, model: Model, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut value = 0_u8;
    loop {
        if rng.random_ratio(1, 5) {
            let before: Vec<usize> = model.borrow().iter().map(|v| v.len() - 1).collect();
            file.sync_data().await.expect("syncs");
            for (versions, synced) in model.borrow_mut().iter_mut().zip(before) {
                versions.drain(..synced);
            }
        } else {
            value = value % 250 + 1;
            let first = rng.random_range(0..BLOCKS);
            let count = rng.random_range(1..=BLOCKS - first);
            for versions in &mut model.borrow_mut()[first..first + count] {
                versions.push(value);
            }
            write(&file, &vec![value; count * 4096], first as u64 * 4096).await;
        }
    }
}

#[test]
fn random_histories_leave_only_versions_since_the_last_sync() {
    for seed in 0..150 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut disk = SimDisk::new(DiskConfig {
            atomic_unit: 4096,
            ..DiskConfig::default()
        });
        let path = PathBuf::from("/file");
        let ((), made) = after(seed, disk, async {
            let file = open("/file").await;
            write(&file, &[0; BLOCKS * 4096], 0).await;
            file.sync_filesystem().await.expect("syncs");
        });
        disk = made;
        let model: Model = Rc::new(RefCell::new(vec![vec![0]; BLOCKS]));
        for round in 0..4 {
            let mut sim = Sim::with_disk(seed * 10 + round, 1, disk);
            let writer = model.clone();
            drop(sim.spawn(crate::CoreId(0), async move {
                let file = open("/file").await;
                random_writer(file, writer, seed + round).await;
            }));
            sim.run_steps(rng.random_range(1..200));
            disk = if rng.random_bool(0.7) {
                sim.crash()
            } else {
                sim.kill()
            };
            let content = disk.peek(&path).expect("is there");
            assert_eq!(content.len(), BLOCKS * 4096);
            for (block, versions) in content.chunks(4096).zip(model.borrow_mut().iter_mut()) {
                assert!(block.iter().all(|b| *b == block[0]), "seed {seed}");
                assert!(
                    versions.contains(&block[0]),
                    "seed {seed}: {} of {versions:?}",
                    block[0]
                );
                // The next round may still come back to any of them until it syncs.
                versions.push(block[0]);
            }
        }
    }
}

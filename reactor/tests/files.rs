//! Files by the ring: content, errors, locks, directories, and who owns a buffer when.
mod common;

use atoll_reactor::fs::{self, Allocate, File, OpenOptions};
use atoll_reactor::{Buf, SharedBuf, timeout};
use common::run;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

fn create() -> OpenOptions {
    OpenOptions {
        create: true,
        ..OpenOptions::read_write()
    }
}

fn pattern(len: usize, seed: u8) -> SharedBuf {
    let mut buf = Buf::alloc(len);
    for (index, byte) in buf.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(31).wrapping_add(seed);
    }
    buf.freeze()
}

#[test]
fn what_was_written_is_read_again_and_the_end_of_file_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    run(move || async move {
        let file = File::open(&path, create()).await.unwrap();
        let data = pattern(3 << 20, 1);
        file.write_all_at(data.clone(), 4096).await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len, 4096 + (3 << 20));
        let (count, buf) = file.read_at(Buf::alloc(4 << 20), 4096).await;
        assert_eq!(count.unwrap(), 3 << 20);
        assert_eq!(buf[..3 << 20], *data);
        let (count, buf) = file.read_at(Buf::alloc(4096), 0).await;
        assert_eq!(count.unwrap(), 4096);
        assert!(buf.iter().all(|byte| *byte == 0), "the hole reads as zeros");
        let (count, _) = file.read_at(Buf::alloc(4096), 1 << 40).await;
        assert_eq!(count.unwrap(), 0);
        file.set_len(10).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len, 10);
        let (error, buf) = file.read_at(Buf::alloc(4096), u64::MAX).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(buf.len(), 4096);
    });
}

/// A file that bypasses the page cache, or the reason why there is none here.
async fn open_direct(path: &Path) -> Option<File> {
    let options = OpenOptions {
        direct: true,
        ..create()
    };
    match File::open(path, options).await {
        Ok(file) => Some(file),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            println!("skipped: no O_DIRECT at {}", path.display());
            None
        }
    }
}

#[test]
fn direct_io_works_from_pooled_and_heap_buffers() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("file");
    run(move || async move {
        let Some(file) = open_direct(&path).await else {
            return;
        };
        assert!(Buf::try_pooled(64 << 10).is_some());
        // 64 KiB comes from the pool (registered), 2 MiB from the heap.
        for (len, offset) in [(64 << 10, 0), (2 << 20, 1 << 20)] {
            let data = pattern(len, offset as u8);
            file.write_all_at(data.clone(), offset).await.unwrap();
            let (count, buf) = file.read_at(Buf::alloc(len), offset).await;
            assert_eq!(count.unwrap(), len);
            assert_eq!(*buf, *data);
        }
        // A slice within a pooled buffer.
        let part = pattern(64 << 10, 9).slice(4096..12288);
        file.write_all_at(part.clone(), 4096).await.unwrap();
        let (count, buf) = file.read_at(Buf::alloc(8192), 4096).await;
        assert_eq!(count.unwrap(), 8192);
        assert_eq!(*buf, *part);
        let error = file.write_all_at(part.slice(1..4097), 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "not aligned");
        // The last, partial block.
        file.set_len((3 << 20) + 100).await.unwrap();
        let (count, _) = file.read_at(Buf::alloc(8192), 3 << 20).await;
        assert_eq!(count.unwrap(), 100);
    });
}

#[test]
fn holes_are_punched_and_ranges_zeroed() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("file");
    run(move || async move {
        let file = File::open(&path, create()).await.unwrap();
        file.allocate(Allocate::Extend, 0, 1 << 20).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len, 1 << 20);
        file.write_all_at(pattern(1 << 20, 3), 0).await.unwrap();
        for (what, offset) in [(Allocate::PunchHole, 4096), (Allocate::ZeroRange, 16384)] {
            match file.allocate(what, offset, 4096).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    println!("skipped: {what:?} is not supported here");
                    continue;
                }
                other => other.unwrap(),
            }
            let (count, buf) = file.read_at(Buf::alloc(4096), offset).await;
            assert_eq!(count.unwrap(), 4096);
            assert!(buf.iter().all(|byte| *byte == 0));
        }
        assert_eq!(file.metadata().await.unwrap().len, 1 << 20);
    });
}

#[test]
fn names_are_made_listed_moved_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    run(move || async move {
        fs::create_dir_all(&root.join("a/b/c")).await.unwrap();
        fs::create_dir_all(&root.join("a/b/c")).await.unwrap();
        let file = root.join("a/one");
        drop(File::open(&file, create()).await.unwrap());
        let again = OpenOptions {
            create_new: true,
            ..create()
        };
        let error = File::open(&file, again).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        fs::rename(&file, &root.join("a/two")).await.unwrap();
        let error = File::open(&file, OpenOptions::read_only()).await.err();
        assert_eq!(error.unwrap().kind(), ErrorKind::NotFound);
        let entries = fs::read_dir(&root.join("a")).await.unwrap();
        let names: Vec<_> = entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.is_dir))
            .collect();
        assert_eq!(names, [("b", true), ("two", false)]);
        fs::sync_dir(&root.join("a")).await.unwrap();
        let error = fs::remove_dir(&root.join("a/b")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
        fs::remove_file(&root.join("a/two")).await.unwrap();
        fs::remove_dir(&root.join("a/b/c")).await.unwrap();
        assert!(fs::metadata(&root.join("a/b")).await.unwrap().is_dir);
        let error = fs::metadata(&root.join("a/b/c")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let room = fs::capacity(&root).await.unwrap();
        assert!(room.total >= room.available && room.total > 0);
        let file = File::open(&root.join("x"), create()).await.unwrap();
        file.sync_filesystem().await.unwrap();
        // FUSE answers for a server that is not asked; proc is none of the known ones either.
        assert!(!fs::honours_syncfs(Path::new("/proc")).await.unwrap());
        let missing = fs::honours_syncfs(&root.join("missing")).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_lock_excludes_other_open_files_until_the_last_clone_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    run(move || async move {
        let first = File::open(&path, create()).await.unwrap();
        assert!(first.try_lock().await.unwrap());
        let second = File::open(&path, create()).await.unwrap();
        assert!(!second.try_lock().await.unwrap());
        let clone = first.clone();
        drop(first);
        assert!(!second.try_lock().await.unwrap());
        drop(clone);
        // The close is under way in the ring.
        let free = timeout(Duration::from_secs(30), async {
            while !second.try_lock().await.unwrap() {
                atoll_reactor::yield_now().await;
            }
        });
        free.await.expect("the lock becomes free");
    });
}

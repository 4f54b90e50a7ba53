//! Files and directories without blocking: by the ring, or simulated. Paths are the host's.
//! Operations own their buffers until the kernel has ended them, whatever becomes of the future (R2).

use crate::buf::{Buf, SharedBuf};
use crate::core::{Driver, with_core};
use crate::{sim, uring};
use std::io;
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    pub read: bool,
    pub write: bool,
    /// Create it if it is missing.
    pub create: bool,
    /// Create it, fail with `AlreadyExists` if it is there.
    pub create_new: bool,
    pub truncate: bool,
    /// `O_DIRECT`: offsets, lengths and buffers must be aligned to 4096. Where the file system
    /// refuses it, opening fails with `InvalidInput`.
    pub direct: bool,
    /// Open a directory (for `sync_all`).
    pub directory: bool,
}

impl OpenOptions {
    pub fn read_only() -> OpenOptions {
        OpenOptions {
            read: true,
            ..OpenOptions::default()
        }
    }

    pub fn read_write() -> OpenOptions {
        OpenOptions {
            read: true,
            write: true,
            ..OpenOptions::default()
        }
    }
}

/// What `fallocate` does with a range; none of them changes the file's length
/// but `Extend`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Reserve space, growing the file.
    Extend,
    /// Give the range's space back; it reads as zeros.
    PunchHole,
    /// The range reads as zeros, its space stays reserved.
    ZeroRange,
}

/// What `stat` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    pub len: u64,
    /// Bytes that take space.
    pub allocated: u64,
    pub is_dir: bool,
}

/// What `statfs` tells of a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FsCapacity {
    pub total: u64,
    pub available: u64,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
}

/// An open file of this core. Clones share it; it closes when the last one and the last
/// operation are gone.
#[derive(Clone)]
pub struct File {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Uring(uring::fs::File),
    Sim(sim::fs::File),
}

/// Runs one call on the driver of this core.
macro_rules! by_driver {
    ($uring:expr, $sim:expr) => {
        if with_core(|core| matches!(core.driver, Driver::Uring(_))) {
            $uring
        } else {
            $sim
        }
    };
}

/// Runs one method on whichever file it is.
macro_rules! by_file {
    ($self:ident, $file:ident => $call:expr) => {
        match &$self.inner {
            Inner::Uring($file) => $call,
            Inner::Sim($file) => $call,
        }
    };
}

impl File {
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let inner = by_driver!(
            Inner::Uring(uring::fs::File::open(path, options).await?),
            Inner::Sim(sim::fs::File::open(path, options).await?)
        );
        Ok(File { inner })
    }

    /// Reads up to `buf.len()` bytes at `offset` to the buffer's beginning; fewer at the file's end.
    pub async fn read_at(&self, buf: Buf, offset: u64) -> (io::Result<usize>, Buf) {
        by_file!(self, file => file.read_at(buf, offset).await)
    }

    /// Writes the whole buffer at `offset`.
    pub async fn write_all_at(&self, data: SharedBuf, offset: u64) -> io::Result<()> {
        by_file!(self, file => file.write_all_at(data, offset).await)
    }

    /// `fdatasync`: content and length are durable. A failure is sticky with the kernel: what was
    /// written before may be lost though a later call succeeds.
    pub async fn sync_data(&self) -> io::Result<()> {
        by_file!(self, file => file.sync(true).await)
    }

    /// `fsync`; on a directory it makes its entries durable.
    pub async fn sync_all(&self) -> io::Result<()> {
        by_file!(self, file => file.sync(false).await)
    }

    /// `syncfs` of the file system that the file is on. Runs on a helper thread.
    pub async fn sync_filesystem(&self) -> io::Result<()> {
        by_file!(self, file => file.sync_filesystem().await)
    }

    pub async fn allocate(&self, what: Allocate, offset: u64, len: u64) -> io::Result<()> {
        by_file!(self, file => file.allocate(what, offset, len).await)
    }

    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        by_file!(self, file => file.set_len(len).await)
    }

    pub async fn metadata(&self) -> io::Result<Metadata> {
        by_file!(self, file => file.metadata().await)
    }

    /// Takes an exclusive lock on the file, without waiting; false if another open file has it.
    /// It is free when the file is closed, which is when its last operation has ended.
    pub async fn try_lock(&self) -> io::Result<bool> {
        by_file!(self, file => file.try_lock().await)
    }
}

pub async fn create_dir(path: &Path) -> io::Result<()> {
    by_driver!(
        uring::fs::create_dir(path).await,
        sim::fs::create_dir(path).await
    )
}

/// Creates the directory and its missing parents; none of them is synced.
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = Some(path);
    while let Some(dir) = at.filter(|dir| !dir.as_os_str().is_empty()) {
        match create_dir(dir).await {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(dir.to_path_buf());
                at = dir.parent();
            }
            Err(error) => return Err(error),
        }
    }
    for dir in missing.iter().rev() {
        match create_dir(dir).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub async fn remove_file(path: &Path) -> io::Result<()> {
    by_driver!(
        uring::fs::remove_file(path).await,
        sim::fs::remove_file(path).await
    )
}

pub async fn remove_dir(path: &Path) -> io::Result<()> {
    by_driver!(
        uring::fs::remove_dir(path).await,
        sim::fs::remove_dir(path).await
    )
}

/// Replaces `to` if it exists.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    by_driver!(
        uring::fs::rename(from, to).await,
        sim::fs::rename(from, to).await
    )
}

pub async fn metadata(path: &Path) -> io::Result<Metadata> {
    by_driver!(
        uring::fs::metadata(path).await,
        sim::fs::metadata(path).await
    )
}

/// All entries, sorted by name. Runs on a helper thread.
pub async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    by_driver!(
        uring::fs::read_dir(path).await,
        sim::fs::read_dir(path).await
    )
}

/// Makes a directory's entries durable.
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    let options = OpenOptions {
        read: true,
        directory: true,
        ..OpenOptions::default()
    };
    File::open(path, options).await?.sync_all().await
}

/// Whether `syncfs` on the file system that holds `path` is known to write everything back and to
/// tell what failed. False where it is not known: the kernel answers for FUSE without asking the
/// server, and before Linux 5.17 it dropped a file system's own failure. Runs on a helper thread.
pub async fn honours_syncfs(path: &Path) -> io::Result<bool> {
    by_driver!(
        uring::fs::honours_syncfs(path).await,
        sim::fs::honours_syncfs(path).await
    )
}

/// Room on the file system that holds `path`. Runs on a helper thread.
pub async fn capacity(path: &Path) -> io::Result<FsCapacity> {
    by_driver!(
        uring::fs::capacity(path).await,
        sim::fs::capacity(path).await
    )
}

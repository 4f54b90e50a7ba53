//! The file face of the simulated driver: the calls of `crate::fs` on this simulation's disk.

use super::disk::{DiskOp, OpenFile};
use super::world;
use crate::buf::{ALIGNMENT, Buf, SharedBuf};
use crate::fs::{Allocate, DirEntry, FsCapacity, Metadata, OpenOptions};
use std::io;
use std::path::Path;
use std::rc::Rc;

/// A handle; clones and running operations share the open file.
#[derive(Clone)]
pub(crate) struct File {
    open: Rc<OpenFile>,
}

fn is_aligned(value: u64) -> bool {
    value.is_multiple_of(ALIGNMENT as u64)
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let world = world();
        let open = world.disk.open(&world, path, options).await?;
        Ok(File { open })
    }

    fn check_alignment(&self, offset: u64, len: usize, memory: bool) -> io::Result<()> {
        let direct = self.open.is_direct();
        if direct && !(memory && is_aligned(offset) && is_aligned(len as u64)) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }

    pub(crate) async fn read_at(&self, buf: Buf, offset: u64) -> (io::Result<usize>, Buf) {
        if let Err(error) = self.check_alignment(offset, buf.len(), true) {
            return (Err(error), buf);
        }
        let world = world();
        world.disk.read(&world, &self.open, buf, offset).await
    }

    pub(crate) async fn write_all_at(&self, data: SharedBuf, offset: u64) -> io::Result<()> {
        self.check_alignment(offset, data.len(), data.is_aligned())?;
        let world = world();
        world.disk.write(&world, &self.open, data, offset).await
    }

    pub(crate) async fn sync(&self, data_only: bool) -> io::Result<()> {
        let op = if data_only {
            DiskOp::SyncData
        } else {
            DiskOp::SyncAll
        };
        let world = world();
        world.disk.sync(&world, &self.open, op).await
    }

    pub(crate) async fn sync_filesystem(&self) -> io::Result<()> {
        let world = world();
        if !world.disk.config().honours_syncfs {
            return Ok(());
        }
        world
            .disk
            .sync(&world, &self.open, DiskOp::SyncFilesystem)
            .await
    }

    pub(crate) async fn allocate(&self, what: Allocate, offset: u64, len: u64) -> io::Result<()> {
        let world = world();
        world
            .disk
            .allocate(&world, &self.open, what, offset, len)
            .await
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        let world = world();
        world.disk.set_len(&world, &self.open, len).await
    }

    pub(crate) async fn metadata(&self) -> io::Result<Metadata> {
        let world = world();
        world.disk.file_metadata(&world, &self.open).await
    }

    pub(crate) async fn try_lock(&self) -> io::Result<bool> {
        let world = world();
        world.disk.try_lock(&world, &self.open).await
    }
}

pub(crate) async fn create_dir(path: &Path) -> io::Result<()> {
    let world = world();
    world.disk.create_dir(&world, path).await
}

pub(crate) async fn remove_file(path: &Path) -> io::Result<()> {
    let world = world();
    world.disk.remove(&world, path, false).await
}

pub(crate) async fn remove_dir(path: &Path) -> io::Result<()> {
    let world = world();
    world.disk.remove(&world, path, true).await
}

pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let world = world();
    world.disk.rename(&world, from, to).await
}

pub(crate) async fn metadata(path: &Path) -> io::Result<Metadata> {
    let world = world();
    world.disk.metadata(&world, path).await
}

pub(crate) async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let world = world();
    world.disk.read_dir(&world, path).await
}

pub(crate) async fn capacity(path: &Path) -> io::Result<FsCapacity> {
    let world = world();
    world.disk.capacity(&world, path).await
}

pub(crate) async fn honours_syncfs(path: &Path) -> io::Result<bool> {
    let world = world();
    world.disk.metadata(&world, path).await?;
    Ok(world.disk.config().honours_syncfs)
}

//! Simulated files.
use crate::buf::{Buf, SharedBuf};
use crate::fs::{Allocate, DirEntry, FsCapacity, Metadata, OpenOptions};
use std::io;
use std::path::Path;

#[derive(Clone)]
pub(crate) struct File {}

fn no<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl File {
    pub(crate) async fn open(_path: &Path, _options: OpenOptions) -> io::Result<File> {
        no()
    }
    pub(crate) async fn read_at(&self, buf: Buf, _offset: u64) -> (io::Result<usize>, Buf) {
        (no(), buf)
    }
    pub(crate) async fn write_all_at(&self, _data: SharedBuf, _offset: u64) -> io::Result<()> {
        no()
    }
    pub(crate) async fn sync(&self, _data_only: bool) -> io::Result<()> {
        no()
    }
    pub(crate) async fn sync_filesystem(&self) -> io::Result<()> {
        no()
    }
    pub(crate) async fn allocate(&self, _w: Allocate, _offset: u64, _len: u64) -> io::Result<()> {
        no()
    }
    pub(crate) async fn set_len(&self, _len: u64) -> io::Result<()> {
        no()
    }
    pub(crate) async fn metadata(&self) -> io::Result<Metadata> {
        no()
    }
    pub(crate) async fn try_lock(&self) -> io::Result<bool> {
        no()
    }
}
pub(crate) async fn create_dir(_path: &Path) -> io::Result<()> {
    no()
}
pub(crate) async fn remove_file(_path: &Path) -> io::Result<()> {
    no()
}
pub(crate) async fn remove_dir(_path: &Path) -> io::Result<()> {
    no()
}
pub(crate) async fn rename(_from: &Path, _to: &Path) -> io::Result<()> {
    no()
}
pub(crate) async fn metadata(_path: &Path) -> io::Result<Metadata> {
    no()
}
pub(crate) async fn read_dir(_path: &Path) -> io::Result<Vec<DirEntry>> {
    no()
}
pub(crate) async fn capacity(_path: &Path) -> io::Result<FsCapacity> {
    no()
}

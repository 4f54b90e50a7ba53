//! What a measurement has of the machine: a temporary directory and the room that its files take, memory, a
//! thread's own time.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the thread that measures is no reactor, or begins and ends a measurement"
)]

use atoll_mapper::meta::{OpenMode, RocksMeta, RocksOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Gone, with what is in it, when it is dropped.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        let made = tempfile::Builder::new().prefix("atoll-bench-").tempdir();
        Scratch(made.expect("a temporary directory"))
    }

    pub fn metadata(&self) -> PathBuf {
        self.0.path().join("metadata")
    }

    pub fn pool(&self) -> PathBuf {
        self.0.path().join("pool")
    }

    /// The metadata store of production, with production's options.
    pub fn open(&self, mode: OpenMode) -> RocksMeta {
        let opened = RocksMeta::open(&self.metadata(), mode, &RocksOptions::default());
        opened.expect("a metadata store")
    }

    /// Bytes that all files of the database take on the medium.
    pub fn database_bytes(&self) -> u64 {
        allocated(&self.metadata().join("db"))
    }
}

fn allocated(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the database's directory");
    let files = entries.map(|entry| entry.and_then(|entry| entry.metadata()));
    files
        .map(|file| file.expect("a closed database's files stay").blocks() * 512)
        .sum()
}

/// Bytes of memory that this process has resident.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.expect("the second number of statm");
    pages * 4096
}

/// Seconds for which the calling thread has run. What others do on its CPU is not in it.
pub fn own_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has /proc");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    let nanos: u64 = nanos.expect("the first number of schedstat");
    nanos as f64 * 1e-9
}

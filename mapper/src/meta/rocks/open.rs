//! Opening the directory of a metadata store: its lock, RocksDB's options, and errors that say
//! what to do.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "opening blocks, off the reactors"
)]

use super::{OpenMode, RocksOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, LogLevel, MergeOperands,
    Options,
};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Of the merge operator; another meaning of operands would need another name.
const MERGE_NAME: &str = "atoll-1";
/// Memtables: a few of this size, so that an idle daemon stays small.
const MEMTABLE_BYTES: usize = 4 << 20;
const MEMTABLES: i32 = 3;
/// Log that a start has to replay.
const MAX_WAL_BYTES: u64 = 16 << 20;
const TABLE_FILE_BYTES: u64 = 16 << 20;
const LEVEL_BASE_BYTES: u64 = 64 << 20;
const OPEN_FILES: i32 = 256;
const BLOCK_BYTES: usize = 4 << 10;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const BACKGROUND_JOBS: i32 = 2;
/// Operands of one key in the memtable after which they are merged, to keep reads short.
const MAX_SUCCESSIVE_MERGES: usize = 32;
const INFO_LOG_BYTES: usize = 1 << 20;
const INFO_LOGS: usize = 3;

/// The open database, and the lock that keeps others out of its directory.
pub(super) struct Opened {
    pub(super) db: DB,
    pub(super) lock: DirectoryLock,
}

/// Keeps every other process out, readers too: they would see files vanish under them.
pub(super) struct DirectoryLock(File);

impl DirectoryLock {
    /// Unlocked, not only closed: a child between fork and exec has the descriptor, too.
    pub(super) fn release(self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "metadata store: its lock file cannot be unlocked");
        }
    }
}

pub(super) fn database_of(directory: &Path) -> PathBuf {
    directory.join("db")
}

pub(super) fn open(directory: &Path, mode: OpenMode, options: &RocksOptions) -> Result<Opened> {
    let database = database_of(directory);
    let exists = database.join("CURRENT").exists();
    match mode {
        OpenMode::Create if exists => {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{} holds a metadata store already", directory.display()),
            ));
        }
        OpenMode::Create => create_directory(directory)?,
        OpenMode::Existing | OpenMode::ReadOnly if !exists => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no metadata store in {}: is its file system mounted?",
                    directory.display()
                ),
            ));
        }
        OpenMode::Existing | OpenMode::ReadOnly => {}
    }
    let lock = lock(directory, mode)?;
    let rocks = rocks_options(mode, options);
    let db = match mode {
        OpenMode::ReadOnly => DB::open_for_read_only(&rocks, &database, false),
        OpenMode::Create | OpenMode::Existing => DB::open(&rocks, &database),
    };
    let db = db.map_err(|error| {
        let context = format!(
            "the metadata store in {} cannot be opened",
            directory.display()
        );
        from_rocks(context, error)
    })?;
    // Its entry, also where whoever created it was killed before this.
    if mode != OpenMode::ReadOnly {
        sync_directory(directory)?;
    }
    Ok(Opened { db, lock })
}

fn io(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::ReadOnly
        }
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, format!("cannot {what} {}", path.display()), error)
}

/// Creates the directory and its missing parents, all of them durable.
fn create_directory(directory: &Path) -> Result<()> {
    let missing = directory.ancestors().take_while(|at| !at.exists()).count();
    std::fs::create_dir_all(directory).map_err(|error| io("create", directory, error))?;
    for (depth, parent) in directory.ancestors().skip(1).enumerate() {
        let parent = match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        };
        match sync_directory(parent) {
            // What was there may be left by a creation that was killed; that of somebody else, in a
            // place that may not even be read, is not ours to sync.
            Err(error) if depth >= missing => {
                tracing::debug!(%error, "a directory that was there is not synced");
            }
            done => done?,
        }
    }
    Ok(())
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| io("sync", directory, error))
}

fn lock(directory: &Path, mode: OpenMode) -> Result<DirectoryLock> {
    let path = directory.join("lock");
    let write = mode != OpenMode::ReadOnly;
    let mut file = OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .open(&path)
        .map_err(|error| io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Who has it is only told for convenience.
            let _ = file.read_to_string(&mut owner);
            let owner = match owner.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the metadata store in {} is in use by {owner}: is the daemon running?",
                    directory.display()
                ),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(io("lock", &path, error)),
    }
    if write {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| io("write", &path, error))?;
    }
    Ok(DirectoryLock(file))
}

fn rocks_options(mode: OpenMode, options: &RocksOptions) -> Options {
    let mut rocks = Options::default();
    rocks.create_if_missing(mode == OpenMode::Create);
    rocks.set_error_if_exists(mode == OpenMode::Create);
    rocks.set_paranoid_checks(true);
    // What a torn tail of the log holds was never answered as durable.
    rocks.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    rocks.set_merge_operator(MERGE_NAME, merge, merge);
    rocks.set_max_successive_merges(MAX_SUCCESSIVE_MERGES);
    rocks.set_write_buffer_size(MEMTABLE_BYTES);
    rocks.set_max_write_buffer_number(MEMTABLES);
    rocks.set_max_total_wal_size(MAX_WAL_BYTES);
    rocks.set_target_file_size_base(TABLE_FILE_BYTES);
    rocks.set_max_bytes_for_level_base(LEVEL_BASE_BYTES);
    rocks.set_level_compaction_dynamic_level_bytes(true);
    rocks.set_max_open_files(OPEN_FILES);
    rocks.set_max_background_jobs(BACKGROUND_JOBS);
    // Rows are compact already.
    rocks.set_compression_type(DBCompressionType::None);
    rocks.set_log_level(LogLevel::Warn);
    rocks.set_max_log_file_size(INFO_LOG_BYTES);
    rocks.set_keep_log_file_num(INFO_LOGS);
    rocks.set_stats_dump_period_sec(0);
    rocks.set_stats_persist_period_sec(0);
    rocks.set_block_based_table_factory(&table_options(options));
    rocks
}

fn table_options(options: &RocksOptions) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    match Cache::new_lru_cache(options.block_cache_bytes) {
        Ok(cache) => table.set_block_cache(&cache),
        // Without a cache of ours RocksDB takes one of its own default size.
        Err(error) => tracing::warn!(%error, "metadata store: no block cache"),
    }
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_format_version(5);
    table
}

fn merge(key: &[u8], base: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    format::merge(key, base, &mut operands.iter())
}

/// A failure of RocksDB's.
pub(super) fn from_rocks(context: impl Into<String>, error: rocksdb::Error) -> Error {
    use rocksdb::ErrorKind as Rocks;
    let kind = match error.kind() {
        Rocks::Corruption => ErrorKind::Corrupt,
        Rocks::InvalidArgument if error.as_ref().contains("does not exist") => ErrorKind::NotFound,
        Rocks::NotSupported => ErrorKind::Unsupported,
        Rocks::TimedOut => ErrorKind::Timeout,
        Rocks::Busy => ErrorKind::Busy,
        Rocks::IOError if error.as_ref().contains("No space left") => ErrorKind::NoSpace,
        Rocks::IOError if error.as_ref().contains("While lock file") => ErrorKind::InUse,
        // A file that the manifest names is gone.
        Rocks::IOError if error.as_ref().contains("No such file") => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, context, error)
}

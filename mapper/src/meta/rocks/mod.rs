//! The metadata store of production: RocksDB on threads of its own. Reactors never call it: they
//! queue work and await the answer (R1). All of RocksDB that the project sees is in this folder.

mod open;
mod queue;
mod reader;
mod space;
#[cfg(test)]
mod tests;
mod writer;

use super::{Batch, Durability, MetaReader, MetaStatus, MetaStore, Op, Pair};
use crate::error::{Error, ErrorKind, Result};
use atoll_reactor::LocalFuture;
use atoll_reactor::oneshot::{self, Receiver, Sender};
use crossbeam::queue::SegQueue;
use open::{DirectoryLock, Opened, from_rocks};
use queue::WorkQueue;
use reader::{Read, SnapshotId, SnapshotWork, Work};
use rocksdb::{DB, WriteBatch, WriteOptions, properties};
use space::{FileSystem, Limits, Space};
#[allow(
    clippy::disallowed_types,
    reason = "only unlocked, on a thread of the store's"
)]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use writer::{Commit, CommitQueue, Engine, Writer};

/// Sizes of the database, in bytes, at which a stop rewrites it without what later rows have replaced: below it is not
/// worth it, above it would take too long.
const COMPACT_AT_STOP: std::ops::RangeInclusive<u64> = 1 << 20..=32 << 20;
/// Reads that wait for a thread; further callers wait until there is room.
const MAX_QUEUED_READS: usize = 1024;

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Makes a new one; `AlreadyExists` if there is one.
    Create,
    /// `NotFound` if there is none.
    Existing,
    /// For checks: nothing is changed, commits fail with `ReadOnly`.
    ReadOnly,
}

/// What a store may use. The defaults are for production.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Blocks, indexes and filters in memory.
    pub block_cache_bytes: usize,
    pub reader_threads: usize,
    /// Size of the file that is given up when the file system is full.
    pub ballast_bytes: u64,
    /// Growing commits are refused while the file system has less than this free.
    pub low_water_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions {
            block_cache_bytes: 32 << 20,
            reader_threads: 2,
            ballast_bytes: 64 << 20,
            low_water_bytes: 64 << 20,
        }
    }
}

type Status = MetaStatus;

/// What handles and threads share.
struct Shared {
    commits: CommitQueue,
    reads: WorkQueue<Work>,
    snapshots: WorkQueue<SnapshotWork>,
    released: SegQueue<SnapshotId>,
    mode: OpenMode,
    closing: AtomicBool,
    full: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
}

/// A metadata store in a directory: `db` (RocksDB), `lock`, and `ballast`.
///
/// Dropping it without [`MetaStore::close`] blocks the thread until it is closed: a reactor awaits
/// `close` before.
pub struct RocksMeta {
    shared: Arc<Shared>,
    last: Option<JoinHandle<()>>,
}

impl RocksMeta {
    /// Blocks: not for a reactor.
    ///
    /// `InUse`: another process has it open. `Corrupt`: RocksDB refuses what it finds.
    pub fn open(directory: &Path, mode: OpenMode, options: &RocksOptions) -> Result<RocksMeta> {
        let opened = open::open(directory, mode, options)?;
        let shared = Arc::new(Shared {
            commits: CommitQueue::new().map_err(no_place)?,
            reads: WorkQueue::new(MAX_QUEUED_READS, options.reader_threads.max(1))
                .map_err(no_place)?,
            snapshots: WorkQueue::new(MAX_QUEUED_READS, 1).map_err(no_place)?,
            released: SegQueue::new(),
            mode,
            closing: AtomicBool::new(false),
            full: Arc::default(),
            failed: Arc::default(),
        });
        let started = start(directory, opened, &shared, options);
        if started.is_err() {
            // The threads that did start end, and with them the database.
            shared.commits.push_close(None);
            shared.reads.stop();
            shared.snapshots.stop();
        }
        let last = Some(started?);
        Ok(RocksMeta { shared, last })
    }

    /// For checks of a store that no daemon has open. Blocks: not for a reactor.
    pub fn open_read_only(directory: &Path) -> Result<RocksMeta> {
        RocksMeta::open(directory, OpenMode::ReadOnly, &RocksOptions::default())
    }

    fn closed<T>(&self) -> Option<Result<T>> {
        let closing = self.shared.closing.load(Ordering::SeqCst);
        closing.then(|| Err(closed()))
    }
}

impl Drop for RocksMeta {
    fn drop(&mut self) {
        if !self.shared.closing.swap(true, Ordering::SeqCst) {
            self.shared.commits.push_close(None);
        }
        if let Some(last) = self.last.take()
            && last.join().is_err()
        {
            tracing::error!("metadata store: its last thread has panicked");
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the metadata store is closed")
}

async fn answered<T>(receiver: Receiver<Result<T>>) -> Result<T> {
    // Dropped unanswered: the threads have ended.
    receiver.await.unwrap_or_else(|_| Err(closed()))
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::with_source(ErrorKind::Io, "cannot start a thread", error))
}

/// Starts the threads; the last one to end is given back.
/// The queues of its threads could not be made.
fn no_place(error: std::io::Error) -> Error {
    let context = "the metadata store's threads have no place to sleep";
    Error::with_source(ErrorKind::Io, context, error)
}

fn start(
    directory: &Path,
    opened: Opened,
    shared: &Arc<Shared>,
    options: &RocksOptions,
) -> Result<JoinHandle<()>> {
    let Opened { db, lock } = opened;
    let db = Arc::new(db);
    let readers = start_readers(directory, &db, shared)?;
    let limits = Limits {
        ballast: options.ballast_bytes,
        low_water: options.low_water_bytes,
    };
    let (all, disk) = (shared.clone(), FileSystem::new(directory));
    let writer = spawn("meta-write", move || write(db, disk, limits, &all, readers))?;
    let all = shared.clone();
    spawn("meta-end", move || end(&all, writer, lock))
}

fn start_readers(
    directory: &Path,
    db: &Arc<DB>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for worker in 0..shared.reads.workers() {
        let (db, shared, directory) = (db.clone(), shared.clone(), directory.to_owned());
        let run = move || reader::run(&db, &directory, &shared.reads, worker);
        threads.push(spawn("meta-read", run)?);
    }
    let (db, shared) = (db.clone(), shared.clone());
    let run = move || reader::run_snapshots(&db, &shared.snapshots, &shared.released);
    threads.push(spawn("meta-snapshot", run)?);
    Ok(threads)
}

/// Who waits for the end, and how it went.
type Ended = (Option<Sender<Result<()>>>, Result<()>);

/// The writing thread: works until the store is closed, then ends the others and the database.
fn write(
    db: Arc<DB>,
    disk: FileSystem,
    limits: Limits,
    shared: &Shared,
    readers: Vec<JoinHandle<()>>,
) -> Ended {
    let writable = shared.mode != OpenMode::ReadOnly;
    let mut writer = Writer {
        engine: Rocks { db, writable },
        space: writable.then(|| Space::new(disk, limits, shared.full.clone())),
        failure: None,
        failed: shared.failed.clone(),
    };
    let (answer, mut result) = writer.run(&shared.commits);
    stop(shared, readers);
    if result.is_ok() {
        result = writer.engine.flush();
    }
    // The readers have ended, so this closes the database.
    drop(writer);
    (answer, result)
}

/// The last thread: answers when every thread that RocksDB knows has ended, since a process that
/// exits under one of them may abort.
fn end(shared: &Shared, writer: JoinHandle<Ended>, lock: DirectoryLock) {
    let ended = writer.join();
    shared.closing.store(true, Ordering::SeqCst);
    shared.commits.end();
    lock.release();
    match ended {
        // The caller may have given up.
        Ok((Some(answer), result)) => drop(answer.send(result)),
        Ok((None, _)) => {}
        Err(_) => {
            tracing::error!("metadata store: the writing thread has panicked");
            shared.failed.store(true, Ordering::SeqCst);
            shared.reads.stop();
            shared.snapshots.stop();
        }
    }
}

/// Ends the readers and drops what nobody will answer any more.
fn stop(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.closing.store(true, Ordering::SeqCst);
    shared.reads.stop();
    shared.snapshots.stop();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("metadata store: a reading thread has panicked");
        }
    }
    shared.reads.clear();
    shared.snapshots.clear();
    shared.commits.end();
}

struct Rocks {
    db: Arc<DB>,
    writable: bool,
}

impl Rocks {
    /// Makes the next start quick: nothing is left to replay.
    fn flush(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        let flushed = self.db.flush();
        flushed.map_err(|error| from_rocks("flush of the metadata store", error))?;
        let size = self.db.property_int_value(properties::TOTAL_SST_FILES_SIZE);
        // A size that is not told, or a failure, only leaves it as large as it is.
        if let Ok(Some(size)) = size
            && COMPACT_AT_STOP.contains(&size)
        {
            self.db.compact_range::<&[u8], &[u8]>(None, None);
        }
        Ok(())
    }
}

impl Engine for Rocks {
    fn write(&self, batches: &mut dyn Iterator<Item = &Batch>, sync: bool) -> Result<()> {
        let mut write = WriteBatch::default();
        for op in batches.flat_map(Batch::ops) {
            match op {
                Op::Put { key, value } => write.put(key, value),
                Op::Delete { key } => write.delete(key),
                Op::Merge { key, operand } => write.merge(key, operand),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let written = self.db.write_opt(write, &options);
        written.map_err(|error| from_rocks("commit to the metadata store", error))
    }

    fn sync(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        let synced = self.db.flush_wal(true);
        synced.map_err(|error| from_rocks("sync of the metadata store", error))
    }
}

#[allow(clippy::disallowed_methods, reason = "runs on a thread of the store's")]
fn status(directory: &Path) -> Result<Status> {
    let failed = |error| Error::with_source(ErrorKind::Io, "size of the metadata store", error);
    let mut used = 0;
    for entry in std::fs::read_dir(open::database_of(directory)).map_err(failed)? {
        // Files come and go while RocksDB works.
        if let Ok(metadata) = entry.map_err(failed)?.metadata() {
            used += metadata.len();
        }
    }
    Ok(Status {
        bytes_used: used,
        bytes_free: Some(space::available(directory).map_err(failed)?),
        ..Status::default()
    })
}

impl MetaReader for RocksMeta {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        let key = key.to_vec();
        self.read(move |answer| Work::Read(Read::Get { key, answer }))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.read(move |answer| {
            Work::Read(Read::Scan {
                from,
                to,
                limit,
                answer,
            })
        })
    }
}

impl RocksMeta {
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(Sender<Result<T>>) -> Work + 'static,
    ) -> LocalFuture<'static, Result<T>> {
        let shared = self.shared.clone();
        LocalFuture::new(async move {
            let (sender, receiver) = oneshot::channel();
            shared.reads.submit(work(sender)).await;
            answered(receiver).await
        })
    }
}

impl MetaStore for RocksMeta {
    fn commit(&self, batch: Batch, durability: Durability) -> LocalFuture<'static, Result<()>> {
        if let Some(closed) = self.closed() {
            return LocalFuture::ready(closed);
        }
        if self.shared.mode == OpenMode::ReadOnly {
            let text = "the metadata store is open for reading only";
            return LocalFuture::ready(Err(Error::new(ErrorKind::ReadOnly, text)));
        }
        // Queued now, not when it is polled: the order of calls is the order of batches.
        let (answer, receiver) = oneshot::channel();
        let commit = Commit {
            batch,
            durability,
            answer,
        };
        match self.shared.commits.push(commit) {
            Ok(()) => LocalFuture::new(answered(receiver)),
            Err(error) => LocalFuture::ready(Err(error)),
        }
    }

    fn snapshot(&self) -> LocalFuture<'static, Result<Arc<dyn MetaReader + Send + Sync>>> {
        let shared = self.shared.clone();
        LocalFuture::new(async move {
            let (sender, receiver) = oneshot::channel();
            shared.snapshots.submit(SnapshotWork::Take(sender)).await;
            let id = answered(receiver).await?;
            let held = Arc::new(Held { shared, id });
            Ok(Arc::new(RocksSnapshot { held }) as Arc<dyn MetaReader + Send + Sync>)
        })
    }

    fn close(&self) -> LocalFuture<'static, Result<()>> {
        if self.shared.closing.swap(true, Ordering::SeqCst) {
            return LocalFuture::ready(Err(closed()));
        }
        let (sender, receiver) = oneshot::channel();
        self.shared.commits.push_close(Some(sender));
        LocalFuture::new(answered(receiver))
    }

    fn status(&self) -> LocalFuture<'static, Result<MetaStatus>> {
        let read = self.read(Work::Status);
        let shared = self.shared.clone();
        LocalFuture::new(async move {
            let status = read.await?;
            Ok(MetaStatus {
                full: shared.full.load(Ordering::SeqCst),
                failed: shared.failed.load(Ordering::SeqCst),
                ..status
            })
        })
    }
}

/// A snapshot that the snapshots' thread holds for us.
struct Held {
    shared: Arc<Shared>,
    id: SnapshotId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.released.push(self.id);
        self.shared.snapshots.wake_one();
    }
}

struct RocksSnapshot {
    held: Arc<Held>,
}

impl RocksSnapshot {
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(Sender<Result<T>>) -> Read + 'static,
    ) -> LocalFuture<'static, Result<T>> {
        // The future may outlive the handle.
        let held = self.held.clone();
        LocalFuture::new(async move {
            let (sender, receiver) = oneshot::channel();
            let work = SnapshotWork::Read(held.id, read(sender));
            held.shared.snapshots.submit(work).await;
            answered(receiver).await
        })
    }
}

impl MetaReader for RocksSnapshot {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        let key = key.to_vec();
        self.read(move |answer| Read::Get { key, answer })
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.read(move |answer| Read::Scan {
            from,
            to,
            limit,
            answer,
        })
    }
}

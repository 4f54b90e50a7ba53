//! The threads that read: a few for the newest state, one that holds the snapshots.

use super::open::from_rocks;
use super::queue::WorkQueue;
use super::{Status, status};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::describe;
use crate::meta::Pair;
use atoll_reactor::oneshot::Sender;
use crossbeam::queue::SegQueue;
use rocksdb::{DB, DBRawIterator, ReadOptions, Snapshot};
use std::collections::HashMap;

/// Snapshots that may be held at a time; each keeps old data from being dropped.
pub(super) const MAX_SNAPSHOTS: usize = 1024;

pub(super) enum Read {
    Get {
        key: Vec<u8>,
        answer: Sender<Result<Option<Vec<u8>>>>,
    },
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        limit: usize,
        answer: Sender<Result<Vec<Pair>>>,
    },
}

/// Work of the threads for the newest state.
pub(super) enum Work {
    Read(Read),
    Status(Sender<Result<Status>>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct SnapshotId(u64);

/// Work of the snapshots' thread.
pub(super) enum SnapshotWork {
    Take(Sender<Result<SnapshotId>>),
    Read(SnapshotId, Read),
}

/// What can be read from: the database, or a snapshot of it.
trait View {
    fn get(&self, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, rocksdb::Error>;

    fn iterate(&self, options: ReadOptions) -> DBRawIterator<'_>;
}

impl View for DB {
    fn get(&self, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, rocksdb::Error> {
        self.get_opt(key, &checked())
    }

    fn iterate(&self, options: ReadOptions) -> DBRawIterator<'_> {
        self.raw_iterator_opt(options)
    }
}

impl View for Snapshot<'_> {
    fn get(&self, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, rocksdb::Error> {
        self.get_opt(key, checked())
    }

    fn iterate(&self, options: ReadOptions) -> DBRawIterator<'_> {
        self.raw_iterator_opt(options)
    }
}

fn checked() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// Works off reads of the newest state until the queue is stopped.
pub(super) fn run(db: &DB, directory: &std::path::Path, queue: &WorkQueue<Work>, worker: usize) {
    while let Some(work) = queue.next(worker, || false) {
        match work {
            Work::Read(read) => serve(db, read),
            Work::Status(answer) => {
                // The caller may have given up; so below.
                let _ = answer.send(status(directory));
            }
        }
    }
}

/// Holds the snapshots, and reads from them, until the queue is stopped.
pub(super) fn run_snapshots(
    db: &DB,
    queue: &WorkQueue<SnapshotWork>,
    released: &SegQueue<SnapshotId>,
) {
    let mut held: HashMap<SnapshotId, Snapshot<'_>> = HashMap::new();
    let mut next = 0;
    while !queue.is_stopped() {
        while let Some(id) = released.pop() {
            held.remove(&id);
        }
        match queue.next(0, || !released.is_empty()) {
            Some(SnapshotWork::Take(answer)) if held.len() >= MAX_SNAPSHOTS => {
                let _ = answer.send(Err(Error::new(
                    ErrorKind::Busy,
                    format!("{MAX_SNAPSHOTS} snapshots of the metadata store are held already"),
                )));
            }
            Some(SnapshotWork::Take(answer)) => {
                let id = SnapshotId(next);
                next += 1;
                held.insert(id, db.snapshot());
                if answer.send(Ok(id)).is_err() {
                    held.remove(&id);
                }
            }
            Some(SnapshotWork::Read(id, read)) => {
                // Released while it was read from: the caller is gone, dropping tells it so.
                if let Some(snapshot) = held.get(&id) {
                    serve(snapshot, read);
                }
            }
            None => {}
        }
    }
}

fn serve(view: &impl View, read: Read) {
    match read {
        Read::Get { key, answer } => {
            let value = view.get(&key).map_err(|error| failed(&key, error));
            let _ = answer.send(value);
        }
        Read::Scan {
            from,
            to,
            limit,
            answer,
        } => {
            let _ = answer.send(scan(view, &from, to, limit));
        }
    }
}

fn scan(view: &impl View, from: &[u8], to: Vec<u8>, limit: usize) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    if from >= to.as_slice() || limit == 0 {
        return Ok(pairs);
    }
    let mut options = checked();
    options.set_iterate_upper_bound(to);
    let mut iterator = view.iterate(options);
    iterator.seek(from);
    while let Some((key, value)) = iterator.item() {
        pairs.push((key.to_vec(), value.to_vec()));
        if pairs.len() == limit {
            return Ok(pairs);
        }
        iterator.next();
    }
    // An iterator that fails looks as if it had ended.
    iterator.status().map_err(|error| failed(from, error))?;
    Ok(pairs)
}

fn failed(key: &[u8], error: rocksdb::Error) -> Error {
    from_rocks(format!("metadata row {}", describe(key)), error)
}

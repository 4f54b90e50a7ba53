//! The thread that writes: takes what was committed meanwhile as one group, writes it with one
//! sync, answers. The first failure is the last thing it writes.

use super::queue::Sleeper;
use super::space::{Disk, Room, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Batch, Durability};
use atoll_reactor::oneshot::Sender;
use crossbeam::queue::SegQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Commits that wait to be written; more are refused. Each is one caller's, who waits for its
/// answer, so that in practice the callers' own limits hold long before.
pub(super) const MAX_QUEUED: usize = 65_536;
/// Commits that are written together.
const MAX_GROUP: usize = 256;
/// Bytes after which a group is closed.
const MAX_GROUP_BYTES: usize = 1 << 20;

pub(super) struct Commit {
    pub(super) batch: Batch,
    pub(super) durability: Durability,
    pub(super) answer: Sender<Result<()>>,
}

enum Request {
    Commit(Commit),
    /// The last request: nothing after it is done.
    Close(Option<Sender<Result<()>>>),
}

/// The queue of commits. A batch has its place in the order when `push` returns.
pub(super) struct CommitQueue {
    queue: SegQueue<Request>,
    queued: AtomicUsize,
    sleeper: Sleeper,
    ended: AtomicBool,
}

impl CommitQueue {
    /// Fails when there is no place to sleep for the writer.
    pub(super) fn new() -> std::io::Result<CommitQueue> {
        Ok(CommitQueue {
            queue: SegQueue::new(),
            queued: AtomicUsize::new(0),
            sleeper: Sleeper::new()?,
            ended: AtomicBool::new(false),
        })
    }

    pub(super) fn push(&self, commit: Commit) -> Result<()> {
        if self.queued.load(Ordering::SeqCst) >= MAX_QUEUED {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{MAX_QUEUED} commits wait for the metadata store"),
            ));
        }
        self.push_request(Request::Commit(commit));
        Ok(())
    }

    pub(super) fn push_close(&self, answer: Option<Sender<Result<()>>>) {
        self.push_request(Request::Close(answer));
    }

    fn push_request(&self, request: Request) {
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.queue.push(request);
        self.sleeper.wake();
        fence(Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            // The writer may have left before it saw it; dropping it answers its caller.
            self.clear();
        }
    }

    fn pop(&self) -> Option<Request> {
        let request = self.queue.pop()?;
        self.queued.fetch_sub(1, Ordering::SeqCst);
        Some(request)
    }

    fn wait(&self) -> Request {
        loop {
            if let Some(request) = self.pop() {
                return request;
            }
            self.sleeper.sleep_unless(|| !self.queue.is_empty());
        }
    }

    fn clear(&self) {
        while self.pop().is_some() {}
    }

    /// The writer has left: what is queued, and what will be, is dropped.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.clear();
    }
}

/// What is written to.
pub(super) trait Engine {
    /// All batches as one atomic write; durable, with all before it, if `sync`.
    fn write(&self, batches: &mut dyn Iterator<Item = &Batch>, sync: bool) -> Result<()>;

    /// Makes all that was written durable.
    fn sync(&self) -> Result<()>;
}

pub(super) struct Writer<E, D> {
    pub(super) engine: E,
    /// `None` in a store that is only read.
    pub(super) space: Option<Space<D>>,
    pub(super) failure: Option<Error>,
    /// Kept up to date for others to look at.
    pub(super) failed: Arc<AtomicBool>,
}

impl<E: Engine, D: Disk> Writer<E, D> {
    /// Until the store is closed; who waits for that, and whether everything became durable.
    pub(super) fn run(&mut self, queue: &CommitQueue) -> (Option<Sender<Result<()>>>, Result<()>) {
        loop {
            let mut next = Some(queue.wait());
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut close = None;
            while let Some(request) = next {
                match request {
                    Request::Commit(commit) => {
                        bytes += commit.batch.bytes();
                        group.push(commit);
                    }
                    Request::Close(answer) => {
                        close = Some(answer);
                        break;
                    }
                }
                let more = group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES;
                next = if more { queue.pop() } else { None };
            }
            if !group.is_empty() {
                self.commit(group);
            }
            if let Some(answer) = close {
                return (answer, self.finish());
            }
        }
    }

    /// Writes a group and answers it.
    pub(super) fn commit(&mut self, group: Vec<Commit>) {
        let group = match &self.failure {
            Some(failure) => return refuse(group, || faulted(failure)),
            None => self.refuse_growth(group),
        };
        let sync = group
            .iter()
            .any(|commit| commit.durability == Durability::Synced);
        let written = if group.iter().any(|commit| !commit.batch.is_empty()) {
            let mut batches = group.iter().map(|commit| &commit.batch);
            self.engine.write(&mut batches, sync)
        } else if sync {
            self.engine.sync()
        } else {
            Ok(())
        };
        match written {
            Ok(()) => group.into_iter().for_each(|commit| {
                // The caller may have given up; the commit counts nevertheless.
                let _ = commit.answer.send(Ok(()));
            }),
            Err(error) => {
                let failure = self.fail(error);
                refuse(group, || faulted(&failure));
            }
        }
    }

    /// Whether a failed write or sync is durable nobody knows; so nothing may follow it.
    fn fail(&mut self, error: Error) -> Error {
        tracing::error!(%error, "metadata store: a write failed; no more is written");
        self.failed.store(true, Ordering::SeqCst);
        self.failure = Some(error.duplicate());
        error
    }

    fn refuse_growth(&mut self, group: Vec<Commit>) -> Vec<Commit> {
        let room = self.space.as_ref().map_or(Room::Plenty, Space::room);
        if room == Room::Plenty {
            return group;
        }
        let passes = |batch: &Batch| batch.is_empty() || (batch.frees() && room != Room::None);
        let (pass, refused) = group.into_iter().partition(|commit| passes(&commit.batch));
        refuse(refused, || {
            Error::new(
                ErrorKind::NoSpace,
                "the metadata store's file system is full: free space on it, or delete volumes",
            )
        });
        pass
    }

    fn finish(&mut self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(faulted(failure)),
            None => self.engine.sync().map_err(|error| self.fail(error)),
        }
    }
}

fn faulted(failure: &Error) -> Error {
    Error::new(
        ErrorKind::Faulted,
        format!("the metadata store failed and takes no more commits: {failure}"),
    )
}

fn refuse(group: Vec<Commit>, why: impl Fn() -> Error) {
    for commit in group {
        // The caller may have given up.
        let _ = commit.answer.send(Err(why()));
    }
}

//! The contract on RocksDB; reopening after kills, locks, damage; group commit and sticky failures
//! on an engine that fails on demand.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests, off the reactors"
)]

use super::space::Room;
use super::*;
use crate::format::{CounterRow, Key, KeyRange, Row};
use crate::meta::contract::Rig;
use crate::meta::get_row;
use crate::types::{NodeId, PoolNumber};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::task::{Context, Poll, Wake, Waker};
use tempfile::TempDir;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        std::thread::park();
    }
}

fn options() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 1 << 20,
        ballast_bytes: 1 << 20,
        low_water_bytes: 1 << 20,
        ..RocksOptions::default()
    }
}

fn open(directory: &Path, mode: OpenMode) -> Result<RocksMeta> {
    RocksMeta::open(directory, mode, &options())
}

struct RocksRig {
    directory: TempDir,
    store: Arc<RocksMeta>,
}

impl RocksRig {
    fn new() -> RocksRig {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(directory.path(), OpenMode::Create).expect("a new store");
        RocksRig {
            directory,
            store: Arc::new(store),
        }
    }
}

impl Rig for RocksRig {
    fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        block_on(future)
    }

    fn store(&self) -> Arc<dyn MetaStore> {
        self.store.clone()
    }

    fn reopen(&mut self) {
        let store = open(self.directory.path(), OpenMode::Existing);
        self.store = Arc::new(store.expect("closed before"));
    }
}

crate::meta::contract::suite!(RocksRig::new());

fn key(id: u64) -> Key {
    Key::node(NodeId::new(id).expect("not 0"))
}

fn numbered(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(number), CounterRow { next: number }.encode());
    batch
}

fn read(store: &RocksMeta, id: u64) -> Result<Option<u64>> {
    let row: Option<CounterRow> = block_on(get_row(store, &key(id)))?;
    Ok(row.map(|row| row.next))
}

fn commit(store: &RocksMeta, number: u64) -> Result<()> {
    block_on(store.commit(numbered(number), Durability::Synced))
}

#[test]
fn opening_says_what_is_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let kind = |mode| open(path, mode).err().map(|error| error.kind());
    assert_eq!(kind(OpenMode::Existing), Some(ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::ReadOnly), Some(ErrorKind::NotFound));
    let store = open(path, OpenMode::Create).expect("a new store");
    assert_eq!(kind(OpenMode::Create), Some(ErrorKind::AlreadyExists));
    for mode in [OpenMode::Existing, OpenMode::ReadOnly] {
        let error = open(path, mode).err().expect("it is in use");
        assert_eq!(error.kind(), ErrorKind::InUse);
        let me = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
    }
    block_on(store.close()).expect("closed");
    assert!(open(path, OpenMode::Existing).is_ok());
}

#[test]
fn a_store_open_for_reading_reads_the_log_and_refuses_commits() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), OpenMode::Create).expect("a new store");
    commit(&store, 1).expect("a commit");
    let copy = copied(directory.path());
    let reader = RocksMeta::open_read_only(copy.path()).expect("readable");
    assert_eq!(read(&reader, 1).expect("readable"), Some(1));
    let refused = commit(&reader, 2).expect_err("for reading only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let snapshot = block_on(reader.snapshot()).expect("a snapshot");
    let range = KeyRange::all();
    let pairs = block_on(snapshot.scan(&range.from, &range.to, 9));
    assert_eq!(pairs.expect("a scan").len(), 1);
    block_on(reader.close()).expect("closed");
    assert!(!copy.path().join("ballast.new").exists());
}

#[test]
fn a_stop_rewrites_a_small_database_without_what_was_deleted() {
    const ROWS: u64 = 4096;
    let record = |row: u64| Key::store_record(PoolNumber::FIRST, &row.to_be_bytes());
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), OpenMode::Create).expect("a new store");
    let mut written = Batch::new();
    let mut deleted = Batch::new();
    for row in 0..ROWS {
        written.put(record(row), [0x5a; 1024]);
        deleted.delete(record(row));
    }
    let used = |store: &RocksMeta| block_on(store.status()).expect("its size").bytes_used;
    block_on(store.commit(written, Durability::Synced)).expect("written");
    assert!(used(&store) > ROWS * 1024);
    block_on(store.commit(deleted, Durability::Synced)).expect("deleted");
    commit(&store, 1).expect("another row");
    block_on(store.close()).expect("it closes");
    drop(store);
    let store = open(directory.path(), OpenMode::Existing).expect("it opens");
    assert!(used(&store) < 100_000, "{} bytes are left", used(&store));
    assert_eq!(read(&store, 1).expect("read"), Some(1));
}

/// The files as a killed process would leave them: no commit is under way.
fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(to.path().join("db")).expect("a directory");
    for part in ["", "db"] {
        for entry in std::fs::read_dir(from.join(part)).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                let target = to.path().join(part).join(entry.file_name());
                std::fs::copy(entry.path(), target).expect("copied");
            }
        }
    }
    to
}

#[test]
fn a_store_that_was_not_closed_opens_with_everything_committed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), OpenMode::Create).expect("a new store");
    for number in 1..=50 {
        commit(&store, number).expect("a commit");
        if number % 10 == 0 {
            let copy = copied(directory.path());
            let found = open(copy.path(), OpenMode::Existing).expect("it opens");
            for number in 1..=number {
                assert_eq!(read(&found, number).expect("readable"), Some(number));
            }
        }
    }
}

const CHILD: &str = "ATOLL_META_TEST_CHILD";

/// Not a test of its own: what [`synced_commits_survive_kill_9`] starts and kills.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else {
        println!("skipped: it is a part of another test");
        return;
    };
    let store = open(Path::new(&directory), OpenMode::Existing).expect("it opens");
    let first = (1..).find(|number| read(&store, *number).is_ok_and(|row| row.is_none()));
    for number in first.expect("there is no last number").. {
        commit(&store, number).expect("a commit");
        println!("committed {number}");
    }
}

#[test]
fn synced_commits_survive_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), OpenMode::Create).expect("a new store");
    block_on(store.close()).expect("closed");
    let mut committed = 0_u64;
    for round in 1..=4 {
        let program = std::env::current_exe().expect("this test");
        let mut child = Command::new(program)
            .args(["child_that_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut told = lines.map(|line| line.expect("a line")).filter_map(|line| {
            let (_, number) = line.split_once("committed ")?;
            number.parse::<u64>().ok()
        });
        committed = told.by_ref().nth(20 * round).expect("a commit");
        child.kill().expect("killed");
        committed = told.last().unwrap_or(committed);
        child.wait().expect("reaped");
    }
    let store = open(directory.path(), OpenMode::Existing).expect("it opens");
    assert!(committed >= 200);
    for number in 1..=committed {
        assert_eq!(read(&store, number).expect("readable"), Some(number));
    }
}

#[test]
fn a_damaged_table_file_is_corrupt_not_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), OpenMode::Create).expect("a new store");
    for number in 1..=100 {
        commit(&store, number).expect("a commit");
    }
    block_on(store.close()).expect("closed");
    let files = std::fs::read_dir(directory.path().join("db")).expect("a directory");
    let table = files
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .expect("closing leaves a table file");
    let mut bytes = std::fs::read(&table).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(&table, bytes).expect("written");
    let store = open(directory.path(), OpenMode::Existing).expect("only a block is damaged");
    let error = read(&store, 1).expect_err("a damaged block");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("Node"), "{error}");
    let range = KeyRange::all();
    let scan = block_on(store.scan(&range.from, &range.to, 1000));
    assert_eq!(
        scan.expect_err("a damaged block").kind(),
        ErrorKind::Corrupt
    );
    block_on(store.close()).expect("closed");
    std::fs::remove_file(&table).expect("removed");
    let copy = copied(directory.path());
    let error = open(copy.path(), OpenMode::Existing)
        .err()
        .expect("a file is gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn many_threads_commit_and_read_at_once() {
    let rig = RocksRig::new();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &rig.store;
            scope.spawn(move || {
                for round in 0..100 {
                    let number = 1 + thread * 1000 + round;
                    commit(store, number).expect("a commit");
                    assert_eq!(read(store, number).expect("readable"), Some(number));
                    if round % 10 == 0 {
                        let snapshot = block_on(store.snapshot()).expect("a snapshot");
                        let row = block_on(snapshot.get(&key(number)));
                        assert!(row.expect("readable").is_some());
                    }
                }
            });
        }
    });
    let range = KeyRange::all();
    let all = block_on(rig.store.scan(&range.from, &range.to, 1000));
    assert_eq!(all.expect("a scan").len(), 400);
}

/// Counts what reaches it, and fails when told to.
#[derive(Default)]
struct FakeEngine {
    /// Numbers of batches, and whether they were synced, per write.
    writes: RefCell<Vec<(usize, bool)>>,
    syncs: Cell<usize>,
    fails: Cell<bool>,
}

impl FakeEngine {
    fn answer(&self) -> Result<()> {
        if self.fails.get() {
            return Err(Error::new(ErrorKind::Io, "the disk is on fire"));
        }
        Ok(())
    }
}

impl Engine for &FakeEngine {
    fn write(&self, batches: &mut dyn Iterator<Item = &Batch>, sync: bool) -> Result<()> {
        self.answer()?;
        self.writes.borrow_mut().push((batches.count(), sync));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.answer()?;
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }
}

/// A disk of which this much is free.
struct FakeDisk(Cell<u64>);

impl space::Disk for &FakeDisk {
    fn available(&self) -> std::io::Result<u64> {
        Ok(self.0.get())
    }

    fn has_ballast(&self) -> bool {
        true
    }

    fn inflate(&self, _bytes: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn release(&self) -> std::io::Result<()> {
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    ballast: 0,
    low_water: 40,
};

fn commits(batches: Vec<(Batch, Durability)>) -> (Vec<Commit>, Vec<oneshot::Receiver<Result<()>>>) {
    let pair = |(batch, durability)| {
        let (answer, receiver) = oneshot::channel();
        let commit = Commit {
            batch,
            durability,
            answer,
        };
        (commit, receiver)
    };
    batches.into_iter().map(pair).unzip()
}

fn kinds(receivers: Vec<oneshot::Receiver<Result<()>>>) -> Vec<Option<ErrorKind>> {
    let answers = receivers
        .into_iter()
        .map(|receiver| block_on(answered(receiver)));
    answers
        .map(|answer| answer.err().map(|error| error.kind()))
        .collect()
}

fn writer<'a>(engine: &'a FakeEngine, disk: &'a FakeDisk) -> Writer<&'a FakeEngine, &'a FakeDisk> {
    Writer {
        engine,
        space: Some(Space::new(disk, LIMITS, Arc::default())),
        failure: None,
        failed: Arc::default(),
    }
}

#[test]
fn a_group_is_one_write_with_one_sync() {
    use Durability::{Synced, Unsynced};
    let (engine, disk) = (FakeEngine::default(), FakeDisk(Cell::new(1000)));
    let mut writer = writer(&engine, &disk);
    let queue = CommitQueue::new().expect("a descriptor");
    let (group, receivers) = commits(vec![
        (numbered(1), Unsynced),
        (numbered(2), Synced),
        (numbered(3), Synced),
    ]);
    for commit in group {
        queue.push(commit).expect("there is room");
    }
    queue.push_close(None);
    let (_, closed) = writer.run(&queue);
    closed.expect("nothing failed");
    assert_eq!(kinds(receivers), [None; 3]);
    assert_eq!(*engine.writes.borrow(), [(3, true)]);
    let (group, receivers) = commits(vec![(numbered(1), Unsynced), (Batch::new(), Unsynced)]);
    writer.commit(group);
    assert_eq!(kinds(receivers), [None; 2]);
    assert_eq!(engine.writes.borrow()[1], (2, false));
    assert_eq!(engine.syncs.get(), 1, "by closing");
    let (group, _receivers) = commits(vec![(Batch::new(), Synced)]);
    writer.commit(group);
    assert_eq!(
        engine.syncs.get(),
        2,
        "nothing to write, but all before to sync"
    );
}

#[test]
fn the_first_failed_write_is_the_last() {
    let (engine, disk) = (FakeEngine::default(), FakeDisk(Cell::new(1000)));
    let mut writer = writer(&engine, &disk);
    engine.fails.set(true);
    let batches = vec![
        (numbered(1), Durability::Unsynced),
        (numbered(2), Durability::Synced),
    ];
    let (group, receivers) = commits(batches);
    writer.commit(group);
    assert_eq!(kinds(receivers), [Some(ErrorKind::Faulted); 2]);
    assert!(writer.failed.load(Ordering::SeqCst));
    engine.fails.set(false);
    let (group, mut receivers) = commits(vec![(numbered(3), Durability::Synced)]);
    writer.commit(group);
    let error = block_on(answered(receivers.remove(0))).expect_err("it failed before");
    assert!(error.to_string().contains("the disk is on fire"), "{error}");
    assert_eq!(*engine.writes.borrow(), []);
    let queue = CommitQueue::new().expect("a descriptor");
    queue.push_close(None);
    let (_, closed) = writer.run(&queue);
    assert_eq!(
        closed.expect_err("not everything is durable").kind(),
        ErrorKind::Faulted
    );
}

#[test]
fn a_full_file_system_refuses_growth_and_takes_what_frees() {
    let (engine, disk) = (FakeEngine::default(), FakeDisk(Cell::new(1000)));
    let mut writer = writer(&engine, &disk);
    let mut freeing = Batch::new();
    freeing.delete(key(1));
    freeing.set_frees(true);
    let mut answers = |available| {
        disk.0.set(available);
        let batches = [numbered(1), freeing.clone(), Batch::new()];
        let (group, receivers) = commits(batches.map(|b| (b, Durability::Synced)).into());
        writer.commit(group);
        kinds(receivers)
    };
    let no = Some(ErrorKind::NoSpace);
    assert_eq!(answers(40), [None, None, None]);
    assert_eq!(answers(39), [no, None, None]);
    assert_eq!(answers(9), [no, no, None]);
    assert_eq!(
        answers(59),
        [no, None, None],
        "not before there is some more"
    );
    assert_eq!(answers(1000), [None, None, None]);
    assert_eq!(writer.space.as_ref().map(Space::room), Some(Room::Plenty));
}

#[test]
fn what_comes_after_the_end_is_answered_closed() {
    let queue = CommitQueue::new().expect("a descriptor");
    let (before, mut receivers) = commits(vec![(numbered(1), Durability::Synced)]);
    for commit in before {
        queue.push(commit).expect("there is room");
    }
    queue.end();
    let (after, more) = commits(vec![(numbered(2), Durability::Synced)]);
    for commit in after {
        queue.push(commit).expect("there is room");
    }
    receivers.extend(more);
    assert_eq!(kinds(receivers), [Some(ErrorKind::Closed); 2]);
}

#[test]
fn a_full_queue_makes_readers_wait_and_a_stopped_one_lets_them_go() {
    let queue = Arc::new(WorkQueue::<u64>::new(2, 1).expect("a descriptor"));
    let first: Arc<OnceLock<u64>> = Arc::default();
    std::thread::scope(|scope| {
        let submitted = scope.spawn(|| {
            block_on(async {
                for number in 0..100 {
                    assert!(queue.submit(number).await);
                }
            });
        });
        for number in 0..100 {
            assert_eq!(queue.next(0, || false), Some(number));
            first.get_or_init(|| number);
        }
        submitted.join().expect("no panic");
    });
    assert_eq!(first.get(), Some(&0));
    queue.stop();
    assert_eq!(queue.next(0, || false), None);
    assert!(!block_on(queue.submit(1)));
}

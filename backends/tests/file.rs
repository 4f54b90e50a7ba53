//! File pools: what they refuse, what a crash may leave, and that a failed sync stays failed.

use atoll_backends::{
    BLOCK_SIZE, BlockRange, Error, ErrorKind, FileOptions, FilePool, Generation, ObjectId,
    ObjectIndex, ObjectSize, ObjectStore, Pool, PoolId, ReadHint, WriteMode,
};

use atoll_backends::file::{SYNCFS_FROM, WholeSync};
use atoll_reactor::fs::{self, File, OpenOptions};
use atoll_reactor::sim::{DiskConfig, DiskFault, DiskOp, Sim, SimDisk};
use atoll_reactor::{CoreId, SharedBuf, cores, sleep};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const SIZE: ObjectSize = ObjectSize::new(64 << 10).expect("64 KiB");
const POOL: PoolId = PoolId([0x5a; 16]);
const OTHER: PoolId = PoolId([0xc3; 16]);
const EIO: i32 = 5;
const CRASHES: u64 = 60;

fn root() -> &'static Path {
    Path::new("/pool")
}

fn id(number: u64) -> ObjectId {
    ObjectId::new(
        Generation::new(3).expect("52 bits"),
        ObjectIndex::new(number * 200).expect("40 bits"),
    )
}

fn block_of(byte: u8) -> SharedBuf {
    SharedBuf::copy_of(&[byte; BLOCK_SIZE as usize])
}

async fn create() -> FilePool {
    let pool = FilePool::create(root(), POOL, SIZE, FileOptions::default()).await;
    pool.unwrap_or_else(|error| panic!("{error}"))
}

async fn open() -> FilePool {
    let pool = FilePool::open(root(), POOL, SIZE, FileOptions::default()).await;
    pool.unwrap_or_else(|error| panic!("{error}"))
}

async fn attach(pool: &FilePool) -> Rc<dyn ObjectStore> {
    pool.attach().await.expect("attaches")
}

async fn put(path: &str, bytes: &[u8]) {
    let options = OpenOptions {
        create: true,
        truncate: true,
        ..OpenOptions::read_write()
    };
    let file = File::open(Path::new(path), options).await.expect("opens");
    let data = SharedBuf::copy_of(bytes);
    file.write_all_at(data, 0).await.expect("writes");
}

async fn refusal(pool: PoolId, size: ObjectSize) -> Error {
    let opened = FilePool::open(root(), pool, size, FileOptions::default()).await;
    opened.err().expect("is refused")
}

fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn every_wrong_directory_is_refused_with_its_reason() {
    Sim::new(1, 1).block_on(async {
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::Invalid,
            &["/pool", "missing"],
        );
        fs::create_dir(root()).await.expect("creates");
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::Invalid,
            &["empty", "not a pool"],
        );
        put("/pool/letter.txt", b"dear").await;
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::Invalid,
            &["no pool.label"],
        );
        let options = FileOptions::default();
        let created = FilePool::create(root(), POOL, SIZE, options).await;
        says(
            &created.err().expect("refused"),
            ErrorKind::Invalid,
            &["letter.txt"],
        );
        fs::remove_file(Path::new("/pool/letter.txt"))
            .await
            .expect("removes");
        let pool = create().await;
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::NotOwner,
            &["in use", "process"],
        );
        drop(pool);
        let words = [&*POOL.to_string(), &*OTHER.to_string()];
        says(&refusal(OTHER, SIZE).await, ErrorKind::NotOwner, &words);
        let created = FilePool::create(root(), OTHER, SIZE, options).await;
        says(
            &created.err().expect("refused"),
            ErrorKind::NotOwner,
            &words,
        );
        let larger = ObjectSize::DEFAULT;
        says(
            &refusal(POOL, larger).await,
            ErrorKind::Invalid,
            &["65536", "4194304"],
        );
        drop(open().await);
        drop(create().await);
        put("/pool/pool.label", b"something else").await;
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::Corrupt,
            &["pool.label"],
        );
    });
}

#[test]
fn a_pool_without_its_mark_is_not_opened() {
    Sim::new(1, 1).block_on(async {
        drop(create().await);
        fs::remove_file(Path::new("/pool/pool.mark"))
            .await
            .expect("removes");
        says(
            &refusal(POOL, SIZE).await,
            ErrorKind::Corrupt,
            &["pool.mark", "twice"],
        );
    });
}

#[test]
fn a_probe_tells_label_and_mark_of_a_pool_in_use() {
    Sim::new(1, 1).block_on(async {
        let pool = create().await;
        let below = Generation::new(77).expect("52 bits");
        attach(&pool)
            .await
            .reserve_generations(below)
            .await
            .expect("reserves");
        let probe = FilePool::probe(root()).await.expect("probes");
        assert_eq!((probe.label.pool, probe.label.object_size), (POOL, SIZE));
        assert_eq!(probe.label.owner.as_str(), "5a5a5a5a");
        assert_eq!(probe.mark, below);
    });
}

#[test]
fn leftovers_and_foreign_files_are_no_objects() {
    Sim::new(1, 1).block_on(async {
        let pool = create().await;
        let store = attach(&pool).await;
        store
            .write(id(1), 0, block_of(1), WriteMode::Create)
            .await
            .expect("writes");
        put("/pool/objects/README", b"?").await;
        put("/pool/pool.mark.tmp", b"half").await;
        fs::create_dir(Path::new("/pool/objects/zz"))
            .await
            .expect("creates");
        let mut leaf = None;
        for first in fs::read_dir(Path::new("/pool/objects"))
            .await
            .expect("lists")
        {
            if first.is_dir && first.name != "zz" {
                let first = format!("/pool/objects/{}", first.name);
                let second = &fs::read_dir(Path::new(&first)).await.expect("lists")[0];
                leaf = Some(format!("{first}/{}", second.name));
            }
        }
        let leaf = leaf.expect("one object has one leaf");
        put(&format!("{leaf}/c3c3c3c3-0000000000003.00000000c8"), b"?").await;
        let page = store.list(None, 100).await.expect("lists");
        assert_eq!(page.objects, [id(1)]);
        drop((store, pool));
        drop(open().await);
        let temp = fs::metadata(Path::new("/pool/pool.mark.tmp")).await;
        assert!(temp.is_err(), "a stale temporary file is still there");
    });
}

#[test]
fn a_file_of_another_length_is_corrupt_and_never_zeros() {
    Sim::new(1, 1).block_on(async {
        let pool = create().await;
        let store = attach(&pool).await;
        store
            .write(id(0), 0, block_of(1), WriteMode::Create)
            .await
            .expect("writes");
        drop((store, pool));
        let mut path = "/pool/objects".to_string();
        for _ in 0..3 {
            let entry = &fs::read_dir(Path::new(&path)).await.expect("lists")[0];
            path = format!("{path}/{}", entry.name);
        }
        let options = OpenOptions::read_write();
        let file = File::open(Path::new(&path), options).await.expect("opens");
        let pool = open().await;
        let read = async |first| {
            let store = attach(&pool).await;
            let range = BlockRange::new(first, 1);
            let read = store.read(id(0), range, ReadHint::default()).await;
            read.map(|_| ()).map_err(|error| error.kind())
        };
        file.set_len(4096).await.expect("cuts");
        assert_eq!(read(0).await, Err(ErrorKind::Corrupt));
        assert_eq!(read(9).await, Err(ErrorKind::Corrupt));
        file.set_len(0).await.expect("cuts");
        assert_eq!(read(0).await, Err(ErrorKind::NotFound));
    });
}

#[test]
fn the_page_cache_serves_where_direct_transfers_are_refused() {
    let disk = SimDisk::new(DiskConfig {
        direct: false,
        ..DiskConfig::default()
    });
    Sim::with_disk(1, 1, disk).block_on(async {
        let pool = create().await;
        assert!(!pool.is_direct());
        let store = attach(&pool).await;
        store
            .write(id(0), 0, block_of(1), WriteMode::Create)
            .await
            .expect("writes");
        store.sync(&[id(0)]).await.expect("syncs");
    });
}

#[test]
fn a_full_disk_is_no_space_and_reads_go_on() {
    let disk = SimDisk::new(DiskConfig {
        capacity: 256 << 10,
        ..DiskConfig::default()
    });
    Sim::with_disk(1, 1, disk).block_on(async {
        let store = attach(&create().await).await;
        let mut kept = 0;
        let refused = loop {
            let data = SharedBuf::copy_of(&[7; 64 << 10]);
            match store.write(id(kept), 0, data, WriteMode::Create).await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 5, "more than the disk holds");
        };
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
        let range = BlockRange::new(15, 1);
        let found = store.read(id(0), range, ReadHint::default()).await;
        assert_eq!(found.expect("reads")[0], 7);
        store.delete(id(0)).await.expect("deletes");
        let written = store.write(id(9), 0, block_of(1), WriteMode::Create).await;
        written.expect("there is room again");
    });
}

/// One sync fails at the disk; what later syncs say of that object and of another one.
fn after_a_failed(op: DiskOp, warm: bool) -> (Option<ErrorKind>, Option<ErrorKind>) {
    let mut sim = Sim::new(1, 2);
    let disk = sim.disk();
    sim.block_on(async move {
        let pool = create().await;
        let store = attach(&pool).await;
        store
            .write(id(0), 0, block_of(1), WriteMode::Create)
            .await
            .expect("writes");
        store
            .write(id(77), 0, block_of(1), WriteMode::Create)
            .await
            .expect("writes");
        if warm {
            store.sync(&[id(0), id(77)]).await.expect("syncs");
        }
        disk.inject_nth(op, 1, DiskFault::Error(EIO));
        store.sync(&[id(0)]).await.expect_err("fails");
        let again = store.sync(&[id(0)]).await.err().map(|error| error.kind());
        let second = cores()[1].clone();
        let there = second.call(move || async move {
            let store = attach(&pool).await;
            let kind = |error: Error| error.kind();
            let same = store.sync(&[id(0)]).await.err().map(kind);
            (same, store.sync(&[id(77)]).await.err().map(kind))
        });
        let (same, other) = there.await.expect("the core runs");
        assert_eq!(again, same, "cores disagree");
        (same, other)
    })
}

#[test]
fn a_failed_sync_of_a_file_stays_failed_for_that_object_on_every_core() {
    let failed = after_a_failed(DiskOp::SyncData, true);
    assert_eq!(failed, (Some(ErrorKind::Io), None));
}

#[test]
fn a_failed_sync_of_a_directory_stays_failed_too() {
    let (same, _) = after_a_failed(DiskOp::SyncAll, false);
    assert_eq!(same, Some(ErrorKind::Io));
}

#[test]
fn a_deleted_object_gives_its_space_back_though_another_core_had_it_open() {
    Sim::new(1, 2).block_on(async {
        let pool = create().await;
        let store = attach(&pool).await;
        let free = async || store.capacity().await.expect("has one").available;
        let before = free().await;
        let data = SharedBuf::copy_of(&[7; 64 << 10]);
        store
            .write(id(0), 0, data, WriteMode::Create)
            .await
            .expect("writes");
        let there = pool.clone();
        cores()[1]
            .spawn(move || async move {
                let store = attach(&there).await;
                let range = BlockRange::new(0, 1);
                store
                    .read(id(0), range, ReadHint::default())
                    .await
                    .expect("reads");
                std::future::pending::<()>().await;
                drop(store);
            })
            .expect("the core runs");
        sleep(Duration::from_secs(1)).await;
        assert!(free().await < before);
        store.delete(id(0)).await.expect("deletes");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(free().await, before);
    });
}

#[derive(Default, Clone)]
struct Block {
    /// Bytes that a power loss may leave in any part of it.
    possible: BTreeSet<u8>,
    /// What it holds, if no write of it is under way.
    settled: Option<u8>,
}

#[derive(Default, Clone)]
struct Object {
    durable: bool,
    written: bool,
    blocks: BTreeMap<u32, Block>,
}

#[derive(Default)]
struct Model {
    objects: BTreeMap<u64, Object>,
    mark_sure: u64,
    mark_asked: u64,
}

const WORKERS: u64 = 3;
const OBJECTS: u64 = 4;

/// Writes, syncs and reserves for ever, telling the model before and after.
async fn work(pool: FilePool, model: Rc<RefCell<Model>>, worker: u64, seed: u64) {
    let store = attach(&pool).await;
    let mut rng = ChaCha8Rng::seed_from_u64(seed * WORKERS + worker);
    loop {
        // New ones every few rounds.
        let number = worker + WORKERS * (rng.random_range(0..OBJECTS) + seed / 3 * OBJECTS);
        match rng.random_range(0..10) {
            0 => {
                let below = {
                    let mut model = model.borrow_mut();
                    model.mark_asked += 1;
                    model.mark_asked
                };
                let mark = Generation::new(below).expect("52 bits");
                store.reserve_generations(mark).await.expect("reserves");
                let mut model = model.borrow_mut();
                model.mark_sure = model.mark_sure.max(below);
            }
            1..4 => {
                if !model
                    .borrow()
                    .objects
                    .get(&number)
                    .is_some_and(|o| o.written)
                {
                    continue;
                }
                store.sync(&[id(number)]).await.expect("syncs");
                let mut model = model.borrow_mut();
                let object = model.objects.get_mut(&number).expect("known");
                object.durable = true;
                for block in object.blocks.values_mut() {
                    if let Some(byte) = block.settled {
                        block.possible = BTreeSet::from([byte]);
                    }
                }
            }
            _ => {
                let (at, byte) = (rng.random_range(0..16_u32), rng.random_range(1..255_u8));
                {
                    let mut model = model.borrow_mut();
                    let object = model.objects.entry(number).or_default();
                    let block = object.blocks.entry(at).or_default();
                    if block.possible.is_empty() {
                        block.possible.insert(0);
                    }
                    block.possible.insert(byte);
                    block.settled = None;
                }
                let done = store.write(id(number), at, block_of(byte), WriteMode::Create);
                done.await.expect("writes");
                let mut model = model.borrow_mut();
                let object = model.objects.get_mut(&number).expect("known");
                object.written = true;
                object.blocks.get_mut(&at).expect("known").settled = Some(byte);
            }
        }
    }
}

/// Compares what is there with what may be, and takes it over.
async fn check(pool: FilePool, model: Rc<RefCell<Model>>, killed: bool, seed: u64) {
    let store = attach(&pool).await;
    let mark = store.reserved_generations().await.expect("reads").get();
    let (sure, asked) = (model.borrow().mark_sure, model.borrow().mark_asked);
    assert!(
        (sure..=asked).contains(&mark),
        "seed {seed}: mark {mark}, not {sure}..={asked}"
    );
    model.borrow_mut().mark_sure = mark;
    let objects = model.borrow().objects.clone();
    for (number, mut object) in objects {
        let must = object.durable || (killed && object.written);
        if store.stat(id(number)).await.is_err() {
            assert!(!must, "seed {seed}: object {number} is lost");
            model.borrow_mut().objects.remove(&number);
            continue;
        }
        object.written = true;
        for (at, block) in &mut object.blocks {
            let range = BlockRange::new(*at, 1);
            let found = store.read(id(number), range, ReadHint::default()).await;
            let found: BTreeSet<u8> = found.expect("reads").iter().copied().collect();
            let may = match block.settled {
                Some(byte) if killed => BTreeSet::from([byte]),
                _ => block.possible.clone(),
            };
            assert!(
                found.is_subset(&may),
                "seed {seed}: object {number} block {at} has {found:?}, may have {may:?}"
            );
            // What is there after a power loss is on the medium; after a kill it may still go.
            if !killed {
                block.possible = found.clone();
            }
            block.settled = (found.len() == 1).then(|| found.first().copied()).flatten();
        }
        object.durable |= !killed;
        model.borrow_mut().objects.insert(number, object);
    }
}

#[test]
fn what_was_synced_is_there_after_a_crash_at_any_step_and_the_mark_never_falls() {
    let model = Rc::new(RefCell::new(Model::default()));
    let mut sim = Sim::new(0, 2);
    sim.block_on(async { drop(create().await) });
    let mut disk = sim.stop();
    let mut rng = ChaCha8Rng::seed_from_u64(0xf11e);
    for seed in 0..CRASHES {
        let mut sim = Sim::with_disk(seed, 2, disk);
        let whole_sync = match seed % 3 {
            0 => WholeSync::From(1),
            _ => WholeSync::Never,
        };
        let options = FileOptions {
            whole_sync,
            open_files: 2,
            ..FileOptions::default()
        };
        // What is long settled is not looked at again.
        let oldest = (seed / 3).saturating_sub(1) * OBJECTS * WORKERS;
        model
            .borrow_mut()
            .objects
            .retain(|number, _| *number >= oldest);
        let pool = sim.block_on(async move {
            let pool = FilePool::open(root(), POOL, SIZE, options).await;
            pool.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
        });
        for worker in 0..WORKERS {
            let core = CoreId(u16::from(worker == 1));
            drop(sim.spawn(core, work(pool.clone(), model.clone(), worker, seed)));
        }
        drop(pool);
        sim.run_steps(rng.random_range(10..3000));
        let killed = rng.random_bool(0.4);
        disk = if killed { sim.kill() } else { sim.crash() };
        let mut sim = Sim::with_disk(seed, 1, disk);
        let model = model.clone();
        sim.block_on(async move { check(open().await, model, killed, seed).await });
        disk = sim.stop();
    }
}

#[test]
fn a_sync_covers_what_a_killed_daemon_created() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed, 1);
        sim.block_on(async {
            let store = attach(&create().await).await;
            let written = store.write(id(0), 0, block_of(1), WriteMode::Create).await;
            written.expect("writes");
        });
        let mut sim = Sim::with_disk(seed, 1, sim.kill());
        sim.block_on(async {
            let store = attach(&open().await).await;
            store.sync(&[id(0)]).await.expect("syncs");
        });
        Sim::with_disk(seed, 1, sim.crash()).block_on(async move {
            let found = attach(&open().await).await.stat(id(0)).await;
            assert!(found.is_ok(), "seed {seed}: it was synced and is gone");
        });
    }
}

#[test]
fn a_creation_cut_at_any_step_can_be_repeated() {
    for steps in 1..150 {
        let mut sim = Sim::new(steps, 1);
        drop(sim.spawn(CoreId(0), async { drop(create().await) }));
        sim.run_steps(steps);
        let disk = sim.crash();
        Sim::with_disk(steps, 1, disk).block_on(async {
            let pool = create().await;
            let store = attach(&pool).await;
            let mark = store.reserved_generations().await.expect("reads");
            assert_eq!(mark, Generation::ZERO);
        });
    }
}

/// How the pool of a test is synced as a whole: by `syncfs`, file by file by choice, or because the
/// file system's `syncfs` does nothing.
const WAYS: [(bool, WholeSync); 3] = [
    (true, WholeSync::FromDefault),
    (true, WholeSync::Never),
    (false, WholeSync::From(1)),
];

async fn open_as(whole_sync: WholeSync) -> FilePool {
    let options = FileOptions {
        whole_sync,
        ..FileOptions::default()
    };
    let pool = FilePool::open(root(), POOL, SIZE, options).await;
    pool.unwrap_or_else(|error| panic!("{error}"))
}

/// A disk with a pool in which a daemon wrote objects 0 to 9 and was killed.
fn killed_after_writing(seed: u64, honours_syncfs: bool) -> SimDisk {
    let disk = SimDisk::new(DiskConfig {
        honours_syncfs,
        ..DiskConfig::default()
    });
    let mut sim = Sim::with_disk(seed, 1, disk);
    sim.block_on(async {
        let store = attach(&create().await).await;
        for number in 0..10 {
            let data = block_of(number as u8 + 1);
            let written = store.write(id(number), 3, data, WriteMode::Create).await;
            written.expect("writes");
        }
    });
    sim.kill()
}

/// Objects of `killed_after_writing` that are not what was written.
fn lost_objects(seed: u64, disk: SimDisk) -> usize {
    Sim::with_disk(seed, 1, disk).block_on(async {
        let store = attach(&open().await).await;
        let mut lost = 0;
        for number in 0..10 {
            let range = BlockRange::new(3, 1);
            let found = store.read(id(number), range, ReadHint::default()).await;
            let whole = |data: &SharedBuf| data.iter().all(|byte| *byte == number as u8 + 1);
            lost += usize::from(!found.is_ok_and(|data| whole(&data)));
        }
        lost
    })
}

#[test]
fn what_a_killed_daemon_wrote_survives_a_power_loss_after_sync_all_and_only_then() {
    let mut lost_without = 0;
    for (seed, (honours, whole_sync)) in (0..30).zip(WAYS.into_iter().cycle()) {
        for asked in [true, false] {
            let mut sim = Sim::with_disk(seed, 1, killed_after_writing(seed, honours));
            sim.block_on(async move {
                let store = attach(&open_as(whole_sync).await).await;
                // One that this run writes and syncs, as an initiator does.
                let written = store.write(id(99), 0, block_of(1), WriteMode::Create).await;
                written.expect("writes");
                if asked {
                    store.sync_all().await.expect("syncs");
                } else {
                    store.sync(&[id(99)]).await.expect("syncs");
                }
            });
            let lost = lost_objects(seed, sim.crash());
            match asked {
                true => assert_eq!(lost, 0, "seed {seed}: {lost} objects are lost"),
                false => lost_without += lost,
            }
        }
    }
    assert!(lost_without > 0, "nothing is lost without it either");
}

#[test]
fn a_sync_all_that_fails_is_remembered() {
    for (honours, whole_sync) in WAYS {
        for op in [DiskOp::SyncData, DiskOp::SyncAll, DiskOp::SyncFilesystem] {
            let by_syncfs = honours && whole_sync != WholeSync::Never;
            if by_syncfs != (op == DiskOp::SyncFilesystem) {
                continue;
            }
            let mut sim = Sim::with_disk(1, 1, killed_after_writing(1, honours));
            let disk = sim.disk();
            sim.block_on(async move {
                let store = attach(&open_as(whole_sync).await).await;
                disk.inject_nth(op, 1, DiskFault::Error(EIO));
                let error = store.sync_all().await.expect_err("fails");
                assert_eq!(error.kind(), ErrorKind::Io, "{op:?}: {error}");
                let again = store.sync_all().await.expect_err("stays failed");
                assert_eq!(again.kind(), ErrorKind::Io, "{op:?}: {again}");
                let mut failed = 0;
                for number in 0..10 {
                    failed += usize::from(store.sync(&[id(number)]).await.is_err());
                }
                assert!(failed > 0, "{op:?}: a later sync finds nothing wrong");
            });
        }
    }
}

#[test]
fn a_syncfs_that_syncs_nothing_is_never_relied_on() {
    for seed in 0..20 {
        let mut sim = Sim::with_disk(seed, 1, killed_after_writing(seed, false));
        sim.block_on(async {
            let store = attach(&open_as(WholeSync::From(1)).await).await;
            let all: Vec<ObjectId> = (0..10).map(id).collect();
            store.sync(&all).await.expect("syncs");
        });
        let lost = lost_objects(seed, sim.crash());
        assert_eq!(lost, 0, "seed {seed}: {lost} synced objects are lost");
    }
}

#[test]
fn many_objects_are_synced_with_one_syncfs_where_it_is_honoured() {
    for honours in [true, false] {
        let disk = SimDisk::new(DiskConfig {
            honours_syncfs: honours,
            ..DiskConfig::default()
        });
        let mut sim = Sim::with_disk(1, 1, disk);
        let disk = sim.disk();
        sim.block_on(async move {
            let store = attach(&create().await).await;
            let all: Vec<ObjectId> = (0..SYNCFS_FROM as u64).map(id).collect();
            for id in &all {
                let written = store.write(*id, 0, block_of(1), WriteMode::Create).await;
                written.expect("writes");
            }
            // Only the one way or the other meets its fault.
            disk.inject_nth(DiskOp::SyncFilesystem, 1, DiskFault::Error(EIO));
            let few = store.sync(&all[1..]).await;
            few.expect("below the threshold it is file by file");
            assert_eq!(store.sync(&all).await.is_err(), honours);
        });
    }
}

#[test]
fn a_creation_that_is_killed_and_done_again_survives_a_power_loss() {
    for steps in 1..150 {
        let mut sim = Sim::new(steps, 1);
        drop(sim.spawn(CoreId(0), async { drop(create().await) }));
        sim.run_steps(steps);
        let mut sim = Sim::with_disk(steps, 1, sim.kill());
        sim.block_on(async { drop(create().await) });
        Sim::with_disk(steps, 1, sim.crash()).block_on(async move {
            let opened = FilePool::open(root(), POOL, SIZE, FileOptions::default()).await;
            if let Err(error) = opened {
                panic!("killed after {steps} steps: {error}");
            }
        });
    }
}

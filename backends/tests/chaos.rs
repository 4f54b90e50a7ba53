//! What the fault injector promises to the tests that build on it.

use atoll_backends::chaos::{Fault, Op};
use atoll_backends::{
    BLOCK_SIZE, BlockRange, Chaos, ChaosHandle, ChaosOptions, ErrorKind, Generation, MemoryOptions,
    MemoryPool, ObjectId, ObjectIndex, ObjectSize, ObjectStore, Pool, ReadHint, WriteMode,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{SharedBuf, now, sleep, spawn, timeout};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: u64 = 200;

fn id(number: u64) -> ObjectId {
    ObjectId::new(
        Generation::new(1).expect("small"),
        ObjectIndex::new(number).expect("small"),
    )
}

fn block_of(byte: u8) -> SharedBuf {
    SharedBuf::copy_of(&[byte; BLOCK_SIZE as usize])
}

fn chaotic(seed: u64) -> (Chaos, ChaosHandle) {
    let memory = MemoryPool::new(MemoryOptions {
        object_size: ObjectSize::new(64 << 10).expect("64 KiB"),
        ..MemoryOptions::default()
    });
    let options = ChaosOptions {
        seed,
        ..ChaosOptions::default()
    };
    Chaos::new(Arc::new(memory), options)
}

async fn attach(pool: &Chaos) -> Rc<dyn ObjectStore> {
    pool.attach().await.expect("attaches")
}

async fn read(store: &Rc<dyn ObjectStore>, number: u64, block: u32) -> SharedBuf {
    let range = BlockRange::new(block, 1);
    let read = store.read(id(number), range, ReadHint::default()).await;
    read.expect("reads")
}

/// `None` for a missing object, else the set of bytes in the block.
async fn bytes_in(store: &Rc<dyn ObjectStore>, number: u64) -> Option<BTreeSet<u8>> {
    let range = BlockRange::new(0, 1);
    match store.read(id(number), range, ReadHint::default()).await {
        Ok(data) => Some(data.iter().copied().collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

async fn write(store: &Rc<dyn ObjectStore>, number: u64, byte: u8) {
    let done = store.write(id(number), 0, block_of(byte), WriteMode::Create);
    done.await.expect("writes");
}

#[test]
fn the_kth_call_fails_and_no_other() {
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        handle.fail_call(Op::Write, 2, Fault::Error(ErrorKind::NoSpace));
        handle.fail_call(Op::Write, 3, Fault::ErrorAfter(ErrorKind::Io));
        let mut kinds = Vec::new();
        for number in 0..4 {
            let done = store.write(id(number), 0, block_of(7), WriteMode::Create);
            kinds.push(done.await.err().map(|error| error.kind()));
        }
        assert_eq!(
            kinds,
            [None, Some(ErrorKind::NoSpace), Some(ErrorKind::Io), None]
        );
        assert_eq!(handle.calls(Op::Write), 4);
        assert!(
            bytes_in(&store, 1).await.is_none(),
            "a refused write was done"
        );
        assert!(
            bytes_in(&store, 2).await.is_some(),
            "an applied write was not done"
        );
    });
}

#[test]
fn delays_take_virtual_time_and_hangs_last_until_released() {
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        handle.delay(Op::Write, 3 * SECOND..4 * SECOND);
        let start = now();
        write(&store, 0, 1).await;
        assert!(now() - start >= 3 * SECOND);
        handle.heal();
        handle.fail_call(Op::Read, 1, Fault::Hang);
        let range = BlockRange::new(0, 1);
        let other = store.clone();
        let hanging =
            spawn(async move { other.read(id(0), range, ReadHint::default()).await.is_ok() });
        sleep(1000 * SECOND).await;
        assert_eq!(handle.hanging(), 1);
        read(&store, 0, 0).await;
        handle.release();
        assert!(hanging.await);
    });
}

#[test]
fn a_late_write_lands_after_its_caller_was_told_of_a_time_out() {
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        write(&store, 0, 1).await;
        let after = 30 * SECOND;
        handle.fail_call(Op::Write, 1, Fault::LateLanding { after });
        let late = store
            .write(id(0), 0, block_of(2), WriteMode::Existing)
            .await;
        assert_eq!(late.expect_err("late").kind(), ErrorKind::Timeout);
        write(&store, 0, 3).await;
        assert_eq!(read(&store, 0, 0).await[0], 3);
        sleep(2 * after).await;
        assert_eq!(read(&store, 0, 0).await[0], 2, "the stale write lands last");
    });
}

#[test]
fn a_write_goes_on_when_its_caller_gives_up() {
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        handle.delay(Op::Write, 9 * SECOND..10 * SECOND);
        let write = store.write(id(0), 0, block_of(2), WriteMode::Create);
        assert!(timeout(Duration::from_nanos(1), write).await.is_err());
        sleep(20 * SECOND).await;
        assert_eq!(read(&store, 0, 0).await[0], 2);
    });
}

#[test]
fn corruption_changes_one_bit() {
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        write(&store, 0, 0).await;
        let ones = |data: &[u8]| data.iter().map(|byte| byte.count_ones()).sum::<u32>();
        handle.fail_call(Op::Read, 1, Fault::Corrupt);
        assert_eq!(ones(&read(&store, 0, 0).await), 1);
        assert_eq!(ones(&read(&store, 0, 0).await), 0);
        handle.fail_call(Op::Write, 1, Fault::Corrupt);
        write(&store, 0, 0).await;
        assert_eq!(ones(&read(&store, 0, 0).await), 1);
        write(&store, 0, 0).await;
        handle.corrupt(id(0), 0, 77).await.expect("corrupts");
        assert_eq!(read(&store, 0, 0).await[9], 1 << 5);
        let hit = handle.corrupt_any(4).await.expect("corrupts");
        assert_eq!(hit.expect("there is an object").0, id(0));
    });
}

/// Runs `history` on many seeds in one runtime that ends with it, then a power loss in the next
/// one; the bytes of object 0 afterwards.
fn outcomes(
    history: fn(Rc<dyn ObjectStore>, ChaosHandle) -> atoll_reactor::LocalFuture<'static, ()>,
) -> BTreeSet<Option<BTreeSet<u8>>> {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let (pool, handle) = chaotic(seed);
        let (first, control) = (pool.clone(), handle.clone());
        Sim::new(seed, 1).block_on(async move {
            let store = attach(&first).await;
            history(store, control).await;
        });
        let after = Sim::new(seed, 1).block_on(async move {
            handle.crash(seed).await.expect("crashes");
            bytes_in(&attach(&pool).await, 0).await
        });
        seen.insert(after);
    }
    seen
}

fn set(bytes: &[u8]) -> Option<BTreeSet<u8>> {
    Some(bytes.iter().copied().collect())
}

#[test]
fn what_was_synced_survives_every_power_loss() {
    let seen = outcomes(|store, _| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 1).await;
            write(&store, 0, 2).await;
            store.sync(&[id(0)]).await.expect("syncs");
        })
    });
    assert_eq!(seen, BTreeSet::from([set(&[2])]));
}

#[test]
fn an_unsynced_overwrite_is_kept_dropped_or_torn() {
    let seen = outcomes(|store, _| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 1).await;
            store.sync(&[id(0)]).await.expect("syncs");
            write(&store, 0, 2).await;
        })
    });
    assert_eq!(seen, BTreeSet::from([set(&[1]), set(&[2]), set(&[1, 2])]));
}

#[test]
fn an_unsynced_creation_may_vanish_and_a_deletion_may_come_undone() {
    let seen = outcomes(|store, _| {
        atoll_reactor::LocalFuture::new(async move { write(&store, 0, 5).await })
    });
    assert!(
        seen.contains(&None) && seen.contains(&set(&[5])),
        "{seen:?}"
    );
    let seen = outcomes(|store, _| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 5).await;
            store.sync(&[id(0)]).await.expect("syncs");
            store.delete(id(0)).await.expect("deletes");
        })
    });
    assert_eq!(seen, BTreeSet::from([None, set(&[5])]));
}

#[test]
fn a_lost_sync_keeps_nothing_for_sure() {
    let seen = outcomes(|store, handle| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 1).await;
            store.sync(&[id(0)]).await.expect("syncs");
            write(&store, 0, 2).await;
            handle.fail_call(Op::Sync, 1, Fault::LostSync);
            store.sync(&[id(0)]).await.expect("says that it did");
        })
    });
    assert!(seen.contains(&set(&[1])), "{seen:?}");
}

#[test]
fn after_a_failed_sync_a_later_one_does_not_save_the_data() {
    let seen = outcomes(|store, handle| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 1).await;
            store.sync(&[id(0)]).await.expect("syncs");
            write(&store, 0, 2).await;
            handle.fail_call(Op::Sync, 1, Fault::Error(ErrorKind::Io));
            store.sync(&[id(0)]).await.expect_err("fails");
            store.sync(&[id(0)]).await.expect("succeeds");
        })
    });
    assert!(
        seen.contains(&set(&[1])) && seen.contains(&set(&[2])),
        "{seen:?}"
    );
}

#[test]
fn a_write_under_way_lands_in_part_and_the_old_store_is_dead() {
    let seen = outcomes(|store, handle| {
        atoll_reactor::LocalFuture::new(async move {
            write(&store, 0, 1).await;
            store.sync(&[id(0)]).await.expect("syncs");
            handle.fail_call(Op::Write, 1, Fault::Hang);
            let write = store.write(id(0), 0, block_of(2), WriteMode::Existing);
            assert!(timeout(SECOND, write).await.is_err());
        })
    });
    assert_eq!(seen, BTreeSet::from([set(&[1]), set(&[2]), set(&[1, 2])]));
    Sim::new(1, 1).block_on(async {
        let (pool, handle) = chaotic(1);
        let store = attach(&pool).await;
        write(&store, 0, 1).await;
        handle.crash(1).await.expect("crashes");
        let dead = store.stat(id(0)).await.expect_err("dead");
        assert_eq!(dead.kind(), ErrorKind::Offline);
        attach(&pool).await.capacity().await.expect("alive");
    });
}

#[test]
fn a_kill_loses_nothing_that_was_complete_but_a_power_loss_after_it_may() {
    let mut lost = false;
    for seed in 0..SEEDS {
        let (pool, handle) = chaotic(seed);
        Sim::new(seed, 1)
            .block_on(async move {
                let store = attach(&pool).await;
                write(&store, 0, 5).await;
                handle.kill(seed).await.expect("is killed");
                assert_eq!(bytes_in(&attach(&pool).await, 0).await, set(&[5]));
                handle.crash(seed).await.expect("crashes");
                bytes_in(&attach(&pool).await, 0).await.is_none()
            })
            .then(|| lost = true);
    }
    assert!(lost);
}

#[test]
fn one_seed_gives_one_history() {
    fn run(seed: u64) -> Vec<Option<BTreeSet<u8>>> {
        Sim::new(seed, 2).block_on(async move {
            let (pool, handle) = chaotic(seed);
            let store = attach(&pool).await;
            handle.fail_with_probability(Op::Write, 0.3, Fault::Error(ErrorKind::Io));
            handle.delay(Op::Write, Duration::ZERO..SECOND);
            for number in 0..50 {
                let byte = u8::try_from(number).expect("small");
                // Some fail: that is the point.
                let _ = store
                    .write(id(number), 0, block_of(byte), WriteMode::Create)
                    .await;
            }
            handle.heal();
            handle.crash(seed).await.expect("crashes");
            let store = attach(&pool).await;
            let mut all = Vec::new();
            for number in 0..50 {
                all.push(bytes_in(&store, number).await);
            }
            all
        })
    }
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn sync_all_covers_what_was_there_before_a_kill_unless_it_is_lost_or_fails() {
    let (mut after_loss, mut after_failure) = (0, 0);
    for seed in 0..SEEDS {
        for fault in [
            None,
            Some(Fault::LostSync),
            Some(Fault::Error(ErrorKind::Io)),
        ] {
            let missing = Sim::new(seed, 1).block_on(async move {
                let (pool, handle) = chaotic(seed);
                let store = attach(&pool).await;
                let written = store.write(id(1), 0, block_of(7), WriteMode::Create).await;
                written.expect("writes");
                handle.kill(seed).await.expect("kills");
                let store = attach(&pool).await;
                if let Some(fault) = fault {
                    handle.fail_call(Op::Sync, 1, fault);
                }
                let failed = store.sync_all().await.is_err();
                assert_eq!(failed, matches!(fault, Some(Fault::Error(_))));
                handle.crash(seed).await.expect("crashes");
                bytes_in(&attach(&pool).await, 1).await != Some(BTreeSet::from([7]))
            });
            match fault {
                None => assert!(!missing, "seed {seed}: it was synced and is gone"),
                Some(Fault::LostSync) => after_loss += u64::from(missing),
                Some(_) => after_failure += u64::from(missing),
            }
        }
    }
    assert!(after_loss > 0 && after_failure > 0, "faults have no effect");
}

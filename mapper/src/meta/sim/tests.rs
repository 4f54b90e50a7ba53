//! The contract on the simulated store; what crashes may lose; faults.

use super::*;
use crate::format::{CounterRow, Key, Row};
use crate::meta::contract::Rig;
use crate::meta::get_row;
use crate::types::NodeId;
use atoll_reactor::sim::Sim;
use atoll_reactor::{spawn, timeout};
use std::future::Future;

struct SimRig {
    sim: Sim,
    meta: SimMeta,
}

impl SimRig {
    fn new() -> SimRig {
        SimRig {
            sim: Sim::new(1, 1),
            meta: SimMeta::new(2),
        }
    }
}

impl Rig for SimRig {
    fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        self.sim.block_on(future)
    }

    fn store(&self) -> Arc<dyn MetaStore> {
        Arc::new(self.meta.clone())
    }

    fn reopen(&mut self) {
        self.meta = self.meta.reopen();
        self.sim = Sim::new(3, 1);
    }
}

crate::meta::contract::suite!(SimRig::new());

fn key(id: u64) -> Key {
    Key::node(NodeId::new(id).expect("not 0"))
}

/// Two rows that belong together, and a row of its own.
fn numbered(number: u64) -> Batch {
    let mut batch = Batch::new();
    for key in [key(1), key(2), key(100 + number)] {
        batch.put(key, CounterRow { next: number }.encode());
    }
    batch
}

async fn read(meta: &SimMeta, id: u64) -> Option<u64> {
    let row: Option<CounterRow> = get_row(meta, &key(id)).await.expect("readable");
    row.map(|row| row.next)
}

/// The batches that are there: a prefix, whose last is whole.
fn survivors(meta: &SimMeta, seed: u64) -> u64 {
    let meta = meta.clone();
    Sim::new(seed, 1).block_on(async move {
        let last = read(&meta, 1).await.unwrap_or(0);
        assert_eq!(read(&meta, 2).await.unwrap_or(0), last, "torn");
        for number in 1..=40 {
            let there = read(&meta, 100 + number).await;
            assert_eq!(there, (number <= last).then_some(number), "a hole");
        }
        last
    })
}

#[test]
fn a_crash_loses_a_suffix_of_what_was_not_synced_and_nothing_else() {
    let mut lost = 0;
    let mut kept = 0;
    for seed in 0..200 {
        let meta = SimMeta::new(seed);
        let mut sim = Sim::new(seed, 2);
        let user = meta.clone();
        let (synced, answered) = sim.block_on(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (mut synced, mut answered) = (0, 0);
            let stop = rng.random_range(1..=40);
            for number in 1..=stop {
                let durability = if rng.random_bool(0.2) {
                    Durability::Synced
                } else {
                    Durability::Unsynced
                };
                let commit = user.commit(numbered(number), durability);
                if rng.random_bool(0.5) {
                    commit.await.expect("a commit");
                    answered = number;
                    if durability == Durability::Synced {
                        synced = number;
                    }
                }
            }
            assert!(read(&user, 1).await.unwrap_or(0) >= answered);
            (synced, stop)
        });
        drop(sim);
        let found = meta.crash(seed);
        let last = survivors(&found, seed);
        assert!(last >= synced, "seed {seed}: {last} < {synced}");
        assert!(last <= answered, "seed {seed}");
        lost += u64::from(last < answered);
        kept += u64::from(last == answered && synced < answered);
        // What survived is durable.
        assert_eq!(survivors(&found.crash(seed + 1), seed), last);
    }
    assert!(lost > 20 && kept > 2, "{lost} lost, {kept} kept");
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    let meta = SimMeta::new(5);
    let user = meta.clone();
    Sim::new(5, 1).block_on(async move {
        for number in 1..=9 {
            let commit = user.commit(numbered(number), Durability::Unsynced);
            commit.await.expect("a commit");
        }
    });
    assert_eq!(survivors(&meta.reopen(), 5), 9);
}

#[test]
fn handles_of_before_a_crash_are_closed() {
    let meta = SimMeta::new(1);
    let after = meta.crash(1);
    Sim::new(1, 1).block_on(async move {
        let commit = meta.commit(numbered(1), Durability::Synced).await;
        assert_eq!(commit.expect_err("of before").kind(), ErrorKind::Closed);
        assert!(meta.get(&key(1)).await.is_err());
        after
            .commit(numbered(1), Durability::Synced)
            .await
            .expect("a commit");
    });
}

#[test]
fn a_refused_commit_changes_nothing_and_the_store_goes_on() {
    let meta = SimMeta::new(1);
    let user = meta.clone();
    Sim::new(1, 1).block_on(async move {
        user.fault_commit(2, CommitFault::Refuse(ErrorKind::NoSpace));
        user.commit(numbered(1), Durability::Synced)
            .await
            .expect("a commit");
        let refused = user.commit(numbered(2), Durability::Synced).await;
        assert_eq!(refused.expect_err("the second").kind(), ErrorKind::NoSpace);
        assert_eq!(read(&user, 1).await, Some(1));
        user.commit(numbered(3), Durability::Synced)
            .await
            .expect("a commit");
        user.set_full(true);
        let refused = user.commit(numbered(4), Durability::Unsynced).await;
        assert_eq!(refused.expect_err("full").kind(), ErrorKind::NoSpace);
        let mut freeing = numbered(5);
        freeing.set_frees(true);
        user.commit(freeing, Durability::Synced)
            .await
            .expect("it frees");
        assert!(user.status().await.expect("a status").full);
        user.close().await.expect("closing needs no space");
    });
    assert_eq!(meta.commits(), 6);
}

#[test]
fn after_a_failed_sync_every_commit_fails_and_a_crash_decides() {
    let mut found = [false; 2];
    for seed in 0..40 {
        let meta = SimMeta::new(seed);
        let user = meta.clone();
        Sim::new(seed, 1).block_on(async move {
            user.commit(numbered(1), Durability::Synced)
                .await
                .expect("a commit");
            user.fault_commit(1, CommitFault::Break);
            for number in 2..4 {
                let failed = user.commit(numbered(number), Durability::Synced).await;
                assert_eq!(failed.expect_err("broken").kind(), ErrorKind::Faulted);
            }
            assert!(user.status().await.expect("a status").failed);
            assert!(read(&user, 1).await.is_some(), "reads go on");
        });
        let last = survivors(&meta.crash(seed), seed);
        assert!(last == 1 || last == 2);
        found[(last - 1) as usize] = true;
    }
    assert_eq!(found, [true, true]);
}

#[test]
fn a_hanging_commit_holds_up_those_after_it_until_it_is_resumed() {
    let meta = SimMeta::new(1);
    let user = meta.clone();
    Sim::new(1, 1).block_on(async move {
        user.fault_commit(1, CommitFault::Hang);
        user.fault_commit(2, CommitFault::Delay(Duration::from_secs(60)));
        let first = spawn(user.commit(numbered(1), Durability::Synced));
        let second = spawn(user.commit(numbered(2), Durability::Synced));
        let both = spawn(async move {
            first.await.expect("a commit");
            second.await.expect("a commit");
        });
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, std::future::pending::<()>()).await.is_err());
        assert_eq!(read(&user, 1).await, None);
        user.resume();
        both.await;
        assert_eq!(read(&user, 1).await, Some(2));
    });
}

#[test]
fn a_snapshot_survives_what_comes_after_it_and_tampering_shows() {
    let meta = SimMeta::new(1);
    let user = meta.clone();
    Sim::new(1, 1).block_on(async move {
        user.commit(numbered(1), Durability::Synced)
            .await
            .expect("a commit");
        let snapshot = user.snapshot().await.expect("a snapshot");
        let (at, mut value) = user.dump().swap_remove(0);
        value[2] ^= 1;
        user.tamper(&at, Some(value));
        let row: Result<Option<CounterRow>> = get_row(&user, &at).await;
        let error = row.expect_err("a wrong sum");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("Node"), "{error}");
        let row: Result<Option<CounterRow>> = get_row(&*snapshot, &at).await;
        assert!(row.expect("as it was").is_some());
    });
}

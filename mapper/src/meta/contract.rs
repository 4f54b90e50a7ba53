//! The suite that every metadata store passes. A rig runs futures on what the store needs and
//! opens the store again.

use super::*;
use crate::format::*;
use crate::types::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::future::Future;

/// A store under test.
pub(super) trait Rig {
    /// Runs a future to its end where the store works.
    fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T;

    /// The store of now.
    fn store(&self) -> Arc<dyn MetaStore>;

    /// Closes the store and opens it again.
    fn reopen(&mut self);
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("not 0")
}

fn page_key(page: u32) -> Key {
    Key::page(node(1), PageNo::new(page).expect("31 bits"))
}

fn counter(next: u64) -> Vec<u8> {
    CounterRow { next }.encode()
}

async fn put(store: &dyn MetaStore, key: Key, next: u64) {
    let mut batch = Batch::new();
    batch.put(key, counter(next));
    store
        .commit(batch, Durability::Unsynced)
        .await
        .expect("a commit");
}

async fn read(reader: &dyn MetaReader, key: &Key) -> Option<u64> {
    let row: Option<CounterRow> = get_row(reader, key).await.expect("readable");
    row.map(|row| row.next)
}

pub(super) fn batches_are_seen_wholly_once_they_are_answered(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        let mut batch = Batch::new();
        batch.put(Key::node(node(1)), counter(1));
        batch.put(Key::node(node(2)), counter(2));
        batch.put(Key::node(node(1)), counter(3));
        batch.delete(Key::node(node(2)));
        batch.delete(Key::node(node(9)));
        assert_eq!(batch.len(), 5);
        store
            .commit(batch, Durability::Synced)
            .await
            .expect("a commit");
        assert_eq!(read(&*store, &Key::node(node(1))).await, Some(3));
        assert_eq!(read(&*store, &Key::node(node(2))).await, None);
        let missing: Result<CounterRow> = require_row(&*store, &Key::node(node(2))).await;
        assert_eq!(missing.expect_err("deleted").kind(), ErrorKind::Corrupt);
        for durability in [Durability::Unsynced, Durability::Synced] {
            store
                .commit(Batch::new(), durability)
                .await
                .expect("nothing to do");
        }
        let status = store.status().await.expect("a status");
        assert!(!status.failed && !status.full && status.bytes_used > 0);
    });
}

pub(super) fn scans_are_ordered_bounded_and_go_on_where_they_stopped(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        for page in [5_u32, 1, 300, 4, 2] {
            put(&*store, page_key(page), page.into()).await;
        }
        put(&*store, Key::group(node(1), GroupNo::ZERO), 0).await;
        put(&*store, Key::page(node(2), PageNo::ZERO), 0).await;
        let keys = |pairs: Vec<Pair>| pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let wanted = |pages: &[u32]| -> Vec<Vec<u8>> {
            pages.iter().map(|page| page_key(*page).to_vec()).collect()
        };
        let range = KeyRange::pages_of(node(1), PageNo::ZERO);
        let all = store
            .scan(&range.from, &range.to, 100)
            .await
            .expect("a scan");
        assert_eq!(keys(all), wanted(&[1, 2, 4, 5, 300]));
        let some = store.scan(&page_key(2), &page_key(5), 100).await;
        assert_eq!(keys(some.expect("a scan")), wanted(&[2, 4]));
        let few = store.scan(&range.from, &range.to, 2).await.expect("a scan");
        assert_eq!(keys(few), wanted(&[1, 2]));
        for (from, to) in [(5, 5), (5, 2)] {
            let none = store.scan(&page_key(from), &page_key(to), 9).await;
            assert_eq!(none.expect("a scan"), []);
        }
        let none = store.scan(&range.from, &range.to, 0).await;
        assert_eq!(none.expect("a scan"), []);
        for limit in [1, 2, 5, 6] {
            let mut cursor = Cursor::new(range.clone());
            let mut seen = Vec::new();
            loop {
                let part = cursor.next(&*store, limit).await.expect("a scan");
                if part.is_empty() {
                    break;
                }
                assert!(part.len() <= limit);
                seen.extend(keys(part));
            }
            assert_eq!(seen, wanted(&[1, 2, 4, 5, 300]), "limit {limit}");
        }
    });
}

pub(super) fn operands_are_merged_over_the_base_or_over_nothing(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        let based = page_key(1);
        let bare = page_key(2);
        let count = Key::count(PoolNumber::FIRST, RefId::FIRST);
        let mut slots = [Entry::HOLE; ENTRIES_PER_PAGE];
        let mut batch = Batch::new();
        batch.put(based.clone(), encode_whole(&slots));
        batch.merge_row(count.clone(), &CountRow { count: 5 });
        store
            .commit(batch, Durability::Unsynced)
            .await
            .expect("a commit");
        for slot in 0..100_u16 {
            let mut batch = Batch::new();
            let delta = encode_delta([(slot, Entry::ABSENT)].into_iter());
            batch.merge(based.clone(), &delta);
            let delta = encode_delta([(slot, Entry::HOLE)].into_iter());
            batch.merge(bare.clone(), &delta);
            batch.merge_row(count.clone(), &CountRow { count: -2 });
            store
                .commit(batch, Durability::Unsynced)
                .await
                .expect("a commit");
        }
        slots[..100].fill(Entry::ABSENT);
        assert_eq!(page(&*store, &based).await, slots);
        let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
        slots[..100].fill(Entry::HOLE);
        assert_eq!(page(&*store, &bare).await, slots);
        let row: CountRow = require_row(&*store, &count).await.expect("a count");
        assert_eq!(row.count, -195);
        // A delete ends what was merged before.
        let mut batch = Batch::new();
        batch.delete(bare.clone());
        batch.merge(bare.clone(), encode_delta([(7, Entry::HOLE)].into_iter()));
        store
            .commit(batch, Durability::Unsynced)
            .await
            .expect("a commit");
        let mut slots = [Entry::ABSENT; ENTRIES_PER_PAGE];
        slots[7] = Entry::HOLE;
        assert_eq!(page(&*store, &bare).await, slots);
    });
}

async fn page(reader: &dyn MetaReader, key: &Key) -> Slots {
    let value = reader.get(key).await.expect("readable").expect("a page");
    *decode_page(unseal(key, &value).expect("sealed")).expect("a page")
}

pub(super) fn snapshots_stay_as_they_were(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        put(&*store, page_key(1), 1).await;
        let before = store.snapshot().await.expect("a snapshot");
        put(&*store, page_key(1), 2).await;
        put(&*store, page_key(2), 2).await;
        let after = store.snapshot().await.expect("a snapshot");
        let range = KeyRange::all();
        for _ in 0..3 {
            assert_eq!(read(&*before, &page_key(1)).await, Some(1));
            let pairs = before
                .scan(&range.from, &range.to, 9)
                .await
                .expect("a scan");
            assert_eq!(pairs.len(), 1);
            assert_eq!(read(&*after, &page_key(1)).await, Some(2));
        }
        let outliving = before.get(&page_key(1));
        drop(before);
        assert!(outliving.await.expect("still held").is_some());
        assert_eq!(read(&*after, &page_key(2)).await, Some(2));
    });
}

pub(super) fn batches_keep_the_order_of_the_calls_even_if_nobody_waits(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        let set = |next| {
            let mut batch = Batch::new();
            batch.put(page_key(0), counter(next));
            batch.put(page_key(1 + next as u32), counter(next));
            batch
        };
        let mut last = None;
        for next in 0..600 {
            let durability = if next % 7 == 0 {
                Durability::Synced
            } else {
                Durability::Unsynced
            };
            // Dropped unpolled, but for the last.
            last = Some(store.commit(set(next), durability));
        }
        last.expect("600 commits").await.expect("a commit");
        assert_eq!(read(&*store, &page_key(0)).await, Some(599));
        let range = KeyRange::pages_of(node(1), PageNo::new(1).expect("31 bits"));
        let all = store.scan(&range.from, &range.to, 1000).await;
        assert_eq!(all.expect("a scan").len(), 600);
    });
}

pub(super) fn a_closed_store_refuses_and_keeps_what_was_committed(rig: &mut impl Rig) {
    let store = rig.store();
    rig.run(async move {
        put(&*store, page_key(1), 11).await;
        drop(store.commit(
            {
                let mut batch = Batch::new();
                batch.put(page_key(2), counter(22));
                batch
            },
            Durability::Unsynced,
        ));
        store.close().await.expect("closed");
        let kind = |error: Error| error.kind();
        let batch = Batch::new();
        let commit = store.commit(batch, Durability::Synced).await;
        assert_eq!(commit.map_err(kind), Err(ErrorKind::Closed));
        let get = store.get(&page_key(1)).await;
        assert_eq!(get.map_err(kind), Err(ErrorKind::Closed));
        assert_eq!(
            store.snapshot().await.err().map(kind),
            Some(ErrorKind::Closed)
        );
        assert_eq!(store.close().await.map_err(kind), Err(ErrorKind::Closed));
        assert_eq!(store.status().await.map_err(kind), Err(ErrorKind::Closed));
    });
    rig.reopen();
    let store = rig.store();
    rig.run(async move {
        assert_eq!(read(&*store, &page_key(1)).await, Some(11));
        assert_eq!(read(&*store, &page_key(2)).await, Some(22));
    });
}

/// Random batches against a map in memory, which merges with the same operator.
pub(super) fn random_batches_do_what_a_model_does(rig: &mut impl Rig, seed: u64) {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut keys: Vec<Key> = (0..20).map(page_key).collect();
    keys.extend((1..5).map(|id| {
        let id = RefId::new(id).expect("not 0");
        Key::count(PoolNumber::FIRST, id)
    }));
    for round in 0..6 {
        for _ in 0..20 {
            let store = rig.store();
            let batches: Vec<Batch> = (0..rng.random_range(1..8))
                .map(|_| random_batch(&mut rng, &keys))
                .collect();
            for op in batches.iter().flat_map(Batch::ops) {
                apply(&mut model, op);
            }
            let synced = rng.random_bool(0.3);
            rig.run(async move {
                let answers: Vec<_> = batches
                    .into_iter()
                    .map(|batch| match synced {
                        true => store.commit(batch, Durability::Synced),
                        false => store.commit(batch, Durability::Unsynced),
                    })
                    .collect();
                for answer in answers {
                    answer.await.expect("a commit");
                }
            });
        }
        if round % 2 == 1 {
            let store = rig.store();
            rig.run(async move { store.close().await.expect("closed") });
            rig.reopen();
        }
        let store = rig.store();
        let range = KeyRange::all();
        let found = rig.run(async move { store.scan(&range.from, &range.to, 10_000).await });
        let expected: Vec<Pair> = model.clone().into_iter().collect();
        assert!(
            found.expect("a scan") == expected,
            "seed {seed}, round {round}"
        );
    }
}

fn random_batch(rng: &mut ChaCha8Rng, keys: &[Key]) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..rng.random_range(1..6) {
        let key = keys.choose(rng).expect("some").clone();
        let is_page = key[0] == Table::Page as u8;
        match (rng.random_range(0..10), is_page) {
            (0, _) => batch.delete(key),
            (1, true) => batch.put(key, encode_whole(&[Entry::HOLE; ENTRIES_PER_PAGE])),
            (1, false) => batch.put_row(key, &CountRow { count: 3 }),
            (_, true) => {
                let slot = rng.random_range(0..512);
                let entry = *[Entry::ABSENT, Entry::HOLE].choose(rng).expect("two");
                batch.merge(key, encode_delta([(slot, entry)].into_iter()));
            }
            (_, false) => {
                let count = rng.random_range(-3..4);
                batch.merge_row(key, &CountRow { count });
            }
        }
    }
    batch
}

fn apply(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, op: &Op) {
    let key = op.key().to_vec();
    match op {
        Op::Put { value, .. } => {
            model.insert(key, value.clone());
        }
        Op::Delete { .. } => {
            model.remove(&key);
        }
        Op::Merge { operand, .. } => {
            let base = model.get(&key).cloned();
            let mut operands = std::iter::once(operand.as_slice());
            let merged = merge(&key, base.as_deref(), &mut operands);
            model.insert(key, merged.expect("sound"));
        }
    }
}

/// The suite as tests: `$rig` makes a rig over an empty store.
macro_rules! suite {
    ($rig:expr) => {
        use crate::meta::contract;

        #[test]
        fn batches_are_seen_wholly_once_they_are_answered() {
            contract::batches_are_seen_wholly_once_they_are_answered(&mut $rig);
        }

        #[test]
        fn scans_are_ordered_bounded_and_go_on_where_they_stopped() {
            contract::scans_are_ordered_bounded_and_go_on_where_they_stopped(&mut $rig);
        }

        #[test]
        fn operands_are_merged_over_the_base_or_over_nothing() {
            contract::operands_are_merged_over_the_base_or_over_nothing(&mut $rig);
        }

        #[test]
        fn snapshots_stay_as_they_were() {
            contract::snapshots_stay_as_they_were(&mut $rig);
        }

        #[test]
        fn batches_keep_the_order_of_the_calls_even_if_nobody_waits() {
            contract::batches_keep_the_order_of_the_calls_even_if_nobody_waits(&mut $rig);
        }

        #[test]
        fn a_closed_store_refuses_and_keeps_what_was_committed() {
            contract::a_closed_store_refuses_and_keeps_what_was_committed(&mut $rig);
        }

        #[test]
        fn random_batches_do_what_a_model_does() {
            for seed in 0..8 {
                contract::random_batches_do_what_a_model_does(&mut $rig, seed);
            }
        }
    };
}

pub(super) use suite;

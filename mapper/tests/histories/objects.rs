//! Objects that go: while somebody reads them, and behind the mapper's back.

use crate::harness::{BLOCK, Life, OBJECT, World, blocks, byte_at, with_seeds};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::ErrorKind;
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

#[test]
fn a_read_that_runs_gets_its_data_though_the_object_is_dropped_and_flushed_meanwhile() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            // A complete object, or where the pool does not zero a partial one.
            let len = if seed % 3 == 0 { BLOCK } else { OBJECT };
            volume.write(0, blocks(1, len), true).await.expect("ok");
            // Whichever core reads has the map now.
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
            life.chaos.fail_call(Op::Read, 1, Fault::Hang);
            let reading = {
                let volume = volume.clone();
                spawn(async move { volume.read(0, BLOCK).await })
            };
            sleep(Duration::from_millis(1)).await;
            assert_eq!(life.chaos.hanging(), 1, "it is at the store");
            volume.unmap(0, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            // Time enough for a deletion that would not wait.
            sleep(Duration::from_secs(1)).await;
            assert_eq!(life.chaos.calls(Op::Delete), 0);
            life.chaos.release();
            let data = reading.await.expect("the object was there");
            assert!(data.iter().all(|part| part.iter().all(|byte| *byte == 1)));
            assert_eq!(byte_at(&volume, 0, OBJECT).await, 0);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(life.chaos.calls(Op::Delete), 1, "then it goes");
        });
    });
}

/// Removes every object at the store.
async fn remove_objects(life: &Life) {
    let store = life
        .chaos
        .inner()
        .attach()
        .await
        .expect("the store is there");
    let listed = store.list(None, 100).await.expect("listed").objects;
    assert!(!listed.is_empty());
    for id in listed {
        store.delete(id).await.expect("removed");
    }
}

#[test]
fn an_object_that_was_removed_under_an_open_volume_is_corrupt_and_never_zeros() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            let len = if seed % 3 == 0 { BLOCK } else { OBJECT };
            volume.write(0, blocks(1, len), true).await.expect("ok");
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
            remove_objects(&life).await;
            for _ in 0..2 {
                let outcomes = [
                    volume.read(0, BLOCK).await.err(),
                    // Across what was never written, too.
                    volume.read(0, OBJECT * 2).await.err(),
                    volume.write(0, blocks(2, BLOCK), false).await.err(),
                    volume.write(512, blocks(2, 512), false).await.err(),
                    volume.write(0, blocks(2, BLOCK), true).await.err(),
                ];
                for (place, error) in outcomes.into_iter().enumerate() {
                    let error = error.unwrap_or_else(|| panic!("operation {place} succeeded"));
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{place}: {error}");
                }
            }
            assert_eq!(byte_at(&volume, OBJECT, OBJECT).await, 0);
        });
        world.end_process();
        world.live(|life| async move {
            let volume = life.open("v").await;
            let error = volume.read(0, BLOCK).await.expect_err("it is missing");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        });
    });
}

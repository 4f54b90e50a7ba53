//! What an acknowledged flush is worth.

use crate::harness::{BLOCK, OBJECT, World, blocks, byte_at, with_seeds};
use atoll_backends::ErrorKind as StoreError;
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::ErrorKind;
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

#[test]
fn no_flush_is_acknowledged_by_one_that_found_the_metadata_store_full() {
    with_seeds(100, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            volume.write(0, blocks(1, BLOCK), false).await.expect("ok");
            life.meta.set_full(true);
            life.chaos
                .delay(Op::Sync, Duration::from_millis(1)..Duration::from_millis(2));
            let first = volume.clone();
            let mut flushes = vec![spawn(async move { first.flush().await })];
            sleep(Duration::from_micros(100)).await;
            // While the first one runs; these share the next.
            volume
                .write(BLOCK, blocks(1, BLOCK), false)
                .await
                .expect("ok");
            for _ in 0..3 {
                let volume = volume.clone();
                flushes.push(spawn(async move { volume.flush().await }));
            }
            for flush in flushes {
                let error = flush.await.expect_err("nothing could be committed");
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            }
            // Room again: nothing was lost.
            life.meta.set_full(false);
            volume.flush().await.expect("room again");
        });
        world.lose_power();
        world.check();
        world.live(|life| async move {
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
        });
    });
}

#[test]
fn a_volume_that_found_the_metadata_store_full_is_written_back_when_there_is_room() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            life.meta.set_full(true);
            volume.write(0, blocks(1, BLOCK), false).await.expect("ok");
            sleep(Duration::from_secs(60)).await;
            life.meta.set_full(false);
            sleep(Duration::from_secs(60)).await;
        });
        world.lose_power();
        world.live(|life| async move {
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
        });
    });
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_by_any_way() {
    with_seeds(100, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
            volume.flush().await.expect("ok");
            volume.write(0, blocks(2, BLOCK), false).await.expect("ok");
            life.chaos
                .fail_call(Op::Sync, 1, Fault::Error(StoreError::Io));
            life.chaos
                .delay(Op::Sync, Duration::ZERO..Duration::from_millis(2));
            let (a, b) = (volume.clone(), volume.clone());
            let flush = spawn(async move { a.flush().await });
            let fua = spawn(async move { b.write(BLOCK, blocks(3, BLOCK), true).await });
            flush.await.expect_err("one of the syncs has failed");
            fua.await.expect_err("one of the syncs has failed");
            for attempt in 0..2 {
                let after = [
                    volume.flush().await.is_err(),
                    volume.write(0, blocks(4, BLOCK), false).await.is_err(),
                    volume.write(0, blocks(4, BLOCK), true).await.is_err(),
                    volume.unmap(0, OBJECT).await.is_err(),
                    volume.write_zeroes(0, BLOCK, false, true).await.is_err(),
                    volume.read(0, BLOCK).await.is_err(),
                ];
                assert_eq!(after, [true; 6], "attempt {attempt}");
            }
            life.mapper.stop().await.expect_err("not a clean stop");
        });
    });
}

//! Operations that the store ends long after their initiators gave up.

use crate::harness::{BLOCK, IO_TIMEOUT, OBJECT, World, blocks, byte_at, name, with_seeds};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::ErrorKind;
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

#[test]
fn a_write_that_was_given_up_never_lands_over_a_later_write() {
    with_seeds(50, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            if seed % 3 == 0 {
                volume.write(0, blocks(9, OBJECT), false).await.expect("ok");
            }
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let error = volume.write(0, blocks(1, BLOCK), false).await;
            assert_eq!(error.expect_err("it hangs").kind(), ErrorKind::Timeout);
            let later = {
                let volume = volume.clone();
                spawn(async move { volume.write(0, blocks(2, BLOCK), false).await })
            };
            sleep(Duration::from_secs(1)).await;
            life.chaos.release();
            later.await.expect("the first has ended");
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 2);
        });
    });
}

#[test]
fn a_first_write_that_was_given_up_never_lands_over_a_later_unmap_or_zeroing() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let error = volume.write(0, blocks(1, BLOCK), false).await;
            assert_eq!(error.expect_err("it hangs").kind(), ErrorKind::Timeout);
            let later = {
                let volume = volume.clone();
                spawn(async move {
                    match seed % 4 {
                        0 => volume.unmap(0, OBJECT).await,
                        1 => volume.unmap(0, BLOCK).await,
                        2 => volume.write_zeroes(0, BLOCK, false, false).await,
                        _ => volume.write_zeroes(0, 512, false, false).await,
                    }
                })
            };
            sleep(Duration::from_secs(1)).await;
            life.chaos.release();
            let outcome = later.await;
            sleep(Duration::from_secs(1)).await;
            outcome.expect("the first has ended");
            assert_eq!(byte_at(&volume, 0, 512).await, 0);
        });
    });
}

#[test]
fn verbs_that_wait_for_a_hung_operation_say_busy_and_leave_the_volume_as_it_was() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            volume.write(0, blocks(1, BLOCK), false).await.expect("ok");
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            volume
                .write(0, blocks(2, BLOCK), false)
                .await
                .expect_err("it hangs");
            let shrink = life.mapper.resize_volume(name("v"), 1 << 20).await;
            shrink.expect("no change needs nobody");
            let delete = life.mapper.delete_volume(name("v")).await;
            assert_eq!(delete.expect_err("busy").kind(), ErrorKind::Busy);
            life.chaos.release();
            volume.write(0, blocks(3, BLOCK), false).await.expect("ok");
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 3);
            life.mapper.delete_volume(name("v")).await.expect("free");
        });
    });
}

#[test]
fn a_hung_sync_holds_up_no_verb_for_ever_and_the_volume_goes_on() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 2 << 20).await;
            volume.write(0, blocks(1, BLOCK), false).await.expect("ok");
            life.chaos.fail_call(Op::Sync, 1, Fault::Hang);
            let verb = {
                let mapper = life.mapper.clone();
                spawn(async move { mapper.delete_volume(name("v")).await })
            };
            sleep(IO_TIMEOUT * 3).await;
            assert_eq!(life.chaos.hanging(), 1);
            let error = verb.await.expect_err("the sync hangs");
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            life.chaos.release();
            volume.write(0, blocks(2, BLOCK), true).await.expect("ok");
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 2);
            life.mapper.stop().await.expect("a clean stop");
        });
    });
}

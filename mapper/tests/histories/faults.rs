//! Volumes whose flush failed, in later runs.

use crate::harness::{BLOCK, OBJECT, World, blocks, byte_at, name, with_seeds};
use atoll_backends::ErrorKind as StoreError;
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::{ErrorKind, clear_faults, faulted_pools};
use atoll_reactor::sim::Sim;
use atoll_reactor::sleep;
use std::time::Duration;

/// A volume `v` with an object, whose last flush was told to have failed.
fn fail(world: &mut World, seed: u64, fua: bool) {
    world.live(move |life| async move {
        let volume = life.create(seed.into(), "v", 2 << 20).await;
        life.create(seed.wrapping_add(1).into(), "other", 1 << 20)
            .await;
        volume.write(0, blocks(1, OBJECT), true).await.expect("ok");
        life.chaos
            .fail_call(Op::Sync, 1, Fault::Error(StoreError::Io));
        let told = match fua {
            true => volume.write(0, blocks(2, BLOCK), true).await,
            false => {
                volume.write(0, blocks(2, BLOCK), false).await.expect("ok");
                volume.flush().await
            }
        };
        told.expect_err("its sync has failed");
    });
}

#[test]
fn a_volume_whose_flush_failed_answers_nothing_in_later_runs_until_it_is_cleared() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        fail(&mut world, seed, seed % 4 < 2);
        match seed % 3 {
            0 => world.end_process(),
            _ => world.lose_power(),
        }
        for _ in 0..2 {
            world.check();
            world.live(|life| async move {
                let faulted = |name_| {
                    let mapper = life.mapper.clone();
                    async move { mapper.volume(name(name_)).await.expect("there").faulted }
                };
                assert!(faulted("v").await, "before it is opened");
                let volume = life.open("v").await;
                assert!(faulted("v").await && !faulted("other").await);
                let refused = [
                    volume.read(0, BLOCK).await.err(),
                    volume.write(0, blocks(3, BLOCK), false).await.err(),
                    volume.write(0, blocks(3, BLOCK), true).await.err(),
                    volume.flush().await.err(),
                    volume.unmap(0, OBJECT).await.err(),
                    life.mapper.resize_volume(name("v"), 1 << 20).await.err(),
                ];
                for error in refused {
                    let error = error.expect("refused");
                    assert_eq!(error.kind(), ErrorKind::Faulted, "{error}");
                    assert!(error.to_string().contains("--clear-faults"), "{error}");
                }
                let other = life.open("other").await;
                other.write(0, blocks(4, BLOCK), true).await.expect("ok");
                life.mapper.stop().await.expect("nothing is left undone");
            });
            world.end_process();
        }
        let meta = world.meta.clone();
        let cleared = Sim::new(seed, 1).block_on(async move {
            let pools = faulted_pools(&meta).await.expect("readable");
            let cleared = clear_faults(&meta, &pools).await.expect("cleared");
            let again = faulted_pools(&meta).await.expect("readable");
            assert!(again.is_empty());
            cleared
        });
        assert_eq!(cleared, [name("v")]);
        world.lose_power();
        world.live(|life| async move {
            assert!(!life.mapper.volume(name("v")).await.expect("there").faulted);
            let volume = life.open("v").await;
            for sector in 0..BLOCK / 512 {
                let read = byte_at(&volume, sector * 512, 512).await;
                assert!([1, 2].contains(&read), "{read}");
            }
            assert_eq!(byte_at(&volume, BLOCK, OBJECT - BLOCK).await, 1);
            volume.write(0, blocks(5, BLOCK), true).await.expect("ok");
        });
    });
}

#[test]
fn a_volume_that_is_faulted_is_shrunk_by_nobody_and_can_be_deleted_in_this_run_and_later() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        fail(&mut world, seed, false);
        if seed % 2 == 0 {
            world.lose_power();
        }
        world.live(|life| async move {
            life.open("v").await;
            life.mapper.delete_volume(name("v")).await.expect("deleted");
            let listed = life.mapper.volumes().await.expect("listed");
            assert_eq!(listed.len(), 1);
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn deleting_a_volume_while_its_flush_fails_leaves_no_mark_on_what_is_left_of_it() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 2 << 20).await;
            volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
            match seed % 2 {
                0 => life
                    .chaos
                    .fail_call(Op::Sync, 1, Fault::Error(StoreError::Io)),
                // It is given up without a fault: none is to be noted over the deletion.
                _ => life.meta.set_full(true),
            }
            life.mapper.delete_volume(name("v")).await.expect("deleted");
            sleep(Duration::from_millis(1)).await;
        });
        world.lose_power();
        world.check();
        let meta = world.meta.clone();
        Sim::new(seed, 1).block_on(async move {
            let left = faulted_pools(&meta).await.expect("readable");
            assert!(left.is_empty(), "a node that is being deleted is no volume");
        });
    });
}

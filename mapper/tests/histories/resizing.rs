//! Shrinks, what they leave to do in the background, and what may come in between.

use crate::harness::{BLOCK, OBJECT, World, blocks, byte_at, name, with_seeds};
use atoll_backends::chaos::Op;
use atoll_reactor::sleep;
use std::time::Duration;

/// Over two pages of entries.
const LARGE: u64 = 1100 * OBJECT;
const SMALL: u64 = 16 * OBJECT;

/// Every 16th object of a large volume gets a first block.
async fn scatter(volume: &atoll_mapper::VolumeHandle, byte: u8) {
    for index in (0..LARGE / OBJECT).step_by(16) {
        let written = volume
            .write(index * OBJECT, blocks(byte, BLOCK), false)
            .await;
        written.expect("ok");
    }
    volume.flush().await.expect("ok");
}

async fn assert_gone(volume: &atoll_mapper::VolumeHandle) {
    for index in (SMALL / OBJECT..LARGE / OBJECT).step_by(16) {
        assert_eq!(byte_at(volume, index * OBJECT, BLOCK).await, 0, "{index}");
    }
}

#[test]
fn a_clean_stop_amid_a_trim_uses_no_name_twice() {
    with_seeds(100, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            scatter(&volume, 1).await;
            life.chaos
                .delay(Op::Sync, Duration::ZERO..Duration::from_millis(1));
            life.mapper
                .resize_volume(name("v"), SMALL)
                .await
                .expect("shrunk");
            sleep(Duration::from_micros(seed * 37)).await;
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
        world.live(move |life| async move {
            life.mapper
                .resize_volume(name("v"), LARGE)
                .await
                .expect("grown");
            let volume = life.open("v").await;
            assert_gone(&volume).await;
            scatter(&volume, 2).await;
            // Deletions of what the shrink cut off have time to do harm.
            sleep(Duration::from_secs(60)).await;
            for index in (0..LARGE / OBJECT).step_by(16) {
                assert_eq!(byte_at(&volume, index * OBJECT, BLOCK).await, 2);
            }
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_deletion_amid_a_trim_leaves_no_node_behind() {
    with_seeds(100, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            scatter(&volume, 1).await;
            life.mapper
                .resize_volume(name("v"), SMALL)
                .await
                .expect("shrunk");
            sleep(Duration::from_micros(seed * 37)).await;
            life.mapper.delete_volume(name("v")).await.expect("deleted");
            sleep(Duration::from_secs(60)).await;
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn shrinks_one_after_the_other_all_last() {
    with_seeds(200, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            scatter(&volume, 1).await;
            for step in (1..8).rev() {
                let size = SMALL + step * (seed % 5 + 1) * 16 * OBJECT;
                life.mapper
                    .resize_volume(name("v"), size)
                    .await
                    .expect("shrunk");
                sleep(Duration::from_micros((seed * step) % 3000)).await;
            }
            life.mapper
                .resize_volume(name("v"), SMALL)
                .await
                .expect("shrunk");
        });
        world.lose_power();
        world.check();
        world.live(move |life| async move {
            life.mapper
                .resize_volume(name("v"), LARGE)
                .await
                .expect("grown");
            assert_gone(&life.open("v").await).await;
        });
    });
}

#[test]
fn a_trim_cut_by_power_losses_is_taken_up_and_nothing_comes_back() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            scatter(&volume, 1).await;
            life.mapper
                .resize_volume(name("v"), SMALL + BLOCK)
                .await
                .expect("shrunk");
        });
        for round in 0..4_u64 {
            world.lose_power();
            world.check();
            world.live(move |_life| async move {
                sleep(Duration::from_micros(seed * 131 * round % 5000)).await;
            });
        }
        world.lose_power();
        world.live(move |life| async move {
            life.mapper
                .resize_volume(name("v"), LARGE)
                .await
                .expect("grown");
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, SMALL, BLOCK).await, 1);
            assert_eq!(byte_at(&volume, SMALL + BLOCK, OBJECT - BLOCK).await, 0);
            for index in (SMALL / OBJECT + 16..LARGE / OBJECT).step_by(16) {
                assert_eq!(byte_at(&volume, index * OBJECT, BLOCK).await, 0, "{index}");
            }
        });
    });
}

#[test]
fn a_shrink_inside_of_an_object_and_a_growth_show_zeros_between() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        let small = (1 << 20) + 3 * BLOCK;
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", (1 << 20) + 7 * BLOCK).await;
            volume
                .write(1 << 20, blocks(1, 7 * BLOCK), false)
                .await
                .expect("ok");
            life.mapper
                .resize_volume(name("v"), small)
                .await
                .expect("shrunk");
            let beyond = volume.write(small, blocks(1, BLOCK), false).await;
            assert!(beyond.is_err(), "a write beyond the end");
            life.mapper
                .resize_volume(name("v"), 2 << 20)
                .await
                .expect("grown");
            assert_eq!(byte_at(&volume, small, (2 << 20) - small).await, 0);
            assert_eq!(byte_at(&volume, 1 << 20, 3 * BLOCK).await, 1);
        });
        world.lose_power();
        world.check();
        world.live(move |life| async move {
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, small, (2 << 20) - small).await, 0);
            assert_eq!(byte_at(&volume, 1 << 20, 3 * BLOCK).await, 1);
        });
    });
}

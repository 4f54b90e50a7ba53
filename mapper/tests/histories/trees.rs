//! Trees of some depth: rollbacks, chains of snapshots and of clones, and deletions of their members in any order.

use crate::harness::{
    BLOCK, Life, OBJECT, World, blocks, name, on, read, read_everywhere, some_cores, with_seeds,
    write,
};
use atoll_backends::chaos::Op;
use atoll_mapper::{ErrorKind, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: u64 = 45;
const SIZE: u64 = 1 << 20;

#[test]
fn after_a_rollback_every_core_sees_the_snapshot() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(3, move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            write(0, &volume, 0, 1, 2 * OBJECT).await.expect("ok");
            life.snapshot("v", "s").await;
            // Every core has what is newer in its own copies of the map.
            write(1, &volume, 0, 2, BLOCK).await.expect("ok");
            write(2, &volume, OBJECT, 2, OBJECT).await.expect("ok");
            write(0, &volume, 5 * OBJECT, 2, BLOCK).await.expect("ok");
            life.resize("v", 2 * SIZE).await;
            for at in [0, OBJECT, 5 * OBJECT] {
                assert_eq!(read_everywhere(&volume, at, BLOCK).await, 2);
            }
            if seed % 2 == 0 {
                life.snapshot("v", "later").await;
                write(1, &volume, 0, 3, OBJECT).await.expect("ok");
            }
            life.rollback("v", "s").await;
            assert_rolled(&volume).await;
            let beyond = read_beyond(&volume).await;
            assert_eq!(beyond, ErrorKind::OutOfRange);
        });
        world.lose_power();
        world.check();
        world.live_on(3, move |life| async move {
            let volume = life.open("v").await;
            assert_rolled(&volume).await;
            if seed % 2 == 0 {
                let later = life.open("later").await;
                assert_eq!(read_everywhere(&later, 0, BLOCK).await, 2);
                life.rollback("v", "later").await;
                assert_eq!(volume.size(), 2 * SIZE);
                assert_eq!(read_everywhere(&volume, 5 * OBJECT, BLOCK).await, 2);
                life.rollback("v", "s").await;
                life.delete("later").await;
            }
            write(seed, &volume, BLOCK, 7, BLOCK).await.expect("ok");
            life.gc_idle().await;
            assert_eq!(life.tree().await.len(), 2, "the old heads are gone");
            assert_eq!(read_everywhere(&volume, BLOCK, BLOCK).await, 7);
            assert_eq!(read_everywhere(&volume, 2 * BLOCK, OBJECT).await, 1);
            volume.flush().await.expect("ok");
            life.gc_idle().await;
            assert_eq!(life.objects().await.len(), 3);
        });
        world.end_process();
        world.check();
    });
}

async fn assert_rolled(volume: &VolumeHandle) {
    assert_eq!(volume.size(), SIZE);
    assert_eq!(read_everywhere(volume, 0, 2 * OBJECT).await, 1);
    assert_eq!(
        read_everywhere(volume, 2 * OBJECT, SIZE - 2 * OBJECT).await,
        0
    );
}

async fn read_beyond(volume: &VolumeHandle) -> ErrorKind {
    let beyond = on(
        1,
        volume,
        |volume| async move { volume.read(SIZE, BLOCK).await },
    );
    beyond.await.expect_err("beyond the end").kind()
}

#[test]
fn writes_at_the_time_of_a_rollback_come_before_or_after_it_and_are_never_half() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            write(seed, &volume, 0, 1, 2 * OBJECT).await.expect("ok");
            life.snapshot("v", "s").await;
            write(seed, &volume, 0, 2, 2 * OBJECT).await.expect("ok");
            for op in [Op::Write, Op::Sync] {
                life.chaos
                    .delay(op, Duration::ZERO..Duration::from_millis(2));
            }
            let done = Rc::new(Cell::new(false));
            let load: Vec<_> = (0..4_u64)
                .map(|task| {
                    let (volume, done) = (volume.clone(), done.clone());
                    spawn(async move {
                        let mut byte = 3;
                        while !done.get() {
                            let written = write(task, &volume, task * BLOCK, byte, BLOCK);
                            written.await.expect("it waits, and goes on");
                            let found = read(task + 1, &volume, task * BLOCK, BLOCK).await;
                            assert!(found == byte || found == 1, "{found} {byte}");
                            byte = byte % 100 + 3;
                        }
                        write(task, &volume, task * BLOCK, 200, BLOCK)
                            .await
                            .expect("ok");
                    })
                })
                .collect();
            sleep(Duration::from_micros(seed * 331 % 5000)).await;
            life.rollback("v", "s").await;
            done.set(true);
            for task in load {
                task.await;
            }
            assert_eq!(read_everywhere(&volume, 0, 4 * BLOCK).await, 200);
            assert_eq!(
                read_everywhere(&volume, 4 * BLOCK, 2 * OBJECT - 4 * BLOCK).await,
                1
            );
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn a_power_loss_at_any_step_of_a_rollback_leaves_the_volume_or_the_snapshot() {
    with_seeds(9, |seed| {
        for steps in 0.. {
            let mut world = World::new(seed);
            let (begun, answered) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let (tell, answer, mut left) = (begun.clone(), answered.clone(), steps);
            let history = move |life: Life| async move {
                let volume = life.create(seed.into(), "v", SIZE).await;
                write(seed, &volume, 0, 1, 2 * OBJECT).await.expect("ok");
                life.snapshot("v", "s").await;
                life.resize("v", 2 * SIZE).await;
                write(seed, &volume, BLOCK, 2, OBJECT).await.expect("ok");
                volume
                    .write(SIZE, blocks(2, BLOCK), true)
                    .await
                    .expect("ok");
                volume.flush().await.expect("ok");
                tell.set(true);
                life.rollback("v", "s").await;
                answer.set(true);
                sleep(Duration::from_micros(200)).await;
            };
            let ended = world.live_until(some_cores(seed), history, || {
                left -= i64::from(begun.get());
                left < 0
            });
            world.lose_power();
            world.check();
            let answered = answered.get();
            world.live_on(some_cores(seed), move |life| async move {
                let volume = life.open("v").await;
                if volume.size() == SIZE {
                    assert_rolled(&volume).await;
                } else {
                    assert!(!answered, "it was answered");
                    assert_eq!(volume.size(), 2 * SIZE);
                    assert_eq!(read_everywhere(&volume, 0, BLOCK).await, 1);
                    assert_eq!(read_everywhere(&volume, BLOCK, OBJECT).await, 2);
                    assert_eq!(read_everywhere(&volume, SIZE, BLOCK).await, 2);
                }
                life.gc_idle().await;
                assert_eq!(life.tree().await.len(), 2);
                life.rollback("v", "s").await;
                assert_rolled(&volume).await;
                life.gc_idle().await;
                assert_eq!(life.objects().await.len(), 2);
            });
            world.end_process();
            world.check();
            if ended {
                break;
            }
        }
    });
}

/// A clone of a clone of a clone: `v`, `s1`, `c1`, `s2`, `c2`, `s3`, `c3`. Each volume has written its number to the
/// block of that number, in an object that all write to, and to an object of its own.
async fn generations(life: &Life, seed: u64) {
    let mut volume = life.create(seed.into(), "v", SIZE).await;
    for number in 0..4_u64 {
        if number > 0 {
            let (snapshot, clone) = (format!("s{number}"), format!("c{number}"));
            let from = if number == 1 {
                "v".into()
            } else {
                format!("c{}", number - 1)
            };
            life.snapshot(&from, &snapshot).await;
            volume = life.clone_of(&snapshot, &clone, None).await;
        }
        let byte = number as u8 + 1;
        if number == 0 {
            write(seed, &volume, 0, 9, OBJECT).await.expect("ok");
        }
        for at in [number * BLOCK, (number + 1) * OBJECT] {
            write(seed + number, &volume, at, byte, BLOCK)
                .await
                .expect("ok");
        }
    }
}

/// What a resource of [`generations`] shows that comes after `number` of them.
async fn assert_generation(life: &Life, resource: &str, number: u64) {
    let volume = life.open(resource).await;
    for other in 0..4 {
        let byte = if other <= number { other as u8 + 1 } else { 9 };
        assert_eq!(
            read_everywhere(&volume, other * BLOCK, BLOCK).await,
            byte,
            "{resource}, {other}"
        );
        let byte = if other <= number { other as u8 + 1 } else { 0 };
        assert_eq!(
            read_everywhere(&volume, (other + 1) * OBJECT, BLOCK).await,
            byte,
            "{resource}, {other}"
        );
    }
    assert_eq!(
        read_everywhere(&volume, 4 * BLOCK, OBJECT - 4 * BLOCK).await,
        9
    );
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Deletes three of the resources in the order of the seed; the rest stay as they were.
fn delete_in_any_order(three: [&'static str; 3], rest: &'static [(&'static str, u64)]) {
    with_seeds(SEEDS * 2, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 4 == 0;
        let order = ORDERS[(seed % 6) as usize];
        // With the collector's work between or all at the end; with power losses or without.
        let (waits, loses) = (seed / 6 % 2 == 0, seed / 12 % 2 == 0);
        world.live_on(some_cores(seed), move |life| async move {
            generations(&life, seed).await;
            for (volume, _) in rest.iter().chain(&[("c3", 3)]) {
                life.open(volume).await.flush().await.expect("ok");
            }
        });
        for deleted in order {
            if loses {
                world.lose_power();
                world.check();
            } else {
                world.end_process();
            }
            world.live_on(some_cores(seed + 1), move |life| async move {
                life.delete(three[deleted]).await;
                if waits {
                    life.gc_idle().await;
                } else {
                    // It is cut somewhere.
                    sleep(Duration::from_micros(seed * 97 % 3000)).await;
                }
                for (resource, number) in rest {
                    assert_generation(&life, resource, *number).await;
                }
            });
        }
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            life.gc_idle().await;
            for (resource, number) in rest {
                assert_generation(&life, resource, *number).await;
                life.delete(resource).await;
            }
            life.gc_idle().await;
            assert_eq!(life.tree().await, Vec::<Option<String>>::new());
            assert_eq!(life.objects().await, [], "all are deleted");
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn the_snapshots_below_clones_of_clones_are_deleted_in_all_orders() {
    delete_in_any_order(
        ["s1", "s2", "s3"],
        &[("v", 0), ("c1", 1), ("c2", 2), ("c3", 3)],
    );
}

#[test]
fn the_volumes_between_clones_of_clones_are_deleted_in_all_orders() {
    delete_in_any_order(
        ["v", "c1", "c2"],
        &[("s1", 0), ("s2", 1), ("s3", 2), ("c3", 3)],
    );
}

#[test]
fn one_of_each_kind_is_deleted_in_all_orders() {
    delete_in_any_order(
        ["s1", "c2", "s3"],
        &[("v", 0), ("c1", 1), ("s2", 1), ("c3", 3)],
    );
}

const CHAIN: u64 = 60;
/// Of two objects of the volume, each with as many below it as are allowed.
const MAX_LEFT: usize = 2 * (1 + 8);

#[test]
fn sixty_snapshots_in_a_chain_are_read_from_all_cores_while_they_go_one_after_the_other() {
    with_seeds(6, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        world.live_on(3, move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            write(seed, &volume, 0, 255, OBJECT).await.expect("ok");
            for number in 1..=CHAIN {
                let at = number % 14 * BLOCK;
                write(number, &volume, at, number as u8, BLOCK)
                    .await
                    .expect("ok");
                write(number + 1, &volume, at + OBJECT, number as u8, 512)
                    .await
                    .expect("ok");
                life.snapshot("v", &format!("s{number}")).await;
            }
            for number in 1..=CHAIN {
                assert_link(&life, number).await;
            }
            for number in (1..=CHAIN).step_by(2) {
                life.delete(&format!("s{number}")).await;
            }
            // Some while the others are being merged.
            for number in (2..=CHAIN).step_by(14) {
                assert_link(&life, number).await;
            }
            life.gc_idle().await;
            for number in (2..=CHAIN).step_by(2) {
                assert_link(&life, number).await;
            }
            assert_eq!(life.tree().await.len() as u64, CHAIN / 2 + 1);
        });
        world.lose_power();
        world.check();
        world.live_on(3, move |life| async move {
            for number in (2..=CHAIN).step_by(2) {
                if number % 14 == seed % 7 * 2 {
                    assert_link(&life, number).await;
                }
                life.delete(&format!("s{number}")).await;
            }
            life.gc_idle().await;
            assert_eq!(life.tree().await, [Some("v".to_string())]);
            let volume = life.open("v").await;
            for block in 0..16 {
                let expected = newest(block, CHAIN);
                let found = read_everywhere(&volume, block * BLOCK, BLOCK).await;
                assert_eq!(found, expected.unwrap_or(255));
            }
            volume.flush().await.expect("ok");
            life.gc_idle().await;
            assert!(life.objects().await.len() <= MAX_LEFT);
        });
        world.end_process();
        world.check();
    });
}

/// Who of the first `number` of the chain wrote a block last.
fn newest(block: u64, number: u64) -> Option<u8> {
    let writers = (1..=number).rev();
    let mut writers = writers.filter(|writer| writer % 14 == block);
    writers.next().map(|writer| writer as u8)
}

async fn assert_link(life: &Life, number: u64) {
    let snapshot = life.open(&format!("s{number}")).await;
    for block in 0..16 {
        let expected = newest(block, number);
        let core = number + block;
        let found = read(core, &snapshot, block * BLOCK, BLOCK).await;
        assert_eq!(found, expected.unwrap_or(255), "s{number}, block {block}");
        let found = read(core + 1, &snapshot, OBJECT + block * BLOCK, 512).await;
        assert_eq!(found, expected.unwrap_or(0), "s{number}, block {block}");
    }
}

#[test]
fn what_rollback_and_snapshots_of_another_tree_have_to_do_with_each_other_is_nothing() {
    with_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            for (number, volume) in ["v", "w"].into_iter().enumerate() {
                life.create(u128::from(seed) + number as u128, volume, SIZE)
                    .await;
            }
            life.snapshot("v", "s").await;
            for (volume, snapshot, kind) in [
                ("w", "s", ErrorKind::Invalid),
                ("v", "w", ErrorKind::Invalid),
                ("v", "gone", ErrorKind::NotFound),
                ("gone", "s", ErrorKind::NotFound),
            ] {
                let refused = life.mapper.rollback(name(volume), name(snapshot)).await;
                assert_eq!(refused.expect_err("refused").kind(), kind, "{volume}");
            }
            let refused = life.mapper.rollback(name("s"), name("s")).await;
            refused.expect_err("a snapshot stays");
        });
        world.end_process();
        world.check();
    });
}

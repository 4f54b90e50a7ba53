//! What the garbage collector does to maps in use: merges of nodes with partial objects, the filler, the leak
//! scan, and deletions that come late.

use crate::harness::{
    BLOCK, Life, OBJECT, World, blocks, byte_at, on, read, read_everywhere, some_cores, with_seeds,
    write,
};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::VolumeHandle;
use atoll_reactor::{sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: u64 = 45;
const SIZE: u64 = 1 << 20;
/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(1);

/// A volume `v` whose first object is full of ones; flushed.
async fn filled(life: &Life, seed: u64) -> VolumeHandle {
    let volume = life.create(seed.into(), "v", SIZE).await;
    volume.write(0, blocks(1, OBJECT), true).await.expect("ok");
    volume
}

/// The blocks of the first object, each full of one byte.
async fn assert_blocks(volume: &VolumeHandle, expected: [u8; 16]) {
    for (block, byte) in (0..).zip(expected) {
        let found = read_everywhere(volume, block * BLOCK, BLOCK).await;
        assert_eq!(found, byte, "block {block}");
    }
}

/// All ones but for these blocks.
fn ones_but(others: &[(usize, u8)]) -> [u8; 16] {
    let mut bytes = [1; 16];
    others
        .iter()
        .for_each(|(block, byte)| bytes[*block] = *byte);
    bytes
}

/// Ends the life with or without a clean stop, and checks what is left.
fn end(world: &mut World, seed: u64) {
    match seed % 3 {
        0 => world.end_process(),
        _ => world.lose_power(),
    }
    world.check();
}

#[test]
fn a_deleted_snapshot_below_a_partial_object_leaves_it_what_it_needs() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            write(seed, &volume, 3 * BLOCK, 2, BLOCK).await.expect("ok");
            if seed % 4 < 2 {
                // The partial object is frozen too.
                life.snapshot("v", "t").await;
            }
            life.delete("s").await;
            life.gc_idle().await;
            assert_blocks(&volume, ones_but(&[(3, 2)])).await;
            write(seed + 1, &volume, 4 * BLOCK, 3, BLOCK)
                .await
                .expect("ok");
            volume.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.open("v").await;
            assert_blocks(&volume, ones_but(&[(3, 2), (4, 3)])).await;
            if seed % 4 < 2 {
                assert_blocks(&life.open("t").await, ones_but(&[(3, 2)])).await;
                life.delete("t").await;
            }
            life.gc_idle().await;
            assert_blocks(&volume, ones_but(&[(3, 2), (4, 3)])).await;
            write(seed, &volume, 0, 4, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            life.gc_idle().await;
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 4);
            assert_eq!(life.objects().await.len(), 1, "nothing below is needed");
            assert_eq!(life.tree().await, [Some("v".to_string())]);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn an_object_that_is_unmapped_and_written_again_survives_the_old_deletion() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            if seed % 2 == 0 {
                write(seed, &volume, 0, 2, BLOCK).await.expect("ok");
            }
            life.chaos
                .delay(Op::Delete, Duration::from_secs(5)..Duration::from_secs(9));
            life.delete("s").await;
            sleep(Duration::from_micros(seed * 71 % 3000)).await;
            for byte in 3..7 {
                volume.unmap(0, OBJECT).await.expect("ok");
                volume.flush().await.expect("ok");
                write(seed, &volume, 0, byte, 2 * BLOCK).await.expect("ok");
                volume.flush().await.expect("ok");
                if seed % 3 == 0 {
                    let snapshot = format!("s{byte}");
                    life.snapshot("v", &snapshot).await;
                    write(seed, &volume, BLOCK, byte + 100, BLOCK)
                        .await
                        .expect("ok");
                    life.delete(&snapshot).await;
                    write(seed, &volume, BLOCK, byte, BLOCK).await.expect("ok");
                }
            }
            sleep(Duration::from_secs(60)).await;
            life.chaos.heal();
            life.gc_idle().await;
            assert_eq!(read_everywhere(&volume, 0, 2 * BLOCK).await, 6);
            assert_eq!(
                read_everywhere(&volume, 2 * BLOCK, OBJECT - 2 * BLOCK).await,
                0
            );
            volume.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live(|life| async move {
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 0, 2 * BLOCK).await, 6);
        });
    });
}

#[test]
fn a_flush_between_a_write_and_its_bit_makes_the_old_or_the_new_durable_and_nothing_else() {
    with_seeds(SEEDS * 4, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            // Some in an object that is there, some in one that is not.
            if seed % 2 == 0 {
                write(seed, &volume, 0, 1, BLOCK).await.expect("ok");
            }
            life.chaos
                .delay(Op::Write, Duration::ZERO..Duration::from_millis(2));
            let writes: Vec<_> = (3..7)
                .map(|block| write(block, &volume, block * BLOCK, 2, BLOCK))
                .collect();
            sleep(Duration::from_micros(seed * 131 % 2500)).await;
            volume.flush().await.expect("ok");
            if seed % 3 == 0 {
                for written in writes {
                    written.await.expect("ok");
                }
            }
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.open("v").await;
            for block in 0..16 {
                let byte = read_everywhere(&volume, block * BLOCK, BLOCK).await;
                let was_written = (3..7).contains(&block);
                assert!(byte == 1 || (byte == 2 && was_written), "{block}: {byte}");
            }
        });
    });
}

/// Over two pages of entries.
const LARGE: u64 = 1100 * OBJECT;

#[test]
fn what_was_cut_off_before_a_snapshot_does_not_come_back_when_the_one_below_is_merged() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        // Inside of an object, or between two.
        let cut = 16 * OBJECT + (seed % 3) * 2 * BLOCK;
        let places = [0, 15, 16, 17, 600, 1099];
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            for object in places {
                write(object, &volume, object * OBJECT, 1, OBJECT)
                    .await
                    .expect("ok");
            }
            life.snapshot("v", "s0").await;
            write(seed, &volume, 16 * OBJECT, 2, BLOCK)
                .await
                .expect("ok");
            write(seed, &volume, 16 * OBJECT + 8 * BLOCK, 2, BLOCK)
                .await
                .expect("ok");
            life.resize("v", cut).await;
            life.snapshot("v", "s1").await;
            life.resize("v", LARGE).await;
            write(seed, &volume, 17 * OBJECT + BLOCK, 3, BLOCK)
                .await
                .expect("ok");
            if seed % 4 < 2 {
                life.snapshot("v", "s2").await;
            }
            volume.flush().await.expect("ok");
        });
        for deleted in ["", "s1", "s0"] {
            world.lose_power();
            world.check();
            world.live_on(some_cores(seed), move |life| async move {
                if !deleted.is_empty() {
                    life.delete(deleted).await;
                    life.gc_idle().await;
                }
                let volume = life.open("v").await;
                assert_eq!(read_everywhere(&volume, 0, BLOCK).await, 1);
                assert_eq!(read_everywhere(&volume, 15 * OBJECT, OBJECT).await, 1);
                if cut > 16 * OBJECT {
                    let second = cut - BLOCK;
                    assert_eq!(read_everywhere(&volume, 16 * OBJECT, BLOCK).await, 2);
                    assert_eq!(read_everywhere(&volume, second, BLOCK).await, 1);
                }
                let zeros = 17 * OBJECT + BLOCK - cut;
                assert_eq!(read_everywhere(&volume, cut, zeros).await, 0, "{deleted}");
                assert_eq!(
                    read_everywhere(&volume, 17 * OBJECT + BLOCK, BLOCK).await,
                    3
                );
                for object in [18, 600, 1099] {
                    let found = read_everywhere(&volume, object * OBJECT, OBJECT).await;
                    assert_eq!(found, 0, "{deleted}: object {object}");
                }
                if deleted != "s0" {
                    let first = life.open("s0").await;
                    for object in places {
                        let found = read_everywhere(&first, object * OBJECT, OBJECT).await;
                        assert_eq!(found, 1, "{deleted}: object {object}");
                    }
                }
            });
        }
        world.end_process();
        world.check();
    });
}

#[test]
fn blocks_of_a_partial_object_that_are_unmapped_are_zeros_and_not_what_is_below() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        let expected = ones_but(&[(1, 0), (2, 0), (3, 2), (5, 0), (6, 0)]);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            if seed % 3 > 0 {
                write(seed, &volume, BLOCK, 2, BLOCK).await.expect("ok");
            }
            // One that is there, one that is not, and two of which half is.
            volume.unmap(BLOCK, BLOCK).await.expect("ok");
            volume.unmap(2 * BLOCK, BLOCK).await.expect("ok");
            write(seed, &volume, 3 * BLOCK, 2, BLOCK).await.expect("ok");
            let zeroed = volume.write_zeroes(5 * BLOCK, 2 * BLOCK, seed % 2 == 0, false);
            zeroed.await.expect("ok");
            assert_blocks(&volume, expected).await;
            volume.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.open("v").await;
            assert_blocks(&volume, expected).await;
            assert_eq!(read_everywhere(&life.open("s").await, 0, OBJECT).await, 1);
            life.delete("s").await;
            life.gc_idle().await;
            assert_blocks(&volume, expected).await;
            // The whole object masks what is below.
            life.snapshot("v", "t").await;
            volume.unmap(0, OBJECT).await.expect("ok");
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 0);
            life.delete("t").await;
            life.gc_idle().await;
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 0);
            volume.flush().await.expect("ok");
            life.gc_idle().await;
            assert_eq!(life.objects().await, []);
        });
        world.end_process();
        world.check();
    });
}

/// More than may lie below each other explicitly.
const NESTED: u64 = 13;

#[test]
fn partial_objects_nest_deeper_than_a_chain_may_be_and_all_their_blocks_are_there() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            for number in 0..NESTED {
                life.snapshot("v", &format!("s{number}")).await;
                let byte = number as u8 + 2;
                write(number, &volume, number * BLOCK, byte, BLOCK)
                    .await
                    .expect("ok");
            }
            let mut expected = [1; 16];
            (0..NESTED as usize).for_each(|n| expected[n] = n as u8 + 2);
            assert_blocks(&volume, expected).await;
            for step in 0..NESTED {
                // From the oldest, from the newest, or here and there.
                let number = match seed % 3 {
                    0 => step,
                    1 => NESTED - 1 - step,
                    _ => (step * 5 + seed) % NESTED,
                };
                life.delete(&format!("s{number}")).await;
                if seed % 5 > 0 {
                    life.gc_idle().await;
                }
                if step % 4 == 3 {
                    assert_blocks(&volume, expected).await;
                }
            }
            life.gc_idle().await;
            assert_blocks(&volume, expected).await;
            volume.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.open("v").await;
            for n in 0..NESTED {
                let byte = read_everywhere(&volume, n * BLOCK, BLOCK).await;
                assert_eq!(u64::from(byte), n + 2);
            }
            life.gc_idle().await;
            assert_eq!(life.tree().await, [Some("v".to_string())]);
            life.delete("v").await;
            life.gc_idle().await;
            assert_eq!(life.objects().await, []);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn the_filler_takes_no_block_from_an_old_head_whose_write_has_not_ended() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = true;
        world.live_on(3, move |life| async move {
            let volume = filled(&life, seed).await;
            // On its own core, so that the home core does not hold the object for it.
            let away = u64::from(volume.home().id().0) + 1 + seed % 2;
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 1);
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let old = write(away, &volume, 15 * BLOCK, 2, BLOCK);
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            let making = {
                let (mapper, wanted) = (life.mapper.clone(), life.wanted(&[("v", "s")]));
                spawn(async move { mapper.create_snapshots(wanted).await })
            };
            sleep(SOON).await;
            // The new head has most of the object: the rest may be filled.
            write(seed, &volume, 0, 3, 14 * BLOCK).await.expect("ok");
            life.mapper.gc_run().await.expect("it begins");
            sleep(5 * SOON).await;
            life.chaos.release();
            old.await.expect("ok");
            making.await.expect("made");
            assert_eq!(read_everywhere(&volume, 15 * BLOCK, BLOCK).await, 2);
            life.gc_idle().await;
            let expected = |byte| {
                let mut blocks = [byte; 16];
                (blocks[14], blocks[15]) = (1, 2);
                blocks
            };
            assert_blocks(&volume, expected(3)).await;
            assert_blocks(&life.open("s").await, expected(1)).await;
            volume.flush().await.expect("ok");
        });
        world.lose_power();
        world.check();
        world.live(|life| async move {
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 15 * BLOCK, BLOCK).await, 2);
        });
    });
}

#[test]
fn objects_that_are_filled_while_they_are_written_lose_nothing() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = true;
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            for op in [Op::Read, Op::Write, Op::Sync] {
                life.chaos
                    .delay(op, Duration::ZERO..Duration::from_millis(1));
            }
            let load: Vec<_> = (0..4_u64)
                .map(|task| {
                    let volume = volume.clone();
                    spawn(async move {
                        for round in 0..4_u8 {
                            for n in 0..4 {
                                let at = (task * 4 + n) * BLOCK + u64::from(round % 2) * 512;
                                let len = if round % 2 == 0 { BLOCK } else { 512 };
                                let byte = 10 + round;
                                let core = task + n;
                                write(core, &volume, at, byte, len).await.expect("ok");
                                assert_eq!(read(core + 1, &volume, at, len).await, byte);
                            }
                        }
                    })
                })
                .collect();
            life.gc_idle().await;
            for task in load {
                task.await;
            }
            life.gc_idle().await;
            for block in 0..16 {
                let at = block * BLOCK;
                assert_eq!(read_everywhere(&volume, at, 512).await, 12);
                assert_eq!(read_everywhere(&volume, at + 512, 512).await, 13);
                assert_eq!(read_everywhere(&volume, at + 1024, BLOCK - 1024).await, 12);
            }
            assert_eq!(read_everywhere(&life.open("s").await, 0, OBJECT).await, 1);
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn readers_see_the_same_while_merges_move_the_pages_that_they_look_at() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        world.live_on(3, move |life| async move {
            let volume = life.create(seed.into(), "v", LARGE).await;
            // Who wrote an object last of the first so many: that of its number, or the first of all.
            let objects = [0, 1, 2, 3, 510, 511, 512, 513];
            let mut snapshots = Vec::new();
            for number in 0..8_u64 {
                for (place, object) in (0..).zip(objects) {
                    if number == 0 || place == number {
                        let (at, byte) = (object * OBJECT, number as u8 + 1);
                        let len = if number % 2 == 0 { OBJECT } else { BLOCK };
                        write(number, &volume, at, byte, len).await.expect("ok");
                    }
                }
                snapshots.push(life.snapshot("v", &format!("s{number}")).await);
            }
            life.chaos
                .delay(Op::Read, Duration::ZERO..Duration::from_micros(300));
            let done = Rc::new(Cell::new(false));
            let last = snapshots.pop().expect("eight");
            let readers: Vec<_> = (0..6_u64)
                .map(|task| {
                    let resource = if task % 2 == 0 { &volume } else { &last };
                    let (resource, done) = (resource.clone(), done.clone());
                    spawn(async move {
                        while !done.get() {
                            for (place, object) in (0..).zip(objects) {
                                let byte = read(task, &resource, object * OBJECT, BLOCK).await;
                                assert_eq!(u64::from(byte), place + 1, "object {object}");
                                let at = object * OBJECT + 5 * BLOCK;
                                let byte = read(task, &resource, at, 2 * BLOCK).await;
                                let whole = if place % 2 == 0 { place + 1 } else { 1 };
                                assert_eq!(u64::from(byte), whole, "object {object}");
                            }
                        }
                    })
                })
                .collect();
            for step in 0..7 {
                life.delete(&format!("s{}", (step * 3 + seed) % 7)).await;
                sleep(Duration::from_micros(seed * 13 % 700)).await;
            }
            life.gc_idle().await;
            done.set(true);
            for reader in readers {
                reader.await;
            }
            assert_eq!(life.tree().await.len(), 2);
        });
        end(&mut world, seed);
    });
}

#[test]
fn the_leak_scan_leaves_objects_that_were_just_created_alone() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        for life_number in 0..2 {
            world.live_on(some_cores(seed), move |life| async move {
                let volume = match life_number {
                    0 => life.create(seed.into(), "v", SIZE).await,
                    _ => life.open("v").await,
                };
                for op in [Op::List, Op::Write, Op::Delete, Op::Sync] {
                    life.chaos
                        .delay(op, Duration::ZERO..Duration::from_millis(2));
                }
                let scans = {
                    let mapper = life.mapper.clone();
                    spawn(async move {
                        for _ in 0..10 {
                            mapper.gc_run().await.expect("it begins");
                            sleep(Duration::from_micros(1700)).await;
                        }
                    })
                };
                // Created, not committed for long; unmapped and created again.
                for round in 0..3 {
                    let byte = life_number * 10 + round + 1;
                    for object in 0..8 {
                        let at = object * OBJECT;
                        write(object, &volume, at, byte, BLOCK).await.expect("ok");
                        if object % 3 == u64::from(round) {
                            volume.unmap(at, OBJECT).await.expect("ok");
                            write(object, &volume, at, byte, BLOCK).await.expect("ok");
                        }
                    }
                    if round == 1 {
                        life.snapshot("v", &format!("s{life_number}")).await;
                    }
                }
                scans.await;
                life.gc_idle().await;
                for object in 0..8 {
                    let found = read_everywhere(&volume, object * OBJECT, BLOCK).await;
                    assert_eq!(found, life_number * 10 + 3);
                }
                volume.flush().await.expect("ok");
            });
            world.lose_power();
            world.check();
        }
        world.live(|life| async move {
            let volume = life.open("v").await;
            for object in 0..8 {
                assert_eq!(byte_at(&volume, object * OBJECT, BLOCK).await, 13);
            }
        });
    });
}

#[test]
fn what_a_power_loss_left_unnamed_at_the_store_is_found_and_deleted() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.snapshot("v", "s").await;
            for object in 0..6 {
                write(object, &volume, object * OBJECT, 2, OBJECT)
                    .await
                    .expect("ok");
            }
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            life.gc_idle().await;
            let volume = life.open("v").await;
            let mut named = 1;
            for object in 0..6 {
                let byte = read_everywhere(&volume, object * OBJECT, OBJECT).await;
                named += usize::from(byte == 2);
            }
            assert_eq!(life.objects().await.len(), named);
            let status = life.mapper.gc_status().await.expect("it says");
            assert!(status.leaks.ended > 0 && !status.leaks.running);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn merges_and_deletions_that_are_cut_by_power_losses_are_taken_up() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.gc.fill = seed % 2 == 0;
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            for number in 0..6_u64 {
                life.snapshot("v", &format!("s{number}")).await;
                write(number, &volume, number * BLOCK, number as u8 + 2, BLOCK)
                    .await
                    .expect("ok");
                write(number, &volume, (number + 1) * OBJECT, 9, OBJECT)
                    .await
                    .expect("ok");
            }
            volume.flush().await.expect("ok");
            for number in 0..6 {
                life.delete(&format!("s{}", (number * 5 + seed) % 6)).await;
            }
        });
        let expected = ones_but(&[(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]);
        for round in 0..5 {
            world.lose_power();
            world.check();
            world.live_on(some_cores(seed + round), move |life| async move {
                let reading = spawn({
                    let volume = life.open("v").await;
                    async move { assert_blocks(&volume, expected).await }
                });
                sleep(Duration::from_micros(seed * 131 * round % 5000)).await;
                reading.await;
            });
        }
        world.lose_power();
        world.live_on(some_cores(seed), move |life| async move {
            life.gc_idle().await;
            assert_eq!(life.tree().await, [Some("v".to_string())]);
            let volume = life.open("v").await;
            assert_blocks(&volume, expected).await;
            let last = on(seed, &volume, |volume| async move {
                Ok(byte_at(&volume, OBJECT, 6 * OBJECT).await)
            });
            assert_eq!(last.await.expect("readable"), 9);
        });
        world.end_process();
        world.check();
    });
}

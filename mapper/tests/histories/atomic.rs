//! Operations that compare or merge and write as one, and what the map says is stored.

use crate::harness::{BLOCK, IO_TIMEOUT, OBJECT, World, blocks, byte_at, bytes_at, with_seeds};
use atoll_backends::ErrorKind as StoreError;
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::{ErrorKind, MapExtent, Segments};
use atoll_reactor::{Buf, SharedBuf, sleep, spawn};
use std::time::Duration;

/// 512-byte sectors that all hold `number`.
fn sectors(number: u64, len: u64) -> SharedBuf {
    let mut data = Buf::alloc(len as usize);
    for word in data.chunks_mut(8) {
        word.copy_from_slice(&number.to_le_bytes());
    }
    data.freeze()
}

fn segments(data: SharedBuf) -> Segments {
    Segments::from_iter([data])
}

#[test]
fn compare_and_write_writes_only_where_all_is_equal_and_tells_the_first_difference() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            // Over two objects of which none exists, not aligned to blocks.
            let (at, len) = (OBJECT - 1536, 3072);
            let first = volume
                .compare_and_write(at, blocks(0, len), blocks(5, len), false)
                .await;
            assert_eq!(first.expect("works"), None);
            assert_eq!(byte_at(&volume, at, len).await, 5);
            assert_eq!(byte_at(&volume, at - 512, 512).await, 0);
            assert_eq!(byte_at(&volume, at + len, 512).await, 0);
            for place in [0, 1, 511, 1535, 1536, len - 1] {
                let mut wrong = Buf::copy_of(&blocks(5, len));
                wrong[place as usize..].fill(6);
                let compared = volume
                    .compare_and_write(at, wrong.freeze(), blocks(7, len), true)
                    .await;
                assert_eq!(compared.expect("works"), Some(place));
                assert_eq!(byte_at(&volume, at, len).await, 5);
            }
            let second = volume
                .compare_and_write(at, blocks(5, len), blocks(8, len), true)
                .await;
            assert_eq!(second.expect("works"), None);
            assert_eq!(byte_at(&volume, at, len).await, 8);
        });
        world.lose_power();
        world.live(move |life| async move {
            let volume = life.open("v").await;
            let (at, len) = (OBJECT - 1536, 3072);
            assert_eq!(
                byte_at(&volume, at, len).await,
                8,
                "written with FUA before the crash"
            );
        });
        world.check();
    });
}

#[test]
fn of_many_that_compare_and_write_over_two_objects_every_success_counts_once() {
    const TASKS: u64 = 6;
    const ROUNDS: u64 = 5;
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            let blocks = 1 + seed % 3;
            // Some orders begin inside of a block, so that blocks are read, changed and written.
            let at = OBJECT - blocks * BLOCK + 512 * (seed % 2);
            let len = 2 * blocks * BLOCK;
            let tasks = (0..TASKS).map(|task| {
                let volume = volume.clone();
                spawn(async move {
                    for _ in 0..ROUNDS {
                        loop {
                            let now = bytes_at(&volume, at, 8).await;
                            let now = u64::from_le_bytes(now.try_into().expect("eight"));
                            let done = volume
                                .compare_and_write(
                                    at,
                                    sectors(now, len),
                                    sectors(now + 1, len),
                                    task % 3 == 0,
                                )
                                .await;
                            if done.expect("works").is_none() {
                                break;
                            }
                        }
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await;
            }
            let end = bytes_at(&volume, at, len).await;
            assert!(end == *sectors(TASKS * ROUNDS, len), "{:?}", &end[..8]);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn bits_that_many_lay_over_the_same_blocks_at_once_are_all_there() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            let tasks = (0..8_u64).map(|task| {
                let volume = volume.clone();
                spawn(async move {
                    // All cover the last block of one object and the first of the next.
                    let at = OBJECT - BLOCK - 512 * task;
                    let len = 2 * BLOCK + 1024 * task;
                    let data = segments(blocks(1 << task, len));
                    volume.or_write(at, data, task == 7).await.expect("works");
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await;
            }
            assert_eq!(byte_at(&volume, OBJECT - BLOCK, 2 * BLOCK).await, 0xFF);
            assert_eq!(byte_at(&volume, OBJECT - BLOCK - 512, 512).await, 0xFE);
            assert_eq!(byte_at(&volume, OBJECT + BLOCK + 6 * 512, 512).await, 0x80);
            assert_eq!(byte_at(&volume, OBJECT + BLOCK + 7 * 512, 512).await, 0);
            // Ranges inside of one object that begin at different blocks and share one.
            let written = volume.write(4 * OBJECT, blocks(0, OBJECT), false);
            written.await.expect("ok");
            let tasks = (0..8_u64).map(|task| {
                let volume = volume.clone();
                spawn(async move {
                    let data = segments(blocks(1 << task, 8 * BLOCK));
                    let at = 4 * OBJECT + task * BLOCK;
                    volume.or_write(at, data, false).await.expect("works");
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await;
            }
            assert_eq!(byte_at(&volume, 4 * OBJECT + 7 * BLOCK, BLOCK).await, 0xFF);
            // In parts, as a large one comes.
            let parts = Segments::from_iter([blocks(1, OBJECT), blocks(2, OBJECT)]);
            volume
                .or_write(2 * OBJECT, parts, false)
                .await
                .expect("works");
            assert_eq!(byte_at(&volume, 2 * OBJECT, OBJECT).await, 1);
            assert_eq!(byte_at(&volume, 3 * OBJECT, OBJECT).await, 2);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn no_write_comes_between_the_look_and_the_write_of_a_compare_and_write() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            let (at, len) = (OBJECT - BLOCK, 3 * BLOCK);
            // Not the first of the blocks in its object.
            let inside = OBJECT + BLOCK;
            volume.write(at, blocks(1, len), false).await.expect("ok");
            life.chaos.fail_call(Op::Read, 1, Fault::Hang);
            let atomic = {
                let volume = volume.clone();
                spawn(async move {
                    volume
                        .compare_and_write(at, blocks(1, len), blocks(2, len), false)
                        .await
                })
            };
            sleep(Duration::from_millis(1)).await;
            assert_eq!(life.chaos.hanging(), 1);
            // A part of a block, a whole one, zeros, an unmapping: none gets in between.
            let other = {
                let volume = volume.clone();
                spawn(async move {
                    match seed % 4 {
                        0 => volume.write(inside, blocks(3, 512), false).await,
                        1 => volume.write(inside, blocks(3, BLOCK), false).await,
                        2 => volume.write_zeroes(inside, BLOCK, false, false).await,
                        _ => volume.unmap(OBJECT, OBJECT).await,
                    }
                })
            };
            sleep(Duration::from_secs(1)).await;
            life.chaos.release();
            assert_eq!(atomic.await.expect("works"), None);
            other.await.expect("works");
            assert_eq!(byte_at(&volume, at, BLOCK).await, 2);
            let last = if seed % 4 < 2 { 3 } else { 0 };
            assert_eq!(byte_at(&volume, inside, 512).await, last);
        });
    });
}

#[test]
fn a_compare_and_write_waits_for_a_write_that_hangs_whichever_core_it_runs_on() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            for object in 0..2 {
                let written = volume.write(object * OBJECT, blocks(1, OBJECT), false);
                written.await.expect("ok");
            }
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            // Where the home is another core, this one writes whole blocks itself.
            let first = {
                let volume = volume.clone();
                spawn(async move { volume.write(OBJECT, blocks(2, BLOCK), false).await })
            };
            sleep(Duration::from_millis(1)).await;
            assert_eq!(life.chaos.hanging(), 1);
            let (at, len) = (OBJECT - BLOCK, 2 * BLOCK);
            let compare = [blocks(1, BLOCK), blocks(2, BLOCK)].map(|part| part.to_vec());
            let atomic = {
                let volume = volume.clone();
                let compare = SharedBuf::copy_of(&compare.concat());
                spawn(async move {
                    volume
                        .compare_and_write(at, compare, blocks(3, len), false)
                        .await
                })
            };
            sleep(Duration::from_secs(1)).await;
            life.chaos.release();
            first.await.expect("works");
            assert_eq!(atomic.await.expect("works"), None, "it saw the write");
            assert_eq!(byte_at(&volume, at, len).await, 3);
        });
    });
}

#[test]
fn an_atomic_write_that_was_given_up_never_lands_over_a_later_write() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            if seed % 3 == 0 {
                volume.write(0, blocks(0, OBJECT), false).await.expect("ok");
            }
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let given_up = match seed % 4 < 2 {
                true => volume
                    .compare_and_write(0, blocks(0, BLOCK), blocks(1, BLOCK), false)
                    .await
                    .map(drop),
                false => volume.or_write(0, segments(blocks(1, BLOCK)), false).await,
            };
            assert_eq!(given_up.expect_err("it hangs").kind(), ErrorKind::Timeout);
            let later = {
                let volume = volume.clone();
                spawn(async move { volume.write(0, blocks(2, BLOCK), false).await })
            };
            sleep(IO_TIMEOUT / 2).await;
            life.chaos.release();
            later.await.expect("the first has ended");
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 2);
        });
    });
}

#[test]
fn a_compare_and_write_that_cannot_read_writes_nothing() {
    with_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            volume.write(0, blocks(1, BLOCK), false).await.expect("ok");
            life.chaos
                .fail_call(Op::Read, 1, Fault::Error(StoreError::Io));
            let failed = volume
                .compare_and_write(0, blocks(1, BLOCK), blocks(2, BLOCK), false)
                .await;
            assert_eq!(failed.expect_err("it fails").kind(), ErrorKind::Io);
            assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
            let unequal = volume
                .compare_and_write(0, blocks(1, BLOCK), blocks(2, 2 * BLOCK), false)
                .await;
            assert_eq!(unequal.expect_err("lengths").kind(), ErrorKind::Invalid);
            let beyond = volume
                .compare_and_write(1 << 20, blocks(0, 512), blocks(2, 512), false)
                .await;
            assert_eq!(beyond.expect_err("the end").kind(), ErrorKind::OutOfRange);
            let beyond = volume.or_write((1 << 20) - 512, segments(blocks(2, 1024)), false);
            assert_eq!(
                beyond.await.expect_err("the end").kind(),
                ErrorKind::OutOfRange
            );
        });
    });
}

#[test]
fn the_map_tells_what_is_stored_by_objects_and_by_the_blocks_of_partial_ones() {
    with_seeds(6, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let size = 16 * OBJECT;
            let volume = life.create(seed.into(), "v", size).await;
            let extent = |len, mapped| MapExtent { len, mapped };
            let all = volume.map_status(0, 9).await.expect("works");
            assert_eq!(all, [extent(size, false)]);
            volume
                .write(2 * OBJECT, blocks(1, OBJECT), false)
                .await
                .expect("ok");
            volume
                .write(4 * OBJECT + BLOCK, blocks(1, 512), false)
                .await
                .expect("ok");
            let all = volume.map_status(512, 9).await.expect("works");
            let zeroed = seed.is_multiple_of(2);
            let expected = match zeroed {
                // The store keeps whole objects.
                true => vec![
                    extent(2 * OBJECT - 512, false),
                    extent(OBJECT, true),
                    extent(OBJECT, false),
                    extent(OBJECT, true),
                    extent(11 * OBJECT, false),
                ],
                false => vec![
                    extent(2 * OBJECT - 512, false),
                    extent(OBJECT, true),
                    extent(OBJECT + BLOCK, false),
                    extent(BLOCK, true),
                    extent(12 * OBJECT - 2 * BLOCK, false),
                ],
            };
            assert_eq!(all, expected);
            let cut = volume.map_status(512, 2).await.expect("works");
            assert_eq!(cut, expected[..2]);
            let inside = volume.map_status(3 * OBJECT - 512, 1).await.expect("works");
            assert_eq!(inside, [extent(512, true)]);
            volume.unmap(2 * OBJECT, OBJECT).await.expect("ok");
            let first = volume.map_status(0, 1).await.expect("works");
            let absent = if zeroed {
                4 * OBJECT
            } else {
                4 * OBJECT + BLOCK
            };
            assert_eq!(first, [extent(absent, false)]);
            let beyond = volume.map_status(size, 1).await;
            assert_eq!(beyond.expect_err("the end").kind(), ErrorKind::OutOfRange);
        });
    });
}

#[test]
fn one_look_at_the_map_of_a_huge_volume_is_short_and_the_next_goes_on_from_there() {
    let mut world = World::new(2);
    world.live(move |life| async move {
        let size = 1 << 40;
        let volume = life.create(1, "v", size).await;
        let extents = volume.map_status(0, 4).await.expect("works");
        assert_eq!(extents.len(), 1);
        let reached = extents[0].len;
        assert!(reached > 0 && reached < size && !extents[0].mapped);
        let next = volume.map_status(reached, 4).await.expect("works");
        assert!(next[0].len > 0);
        let room = volume.pool_capacity().await.expect("works");
        assert!(room.available <= room.total && room.total == 1 << 30);
    });
}

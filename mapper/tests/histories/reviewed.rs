//! Orders of events that a reader of the engine found, each of which once gave wrong data or could not be repaired: verbs
//! that end half done, and what comes between their parts.

use crate::harness::{
    BLOCK, IO_TIMEOUT, Life, OBJECT, World, blocks, name, read_everywhere, some_cores, with_seeds,
    write,
};
use atoll_backends::ErrorKind as StoreError;
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::meta::sim::CommitFault;
use atoll_mapper::{ErrorKind, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

const SEEDS: u64 = 30;
const SIZE: u64 = 2 << 20;
const SOON: Duration = Duration::from_secs(1);
/// Longer than a change stays without being written back.
const WRITTEN_BACK: Duration = Duration::from_secs(8);

/// Leaves the life as a clean stop, a kill or a power loss does.
fn end(world: &mut World, seed: u64) {
    match seed % 3 {
        0 => world.end_process(),
        _ => world.lose_power(),
    }
    world.check();
}

/// A volume `v` with an object of each of these bytes, from the first index on.
async fn filled(life: &Life, seed: u64, bytes: &[u8]) -> VolumeHandle {
    let volume = life.create(seed.into(), "v", SIZE).await;
    for (index, byte) in (0..).zip(bytes) {
        let data = blocks(*byte, OBJECT);
        volume.write(index * OBJECT, data, false).await.expect("ok");
    }
    volume.flush().await.expect("ok");
    volume
}

async fn assert_objects(volume: &VolumeHandle, bytes: &[u8]) {
    for (index, byte) in (0..).zip(bytes) {
        let found = read_everywhere(volume, index * OBJECT, OBJECT).await;
        assert_eq!(found, *byte, "object {index}");
    }
}

#[test]
fn a_snapshot_between_two_parts_of_a_flattening_loses_nothing() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        let bytes: Vec<u8> = (1..=12).collect();
        let expected = bytes.clone();
        world.live_on(some_cores(seed), move |life| async move {
            filled(&life, seed, &bytes).await;
            life.snapshot("v", "s").await;
            let clone = life.clone_of("s", "c", None).await;
            let slow = Duration::from_millis(60)..Duration::from_millis(70);
            life.chaos.delay(Op::Read, slow);
            let (mut from, mut parts) = (0, 0);
            loop {
                let part = life.mapper.flatten(name("c"), from).await.expect("ok");
                if part.ended {
                    break;
                }
                parts += 1;
                match seed % 3 {
                    0 if parts == 1 => drop(life.snapshot("c", "t").await),
                    1 if parts == 1 => life.rollback("c", "s").await,
                    // Nobody says where it was.
                    2 => from = u64::MAX / 2,
                    _ => {}
                }
                from = from.max(part.done);
            }
            assert!(parts > 0, "it was done in one go");
            life.chaos.heal();
            assert_objects(&clone, &bytes).await;
            life.gc_idle().await;
            assert_objects(&clone, &bytes).await;
            clone.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            assert_objects(&life.open("c").await, &expected).await;
        });
    });
}

#[test]
fn what_is_unmapped_while_a_row_of_the_head_is_written_gets_another_name() {
    with_seeds(10 * SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1, 2]).await;
            let late = Duration::from_secs(2)..Duration::from_secs(3);
            let mapper = life.mapper.clone();
            if seed % 2 == 1 {
                life.snapshot("v", "s").await;
                // The head is to have an object of its own.
                write(seed, &volume, 0, 3, OBJECT).await.expect("ok");
                volume.flush().await.expect("ok");
            }
            life.chaos.delay(Op::Delete, late);
            let changing = spawn(async move {
                if seed % 2 == 0 {
                    mapper.resize_volume(name("v"), SIZE / 2).await?;
                    return Ok(());
                }
                let mut from = 0;
                loop {
                    let part = mapper.flatten(name("v"), from).await?;
                    if part.ended {
                        return Ok::<(), atoll_mapper::Error>(());
                    }
                    from = part.done;
                }
            });
            sleep(Duration::from_micros(seed * 7919 % 12_000)).await;
            volume.unmap(0, OBJECT).await.expect("ok");
            sleep(Duration::from_micros(seed * 31 % 2_000)).await;
            changing.await.expect("ok");
            sleep(Duration::from_micros(seed * 57 % 2_000)).await;
            write(seed, &volume, 0, 9, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            sleep(IO_TIMEOUT).await;
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 9);
        });
        end(&mut world, seed);
    });
}

#[test]
fn a_sync_that_fails_in_the_first_flush_after_a_cut_leaves_the_volume_marked_and_the_tree_whole() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1]).await;
            life.snapshot("v", "before").await;
            write(seed, &volume, 0, 2, BLOCK).await.expect("ok");
            life.chaos
                .fail_call(Op::Sync, 1, Fault::Error(StoreError::Io));
            let wanted = life.wanted(&[("v", "s")]);
            let made = life.mapper.create_snapshots(wanted).await;
            made.expect_err("what it shows may be lost");
            let seen = volume.read(0, BLOCK).await.expect_err("faulted");
            assert_eq!(seen.kind(), ErrorKind::Faulted);
            if seed % 5 == 0 {
                life.delete("v").await;
                life.gc_idle().await;
            }
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            if seed % 5 != 0 {
                assert!(life.mapper.volume(name("v")).await.expect("there").faulted);
            }
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_copy_that_is_given_up_half_way_leaves_no_entry_without_its_ref() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1, 2, 3, 4]).await;
            let other = life.create(seed.wrapping_add(1).into(), "w", SIZE).await;
            life.snapshot("v", "s").await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(seed, &volume, 2 * OBJECT, 9, BLOCK);
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            let copy = life
                .mapper
                .copy_range(name("v"), 0, name("w"), 0, 4 * OBJECT);
            copy.await.expect_err("an object is held");
            life.chaos.release();
            hung.await.expect_err("it hung");
            life.delete("s").await;
            life.gc_idle().await;
            assert_objects(&volume, &[1, 2]).await;
            volume.flush().await.expect("ok");
            other.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            let volume = life.open("v").await;
            assert_objects(&volume, &[1, 2]).await;
            let copied = life
                .mapper
                .copy_range(name("v"), 0, name("w"), 0, 4 * OBJECT);
            copied.await.expect("nothing is held");
            assert_objects(&life.open("w").await, &[1, 2]).await;
            life.delete("v").await;
            life.gc_idle().await;
            assert_objects(&life.open("w").await, &[1, 2]).await;
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_node_whose_last_write_ended_after_its_cut_was_given_up_is_merged_with_that_write() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            sleep(WRITTEN_BACK).await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(seed, &volume, 3 * OBJECT, 5, OBJECT);
            sleep(SOON).await;
            let wanted = life.wanted(&[("v", "s")]);
            let mapper = life.mapper.clone();
            let making = spawn(async move { mapper.create_snapshots(wanted).await });
            sleep(SOON).await;
            // The tree is durable before the node has drained.
            write(seed, &volume, 0, 1, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            making.await.expect_err("a write hangs");
            life.mapper.gc_run().await.expect("begun");
            sleep(Duration::from_millis(seed * 17 % 500)).await;
            life.chaos.release();
            hung.await.expect_err("it hung");
            sleep(Duration::from_millis(1)).await;
            let seen = read_everywhere(&volume, 3 * OBJECT, OBJECT).await;
            assert_eq!(seen, 5);
            life.gc_idle().await;
            assert_objects(&volume, &[1, 0, 0, 5]).await;
            assert_eq!(life.tree().await, [Some("v".to_string())]);
            volume.flush().await.expect("ok");
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            assert_objects(&life.open("v").await, &[1, 0, 0, 5]).await;
        });
    });
}

#[test]
fn nodes_above_a_cut_that_is_not_durable_yet_are_merged_after_it() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        // Pages take their time.
        world.gc.max_iops = 4;
        const PAGE: u64 = 512 * OBJECT;
        world.live_on(1, move |life| async move {
            let volume = life.create(seed.into(), "v", 20 * PAGE).await;
            for page in 0..10 {
                let (at, data) = (page * PAGE, blocks(page as u8 + 1, OBJECT));
                volume.write(at, data, false).await.expect("ok");
            }
            life.snapshot("v", "s").await;
            volume
                .write(OBJECT, blocks(77, OBJECT), true)
                .await
                .expect("ok");
            sleep(WRITTEN_BACK).await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(0, &volume, OBJECT, 78, BLOCK);
            sleep(SOON).await;
            life.delete("s").await;
            let wanted = life.wanted(&[("v", "t")]);
            let mapper = life.mapper.clone();
            let making = spawn(async move { mapper.create_snapshots(wanted).await });
            sleep(Duration::from_secs(2)).await;
            // No flush makes it durable; what frees is taken.
            life.meta.set_full(true);
            making.await.expect_err("a write hangs");
            life.chaos.release();
            hung.await.expect_err("it hung");
            sleep(Duration::from_millis(1000 + seed * 83 % 5000)).await;
            life.meta.set_full(false);
            sleep(WRITTEN_BACK).await;
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            let volume = life.open("v").await;
            for page in 0..10 {
                let found = read_everywhere(&volume, page * PAGE, OBJECT).await;
                assert_eq!(found, page as u8 + 1);
            }
            life.mapper.stop().await.expect("ok");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_verb_waits_for_rows_of_a_cut_that_are_being_committed() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1]).await;
            write(seed, &volume, 0, 2, BLOCK).await.expect("ok");
            life.chaos.fail_call(Op::Sync, 1, Fault::Hang);
            let wanted = life.wanted(&[("v", "s")]);
            let made = life.mapper.create_snapshots(wanted).await;
            made.expect_err("its flush hangs");
            let mapper = life.mapper.clone();
            let changing = spawn(async move {
                match seed % 3 {
                    0 => mapper.rename_volume(name("v"), name("u")).await,
                    1 => mapper.protect(name("v"), true).await,
                    _ => mapper.resize_volume(name("v"), 2 * SIZE).await,
                }
            });
            sleep(SOON).await;
            life.chaos.release();
            changing.await.expect("all went on");
            volume.flush().await.expect("ok");
            life.gc_idle().await;
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            let text = if seed % 3 == 0 { "u" } else { "v" };
            let volume = life.open(text).await;
            assert_eq!(volume.size(), if seed % 3 == 2 { 2 * SIZE } else { SIZE });
            let info = life.mapper.volume(name(text)).await.expect("there");
            assert_eq!(info.row.protected, seed % 3 == 1);
        });
    });
}

#[test]
fn a_ref_whose_last_name_goes_while_it_is_copied_is_kept_for_the_copy() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1, 2, 3]).await;
            let target = life.create(seed.wrapping_add(1).into(), "w", SIZE).await;
            life.create(seed.wrapping_add(2).into(), "x", SIZE).await;
            let copied = life.mapper.copy_range(name("v"), 0, name("x"), 0, OBJECT);
            copied.await.expect("ok");
            life.delete("x").await;
            life.gc_idle().await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(seed, &volume, 2 * OBJECT, 9, BLOCK);
            sleep(SOON).await;
            let mapper = life.mapper.clone();
            let copying = spawn(async move {
                let copy = mapper.copy_range(name("v"), 0, name("w"), 0, 3 * OBJECT);
                copy.await
            });
            sleep(SOON).await;
            volume.unmap(0, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            life.mapper.gc_run().await.expect("begun");
            sleep(SOON).await;
            life.chaos.release();
            hung.await.expect("it was released in time");
            copying.await.expect("copied");
            life.gc_idle().await;
            assert_objects(&target, &[1, 2]).await;
        });
        end(&mut world, seed);
        world.live(move |life| async move {
            assert_objects(&life.open("w").await, &[1, 2]).await;
        });
    });
}

#[test]
fn a_merge_whose_commit_is_refused_is_taken_up_where_it_was() {
    with_seeds(3 * SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1, 2, 3, 4]).await;
            life.snapshot("v", "s").await;
            write(seed, &volume, 0, 5, OBJECT).await.expect("ok");
            write(seed, &volume, OBJECT, 6, BLOCK).await.expect("ok");
            let later = life.snapshot("v", "t").await;
            assert_eq!(read_everywhere(&later, 0, OBJECT).await, 5);
            let nth = 1 + seed / 2 % 6;
            let refused = CommitFault::Refuse(ErrorKind::Busy);
            life.meta.fault_commit(nth, refused);
            while life.mapper.delete_volume(name("s")).await.is_err() {}
            life.gc_idle().await;
            assert_objects(&later, &[5]).await;
            assert_eq!(read_everywhere(&later, OBJECT, BLOCK).await, 6);
            assert_eq!(
                read_everywhere(&later, OBJECT + BLOCK, OBJECT - BLOCK).await,
                2
            );
            assert_eq!(read_everywhere(&later, 2 * OBJECT, OBJECT).await, 3);
            assert_eq!(life.tree().await.len(), 2);
            // If it was not refused before, it is now, and not at the stop.
            for _ in 0..nth {
                let _refused = life.mapper.protect(name("t"), false).await;
            }
            life.mapper.stop().await.expect("ok");
        });
        world.end_process();
        world.check();
        world.check_collected();
    });
}

#[test]
fn a_faulted_volume_does_not_keep_the_collector_from_others() {
    with_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed, &[1]).await;
            life.snapshot("v", "s").await;
            life.create(seed.wrapping_add(1).into(), "w", SIZE).await;
            life.snapshot("w", "t").await;
            write(seed, &volume, 0, 2, BLOCK).await.expect("ok");
            life.chaos
                .fail_call(Op::Sync, 1, Fault::Error(StoreError::Io));
            volume.flush().await.expect_err("its sync fails");
            life.delete("s").await;
            life.delete("t").await;
            sleep(2 * IO_TIMEOUT).await;
            let tree = life.tree().await;
            assert_eq!(tree.len(), 3, "{tree:?}");
        });
        world.end_process();
        world.check();
    });
}

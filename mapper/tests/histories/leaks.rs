//! Objects that nothing names: the leak scan deletes all of them, and never one that somebody names or is about to.

use crate::harness::{BLOCK, Life, OBJECT, World, blocks, byte_at, name, with_seeds};
use atoll_backends::chaos::{Fault, Op};
use atoll_backends::{ErrorKind as StoreError, Generation, ObjectId, ObjectIndex, WriteMode};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{GcStatus, NewClone, NewSnapshot, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

/// More looks than the collector needs for anything here.
const PATIENCE: usize = 20_000;

async fn status(life: &Life) -> GcStatus {
    life.mapper.gc_status().await.expect("told")
}

/// Waits until the collector has nothing to do any more.
async fn quiet(life: &Life) -> GcStatus {
    for _ in 0..PATIENCE {
        let status = status(life).await;
        if !status.running {
            return status;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not end: {:?}", status(life).await);
}

/// Waits until so many scans have ended.
async fn scanned(life: &Life, scans: u64) {
    for _ in 0..PATIENCE {
        if status(life).await.leaks.ended >= scans {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not end: {:?}", status(life).await);
}

async fn snapshot(life: &Life, number: u128, volume: &str, text: &str) {
    let new = NewSnapshot {
        id: ResourceId(number.to_be_bytes()),
        volume: name(volume),
        name: name(text),
    };
    let made = life.mapper.create_snapshots(vec![new]).await;
    made.expect("a snapshot");
}

async fn clone(life: &Life, number: u128, snapshot: &str, text: &str) -> VolumeHandle {
    let new = NewClone {
        id: ResourceId(number.to_be_bytes()),
        snapshot: name(snapshot),
        name: name(text),
        size: None,
    };
    life.mapper.create_clone(new).await.expect("a clone");
    life.open(text).await
}

async fn write(volume: &VolumeHandle, offset: u64, byte: u8, len: u64) {
    let written = volume.write(offset, blocks(byte, len), false).await;
    written.expect("ok");
}

/// Puts objects into the pool that no map names.
async fn plant(life: &Life, generation: u64, indexes: impl IntoIterator<Item = u64>) {
    let store = life.chaos.inner().attach().await.expect("it is there");
    for index in indexes {
        let generation = Generation::new(generation).expect("52 bits");
        let id = ObjectId::new(generation, ObjectIndex::new(index).expect("40 bits"));
        let written = store
            .write(id, 0, blocks(1, BLOCK), WriteMode::Create)
            .await;
        written.expect("room");
        store.sync(&[id]).await.expect("synced");
    }
}

/// Objects that a check finds leaked; nothing else is wrong.
fn leaked(world: &mut World) -> u64 {
    let report = world.report();
    assert!(report.is_clean(), "{:#?}", report.findings);
    report.totals.leaked
}

#[test]
fn what_a_crash_kept_from_being_committed_is_deleted_by_the_next_start() {
    let mut all = 0;
    with_seeds(80, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 4 << 20).await;
            for index in 0..4 {
                write(&volume, index * OBJECT, 1, OBJECT).await;
            }
            snapshot(&life, 1000, "v", "s").await;
            let other = clone(&life, 1001, "s", "c").await;
            write(&volume, OBJECT, 2, BLOCK).await;
            volume.flush().await.expect("ok");
            other.flush().await.expect("ok");
            // Never committed: partial objects, complete ones, of both heads.
            write(&volume, 2 * OBJECT, 3, BLOCK).await;
            write(&volume, 6 * OBJECT, 3, OBJECT).await;
            for index in 8..12 + seed % 8 {
                write(&other, index * OBJECT, 3, BLOCK).await;
            }
        });
        match seed % 3 {
            0 => world.end_process(),
            _ => world.lose_power(),
        }
        let before = leaked(&mut world);
        all += before;
        if seed.is_multiple_of(3) {
            assert_eq!(before, 6 + seed % 8, "a kill undoes nothing at the store");
        }
        world.live(move |life| async move {
            let status = quiet(&life).await;
            assert_eq!((status.leaks.found, status.leaks.ended), (before, 1));
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 0, OBJECT).await, 1);
            assert_eq!(byte_at(&volume, OBJECT, BLOCK).await, 2);
            assert_eq!(byte_at(&volume, OBJECT + BLOCK, OBJECT - BLOCK).await, 1);
            assert_eq!(byte_at(&volume, 2 * OBJECT, 2 * OBJECT).await, 1);
            let other = life.open("c").await;
            assert_eq!(byte_at(&other, 0, 4 * OBJECT).await, 1);
            assert_eq!(byte_at(&other, 8 * OBJECT, 16 * OBJECT).await, 0);
            life.mapper.stop().await.expect("stops");
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
        assert_eq!(world.report().totals.pending, 0);
        // Nothing of it was lost by a clean stop, and nothing is looked for after one.
        world.live(|life| async move {
            assert_eq!(quiet(&life).await.leaks.ended, 0);
        });
    });
    assert!(all > 0, "no crash left anything");
}

#[test]
fn a_power_loss_during_the_deletion_of_leaked_objects_only_repeats_it() {
    with_seeds(40, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 4 << 20).await;
            write(&volume, 0, 1, BLOCK).await;
            volume.flush().await.expect("ok");
            plant(&life, 900, 0..40).await;
        });
        for life in 0..4 {
            world.lose_power();
            world.check();
            world.chaos.delay(
                Op::Delete,
                Duration::from_millis(1)..Duration::from_millis(30),
            );
            let pause = Duration::from_millis((seed * 7 + life * 13) % 60);
            world.live(move |_| async move { sleep(pause).await });
        }
        world.lose_power();
        world.live(|life| async move {
            quiet(&life).await;
            assert_eq!(byte_at(&life.open("v").await, 0, BLOCK).await, 1);
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn nothing_is_lost_of_what_is_written_while_leaked_objects_are_looked_for() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        let clean = seed.is_multiple_of(2);
        world.live(move |life| async move {
            for (number, text) in [(seed, "a"), (seed + 1, "b")] {
                let volume = life.create(number.into(), text, 4 << 20).await;
                write(&volume, 0, 1, BLOCK).await;
                volume.flush().await.expect("ok");
            }
            plant(&life, 900, 0..64).await;
            if clean {
                // Then both go on in the generation that they have.
                life.mapper.stop().await.expect("stops");
            }
        });
        match clean {
            true => world.end_process(),
            false => world.lose_power(),
        }
        let delays = Duration::ZERO..Duration::from_millis(5);
        world.chaos.delay(Op::List, delays.clone());
        world.chaos.delay(Op::Write, delays);
        world.live(move |life| async move {
            life.mapper.gc_run().await.expect("begins");
            let mut writing = Vec::new();
            for text in ["a", "b"] {
                let volume = life.open(text).await;
                writing.push(spawn(async move {
                    for index in 1..60 {
                        let len = if index % 3 == 0 { OBJECT } else { BLOCK };
                        write(&volume, index * OBJECT, 2, len).await;
                        if (index + seed) % 8 == 0 {
                            volume.flush().await.expect("ok");
                        }
                    }
                    volume.flush().await.expect("ok");
                }));
            }
            for _ in 0..8 {
                life.mapper.gc_run().await.expect("begins");
                sleep(Duration::from_millis(10)).await;
            }
            for task in writing {
                task.await;
            }
            let status = quiet(&life).await;
            assert!(status.leaks.ended >= 1, "{status:?}");
            assert_eq!(status.leaks.found, 64);
        });
        // Some of the deletions may be undone.
        world.lose_power();
        world.check();
        world.live(|life| async move {
            quiet(&life).await;
            for text in ["a", "b"] {
                let volume = life.open(text).await;
                assert_eq!(byte_at(&volume, 0, BLOCK).await, 1);
                for index in 1..60 {
                    assert_eq!(byte_at(&volume, index * OBJECT, BLOCK).await, 2, "{index}");
                }
            }
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn an_object_that_a_slow_write_creates_in_a_generation_that_its_head_has_given_up_is_no_leak() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 4 << 20).await;
            write(&volume, 0, 1, OBJECT).await;
            life.mapper.stop().await.expect("stops");
        });
        world.end_process();
        world.live(move |life| async move {
            let volume = life.open("v").await;
            // Goes on in the generation that the clean stop left; the object is there some time before the answer.
            life.chaos
                .delay(Op::Write, Duration::from_secs(20)..Duration::from_secs(25));
            let slow = {
                let volume = volume.clone();
                spawn(async move { write(&volume, 5 * OBJECT, 2, OBJECT).await })
            };
            sleep(Duration::from_millis(1)).await;
            life.chaos.heal();
            // A failure to create another one makes the head give the generation up.
            life.chaos
                .fail_call(Op::Write, 1, Fault::Error(StoreError::Io));
            let failed = volume.write(6 * OBJECT, blocks(3, OBJECT), false).await;
            failed.expect_err("injected");
            write(&volume, 6 * OBJECT, 4, OBJECT).await;
            volume.flush().await.expect("ok");
            let scans = 6;
            for scan in 1..=scans {
                life.mapper.gc_run().await.expect("begins");
                scanned(&life, scan).await;
                sleep(Duration::from_secs(3)).await;
            }
            slow.await;
            volume.flush().await.expect("ok");
            quiet(&life).await;
            assert_eq!(byte_at(&volume, 5 * OBJECT, OBJECT).await, 2);
        });
        world.lose_power();
        world.check();
        world.live(|life| async move {
            let volume = life.open("v").await;
            quiet(&life).await;
            assert_eq!(byte_at(&volume, 0, OBJECT).await, 1);
            assert_eq!(byte_at(&volume, 5 * OBJECT, OBJECT).await, 2);
            assert_eq!(byte_at(&volume, 6 * OBJECT, OBJECT).await, 4);
        });
    });
}

#[test]
fn what_merges_deletions_and_rollbacks_move_while_leaked_objects_are_looked_for_stays() {
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 2 << 20).await;
            for index in 0..16 {
                write(&volume, index * OBJECT, 1, OBJECT).await;
            }
            for cut in 2..7_u8 {
                snapshot(&life, 1000 + u128::from(cut), "v", &format!("s{cut}")).await;
                for index in 0..16 {
                    if (index + u64::from(cut)) % 3 == 0 {
                        let block = u64::from(cut) * BLOCK;
                        write(&volume, index * OBJECT + block, cut, BLOCK).await;
                    }
                }
            }
            let other = clone(&life, 1100, "s4", "c").await;
            write(&other, 0, 9, BLOCK).await;
            volume.flush().await.expect("ok");
            other.flush().await.expect("ok");
            let copy = life.create(seed.wrapping_add(1).into(), "d", 2 << 20).await;
            let (from, to, len) = (name("c"), name("d"), 8 * OBJECT);
            let copied = life.mapper.copy_range(from, 0, to, 0, len).await;
            assert!(copied.expect("copied").shared > 0);
            write(&copy, 3 * OBJECT, 7, BLOCK).await;
            copy.flush().await.expect("ok");
            plant(&life, 900, 0..30).await;
        });
        world.lose_power();
        world
            .chaos
            .delay(Op::List, Duration::ZERO..Duration::from_millis(40));
        world
            .chaos
            .delay(Op::Write, Duration::ZERO..Duration::from_millis(5));
        world.live(move |life| async move {
            life.open("v").await;
            if seed.is_multiple_of(2) {
                let rolled = life.mapper.rollback(name("v"), name("s6")).await;
                rolled.expect("rolled back");
            }
            for text in ["s3", "s5", "s2"] {
                life.mapper.delete_volume(name(text)).await.expect("gone");
                life.mapper.gc_run().await.expect("begins");
                sleep(Duration::from_millis(seed % 50)).await;
            }
            let volume = life.open("v").await;
            write(&volume, 15 * OBJECT + 9 * BLOCK, 8, BLOCK).await;
            volume.flush().await.expect("ok");
            let status = quiet(&life).await;
            assert_eq!(status.leaks.found, 30);
            assert!(status.merged_nodes >= 2, "{status:?}");
        });
        world.lose_power();
        world.check();
        world.live(move |life| async move {
            quiet(&life).await;
            let expect = async |text: &str, last: u8| {
                let resource = life.open(text).await;
                for index in 0..15 {
                    for block in 1..7_u64 {
                        let cut = block as u8;
                        let written = (2..=last).contains(&cut) && (index + block) % 3 == 0;
                        let wanted = if written { cut } else { 1 };
                        let at = index * OBJECT + block * BLOCK;
                        assert_eq!(byte_at(&resource, at, BLOCK).await, wanted, "{text} {at}");
                    }
                }
            };
            // The last writes came after the last cut: a rollback drops them.
            expect("v", if seed.is_multiple_of(2) { 5 } else { 6 }).await;
            expect("s6", 5).await;
            expect("s4", 3).await;
            expect("c", 3).await;
            assert_eq!(byte_at(&life.open("c").await, 0, BLOCK).await, 9);
            let copy = life.open("d").await;
            assert_eq!(byte_at(&copy, 0, BLOCK).await, 9);
            assert_eq!(byte_at(&copy, 3 * OBJECT, BLOCK).await, 7);
            for index in 0..8 {
                let at = index * OBJECT + BLOCK;
                assert_eq!(byte_at(&copy, at, BLOCK).await, 1, "{index}");
            }
            let volume = life.open("v").await;
            assert_eq!(byte_at(&volume, 15 * OBJECT + 9 * BLOCK, BLOCK).await, 8);
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn more_leaked_objects_than_fit_into_one_window_are_all_found() {
    with_seeds(6, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 40 << 20).await;
            // A whole page, of one generation where the pool zeroes new objects.
            for index in 0..512 {
                write(&volume, index * OBJECT, 1, BLOCK).await;
            }
            volume.flush().await.expect("ok");
            // A window of the harness's mapper has 256.
            plant(&life, 900, 0..300).await;
            plant(&life, 901, (0..600).filter(|index| index % 2 == 0)).await;
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 600);
        world.live(|life| async move {
            let status = quiet(&life).await;
            assert_eq!((status.leaks.found, status.leaks.ended), (600, 1));
            let volume = life.open("v").await;
            for index in 0..512 {
                assert_eq!(byte_at(&volume, index * OBJECT, BLOCK).await, 1);
            }
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn objects_of_generations_that_the_catalogue_never_reserved_are_left_alone() {
    with_seeds(4, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            life.create(seed.into(), "v", 1 << 20).await;
            plant(&life, 900, 0..1).await;
            plant(&life, 1 << 30, 0..3).await;
        });
        world.end_process();
        world.live(|life| async move {
            assert_eq!(quiet(&life).await.leaks.found, 1);
            let store = life.chaos.inner().attach().await.expect("there");
            let left = store.list(None, 100).await.expect("listed").objects;
            assert_eq!(left.len(), 3, "they say that the catalogue is an old copy");
        });
    });
}

#[test]
fn where_the_pool_knows_of_more_than_the_catalogue_nothing_is_deleted_unless_asked_for() {
    with_seeds(4, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            life.create(seed.into(), "v", 1 << 20).await;
            plant(&life, 900, 0..10).await;
            let store = life.chaos.inner().attach().await.expect("it is there");
            let mark = Generation::new(1 << 20).expect("52 bits");
            store.reserve_generations(mark).await.expect("raised");
        });
        world.end_process();
        world.live(|life| async move {
            let status = quiet(&life).await;
            assert_eq!((status.leaks.found, status.leaks.ended), (0, 0));
            life.mapper.gc_run().await.expect("begins");
            assert_eq!(quiet(&life).await.leaks.found, 10);
        });
    });
}

#[test]
fn a_pool_that_cannot_be_listed_is_told_of_and_scanned_later() {
    with_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            life.create(seed.into(), "v", 1 << 20).await;
            plant(&life, 900, 0..10).await;
        });
        world.end_process();
        for call in 1..3 {
            let fault = Fault::Error(StoreError::Io);
            world.chaos.fail_call(Op::List, call, fault);
        }
        world.live(|life| async move {
            sleep(Duration::from_secs(1)).await;
            let first = status(&life).await;
            assert!(first.last_error.is_some() && first.leaks.running);
            assert_eq!(first.leaks.ended, 0);
            let status = quiet(&life).await;
            assert_eq!((status.leaks.found, status.leaks.ended), (10, 1));
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn a_scan_that_the_store_keeps_waiting_holds_up_neither_the_collector_nor_a_stop() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            write(&volume, 0, 1, OBJECT).await;
            volume.flush().await.expect("ok");
            plant(&life, 900, 0..10).await;
        });
        world.end_process();
        world.chaos.fail_call(Op::List, 1, Fault::Hang);
        world.live(move |life| async move {
            life.mapper.delete_volume(name("v")).await.expect("gone");
            while status(&life).await.deleted_nodes == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(life.chaos.hanging(), 1);
            assert!(status(&life).await.leaks.running);
            life.mapper.stop().await.expect("stops");
            if seed.is_multiple_of(2) {
                life.chaos.release();
                sleep(Duration::from_secs(60)).await;
            }
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 10);
        // After a clean stop it is looked for when asked.
        world.live(|life| async move {
            life.mapper.gc_run().await.expect("begins");
            assert_eq!(quiet(&life).await.leaks.found, 10);
        });
        world.end_process();
        assert_eq!(leaked(&mut world), 0);
    });
}

#[test]
fn a_pool_that_is_removed_while_it_is_scanned_leaves_nothing_to_do() {
    with_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            plant(&life, 900, 0..10).await;
            drop(life);
        });
        world.end_process();
        match seed % 2 {
            0 => world.chaos.fail_call(Op::List, 1, Fault::Hang),
            _ => {
                let delays = Duration::ZERO..Duration::from_millis(20);
                world.chaos.delay(Op::List, delays);
            }
        }
        world.live(move |life| async move {
            sleep(Duration::from_micros(seed * 997)).await;
            let removed = loop {
                let removed = life.mapper.remove_pool(name("main")).await;
                match removed {
                    // Its leaked objects are being deleted.
                    Err(error) if error.kind() == atoll_mapper::ErrorKind::InUse => {
                        sleep(Duration::from_millis(1)).await;
                    }
                    other => break other,
                }
            };
            removed.expect("removed");
            life.chaos.release();
            let status = quiet(&life).await;
            assert_eq!((status.dead_objects, status.last_error), (0, None));
            life.mapper.stop().await.expect("stops");
        });
        world.end_process();
        let report = world.report();
        assert_eq!(report.totals.dead, 0, "{:#?}", report.findings);
    });
}

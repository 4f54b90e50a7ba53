//! Snapshots: what is in them, whatever happens at the same time, and that it stays.

use crate::harness::{
    BLOCK, Life, OBJECT, World, blocks, byte_at, name, on, read, read_everywhere, some_cores,
    with_seeds, write,
};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::{ErrorKind, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: u64 = 45;
const SIZE: u64 = 2 << 20;
/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(1);

/// A volume `v` with one complete object of ones.
async fn filled(life: &Life, seed: u64) -> VolumeHandle {
    let volume = life.create(seed.into(), "v", SIZE).await;
    volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
    volume
}

fn delay_all(life: &Life, longest: Duration) {
    for op in [Op::Read, Op::Write, Op::Sync, Op::Delete] {
        life.chaos.delay(op, Duration::ZERO..longest);
    }
}

#[test]
fn a_snapshot_keeps_what_was_acknowledged_and_shows_nothing_of_what_comes_later() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            // A sub-block write, and a new object, neither of them flushed.
            let part = write(seed, &volume, BLOCK + 512, 2, 512);
            part.await.expect("ok");
            let new = write(seed + 1, &volume, 3 * OBJECT, 3, BLOCK);
            new.await.expect("ok");
            let snapshot = life.snapshot("v", "s").await;
            for core in 0..3 {
                write(core, &volume, core * BLOCK, 4, BLOCK)
                    .await
                    .expect("ok");
            }
            volume.unmap(3 * OBJECT, OBJECT).await.expect("ok");
            write(seed, &volume, 5 * OBJECT, 5, OBJECT)
                .await
                .expect("ok");
            assert_eq!(read_everywhere(&volume, 0, 3 * BLOCK).await, 4);
            assert_eq!(read_everywhere(&volume, 3 * OBJECT, OBJECT).await, 0);
            assert_snapshot(&snapshot).await;
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            assert_snapshot(&life.open("s").await).await;
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

async fn assert_snapshot(snapshot: &VolumeHandle) {
    assert_eq!(read_everywhere(snapshot, 0, BLOCK + 512).await, 1);
    assert_eq!(read_everywhere(snapshot, BLOCK + 512, 512).await, 2);
    assert_eq!(
        read_everywhere(snapshot, 2 * BLOCK, OBJECT - 2 * BLOCK).await,
        1
    );
    assert_eq!(read_everywhere(snapshot, OBJECT, 2 * OBJECT).await, 0);
    assert_eq!(read_everywhere(snapshot, 3 * OBJECT, BLOCK).await, 3);
    assert_eq!(read_everywhere(snapshot, 5 * OBJECT, OBJECT).await, 0);
}

#[test]
fn nothing_changes_a_snapshot_from_any_core() {
    with_seeds(12, |seed| {
        let mut world = World::new(seed);
        world.live_on(3, move |life| async move {
            let volume = filled(&life, seed).await;
            let snapshot = life.snapshot("v", "s").await;
            for core in 0..3 {
                let outcomes = [
                    write(core, &snapshot, 0, 2, BLOCK).await,
                    write(core, &snapshot, 512, 2, 512).await,
                    write(core, &snapshot, 3 * OBJECT, 2, OBJECT).await,
                    on(core, &snapshot, |s| async move { s.unmap(0, OBJECT).await }).await,
                    on(core, &snapshot, |s| async move {
                        s.write_zeroes(0, BLOCK, true, true).await
                    })
                    .await,
                ];
                for outcome in outcomes {
                    assert_eq!(outcome.expect_err("refused").kind(), ErrorKind::ReadOnly);
                }
            }
            let resized = life.mapper.resize_volume(name("s"), 2 * SIZE).await;
            resized.expect_err("its size stays");
            assert_eq!(read_everywhere(&snapshot, 0, OBJECT).await, 1);
            assert_eq!(read_everywhere(&volume, 0, OBJECT).await, 1);
        });
        world.check();
    });
}

#[test]
fn a_snapshot_under_load_has_all_that_was_acknowledged_before_and_nothing_submitted_after() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        let known = Rc::new(Cell::new((0, 0)));
        let told = known.clone();
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            delay_all(&life, Duration::from_millis(1));
            let (submitted, acknowledged) = (Rc::new(Cell::new(1)), Rc::new(Cell::new(1)));
            let load = {
                let (volume, submitted) = (volume.clone(), submitted.clone());
                let acknowledged = acknowledged.clone();
                spawn(async move {
                    // Whole blocks that are there, parts of one, first ones of an object.
                    for byte in 2..60 {
                        submitted.set(byte);
                        let core = u64::from(byte) + seed;
                        let writes = [
                            write(core, &volume, 0, byte, BLOCK),
                            write(core + 1, &volume, BLOCK + 512, byte, 512),
                            write(core, &volume, 2 * OBJECT, byte, BLOCK),
                        ];
                        for written in writes {
                            written.await.expect("written");
                        }
                        acknowledged.set(byte);
                    }
                })
            };
            sleep(Duration::from_micros(seed * 517 % 20_000)).await;
            let least = acknowledged.get();
            let snapshot = life.snapshot("v", "s").await;
            let most = submitted.get();
            load.await;
            for at in [0, BLOCK + 512, 2 * OBJECT] {
                let byte = read_everywhere(&snapshot, at, 512).await;
                let least = if at == 0 || least > 1 { least } else { 0 };
                assert!((least..=most).contains(&byte), "{least} {byte} {most}");
                assert_eq!(read_everywhere(&volume, at, 512).await, 59);
            }
            told.set((least, most));
        });
        world.lose_power();
        world.check();
        let (least, most) = known.get();
        world.live(move |life| async move {
            let (volume, snapshot) = (life.open("v").await, life.open("s").await);
            let byte = byte_at(&snapshot, 0, BLOCK).await;
            assert!((least..=most).contains(&byte), "{least} {byte} {most}");
            let byte = byte_at(&volume, 0, BLOCK).await;
            assert!(byte >= least, "the volume has what its snapshot has");
        });
    });
}

#[test]
fn a_group_snapshot_of_two_volumes_with_different_home_cores_keeps_the_order_of_dependent_writes() {
    with_seeds(SEEDS * 2, |seed| {
        let mut world = World::new(seed);
        world.live_on(2 + (seed % 2) as u16, move |life| async move {
            let first = life.create(0, "a", SIZE).await;
            let second = life.create(1, "b", SIZE).await;
            assert_ne!(first.home().id(), second.home().id());
            for volume in [&first, &second] {
                volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
            }
            delay_all(&life, Duration::from_millis(1));
            // Each is written when the one before it was acknowledged: to one volume, then to the other.
            let load: Vec<_> = (0..3_u64)
                .map(|task| {
                    let (first, second) = (first.clone(), second.clone());
                    spawn(async move {
                        let at = task * BLOCK;
                        for byte in 2..40 {
                            for (n, volume) in [&first, &second].into_iter().enumerate() {
                                let core = seed + task + n as u64;
                                write(core, volume, at, byte, BLOCK).await.expect("written");
                            }
                        }
                    })
                })
                .collect();
            sleep(Duration::from_micros(seed * 517 % 10_000)).await;
            let wanted = life.wanted(&[("b", "sb"), ("a", "sa")]);
            life.mapper.create_snapshots(wanted).await.expect("created");
            let (sa, sb) = (life.open("sa").await, life.open("sb").await);
            for task in load {
                task.await;
            }
            for task in 0..3 {
                let a = read_everywhere(&sa, task * BLOCK, BLOCK).await;
                let b = read_everywhere(&sb, task * BLOCK, BLOCK).await;
                assert!(a == b || a == b + 1, "{a} was written before {b}");
            }
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn snapshots_of_a_group_that_cannot_all_be_made_are_not_made_at_all() {
    with_seeds(6, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            life.create(u128::from(seed) + 1, "w", SIZE).await;
            life.snapshot("v", "s").await;
            for (pairs, kind) in [
                ([("w", "new"), ("v", "s")], ErrorKind::AlreadyExists),
                ([("w", "new"), ("v", "w")], ErrorKind::AlreadyExists),
                ([("w", "new"), ("gone", "other")], ErrorKind::NotFound),
                ([("w", "new"), ("v", "new")], ErrorKind::Invalid),
            ] {
                let wanted = life.wanted(&pairs);
                let error = life.mapper.create_snapshots(wanted).await;
                assert_eq!(error.expect_err("refused").kind(), kind, "{pairs:?}");
                let error = life.mapper.volume(name("new")).await;
                assert_eq!(error.expect_err("none").kind(), ErrorKind::NotFound);
            }
            volume.write(0, blocks(2, BLOCK), true).await.expect("ok");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_snapshot_of_a_full_volume_writes_nothing_to_the_pool() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            for object in 0..SIZE / OBJECT {
                write(object, &volume, object * OBJECT, 1, OBJECT)
                    .await
                    .expect("ok");
            }
            let writing = [Op::Write, Op::WriteZeroes, Op::Copy];
            let calls = |life: &Life| writing.map(|op| life.chaos.calls(op));
            let before = calls(&life);
            let objects = life.objects().await;
            let snapshot = life.snapshot("v", "s").await;
            assert_eq!(read_everywhere(&snapshot, 0, SIZE).await, 1);
            life.gc_idle().await;
            assert_eq!(calls(&life), before);
            assert_eq!(life.objects().await, objects);
        });
        world.check();
    });
}

#[test]
fn a_snapshot_that_meets_a_hung_write_fails_and_the_volume_goes_on_and_flushes() {
    with_seeds(SEEDS * 2, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            volume.flush().await.expect("ok");
            write(seed, &volume, BLOCK, 2, BLOCK).await.expect("ok");
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(seed + 1, &volume, 9 * BLOCK, 9, BLOCK);
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            let making = {
                let (life, wanted) = (life.mapper.clone(), life.wanted(&[("v", "s")]));
                spawn(async move { life.create_snapshots(wanted).await })
            };
            sleep(SOON).await;
            // Nobody is held back while the old writes are waited for.
            write(seed, &volume, OBJECT, 3, BLOCK).await.expect("ok");
            write(seed + 1, &volume, 3 * OBJECT, 3, 512)
                .await
                .expect("ok");
            assert_eq!(read_everywhere(&volume, OBJECT, BLOCK).await, 3);
            let error = making.await.expect_err("a write hangs");
            assert!(
                matches!(error.kind(), ErrorKind::Busy | ErrorKind::Timeout),
                "{error}"
            );
            let error = life.mapper.volume(name("s")).await;
            assert_eq!(error.expect_err("none").kind(), ErrorKind::NotFound);
            hung.await.expect_err("it hangs");
            write(seed + 2, &volume, OBJECT + BLOCK, 4, BLOCK)
                .await
                .expect("ok");
            volume.flush().await.expect("it covers the old head's");
            assert_going_on(&volume).await;
            if seed % 2 == 0 {
                life.chaos.release();
                sleep(SOON).await;
                assert_eq!(read_everywhere(&volume, 9 * BLOCK, BLOCK).await, 9);
                life.snapshot("v", "s").await;
                assert_going_on(&life.open("s").await).await;
            }
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.open("v").await;
            assert_going_on(&volume).await;
            life.gc_idle().await;
            assert_going_on(&volume).await;
            let nodes = if seed % 2 == 0 { 2 } else { 1 };
            assert_eq!(life.tree().await.len(), nodes, "the unnamed one is merged");
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

async fn assert_going_on(volume: &VolumeHandle) {
    for (at, byte, len) in [
        (0, 1, BLOCK),
        (BLOCK, 2, BLOCK),
        (2 * BLOCK, 1, 7 * BLOCK),
        (OBJECT, 3, BLOCK),
        (OBJECT + BLOCK, 4, BLOCK),
        (OBJECT + 2 * BLOCK, 0, OBJECT - 2 * BLOCK),
        (3 * OBJECT, 3, 512),
        (3 * OBJECT + 512, 0, OBJECT - 512),
    ] {
        assert_eq!(read_everywhere(volume, at, len).await, byte, "{at}");
    }
}

#[test]
fn a_failed_sync_fails_the_snapshot_and_nothing_is_acknowledged_after_it() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            volume.flush().await.expect("ok");
            write(seed, &volume, 0, 2, BLOCK).await.expect("ok");
            life.chaos
                .fail_call(Op::Sync, 1, Fault::Error(atoll_backends::ErrorKind::Io));
            let wanted = life.wanted(&[("v", "s")]);
            let error = life.mapper.create_snapshots(wanted).await;
            error.expect_err("the sync fails");
            let error = life.mapper.volume(name("s")).await;
            assert_eq!(error.expect_err("none").kind(), ErrorKind::NotFound);
            volume.flush().await.expect_err("sticky");
            volume
                .write(0, blocks(3, BLOCK), true)
                .await
                .expect_err("sticky");
        });
        world.lose_power();
        world.check();
    });
}

/// What a verb was seen to have done when the power went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Before,
    Runs,
    Answered,
}

#[test]
fn a_power_loss_at_any_step_of_a_snapshot_leaves_it_or_not_and_never_half() {
    with_seeds(9, |seed| {
        for steps in 0.. {
            let mut world = World::new(seed);
            let seen = Rc::new(Cell::new(Seen::Before));
            let (tell, mut left) = (seen.clone(), steps);
            let history = move |life: Life| async move {
                let volume = filled(&life, seed).await;
                life.create(u128::from(seed) + 1, "w", SIZE).await;
                write(seed, &volume, 3 * OBJECT, 2, BLOCK)
                    .await
                    .expect("ok");
                let wanted = life.wanted(&[("v", "s"), ("w", "sw")]);
                tell.set(Seen::Runs);
                let held = write(seed + 1, &volume, BLOCK, 3, BLOCK);
                life.mapper.create_snapshots(wanted).await.expect("made");
                tell.set(Seen::Answered);
                held.await.expect("ok");
                write(seed, &volume, 0, 4, BLOCK).await.expect("ok");
            };
            let ended = world.live_until(some_cores(seed), history, || {
                if seen.get() != Seen::Before {
                    left -= 1;
                }
                left < 0
            });
            world.lose_power();
            world.check();
            let answered = seen.get() == Seen::Answered;
            world.live_on(some_cores(seed), move |life| async move {
                let volume = life.open("v").await;
                let there = life.mapper.volume(name("s")).await.is_ok();
                assert_eq!(life.mapper.volume(name("sw")).await.is_ok(), there);
                assert!(there || !answered, "an answered snapshot is there");
                if there {
                    let snapshot = life.open("s").await;
                    assert_eq!(byte_at(&snapshot, 0, BLOCK).await, 1);
                    assert_eq!(byte_at(&snapshot, 3 * OBJECT, BLOCK).await, 2);
                    let held = byte_at(&snapshot, BLOCK, BLOCK).await;
                    assert!(held == 1 || held == 3, "{held}");
                    assert_eq!(byte_at(&volume, 3 * OBJECT, BLOCK).await, 2);
                }
                let byte = byte_at(&volume, 2 * BLOCK, OBJECT - 2 * BLOCK).await;
                assert!(byte == 1 || (byte == 0 && !there), "{byte}");
                life.gc_idle().await;
                let expected = if there { 4 } else { 2 };
                assert_eq!(life.tree().await.len(), expected);
                volume
                    .write(0, blocks(7, SIZE / 2), true)
                    .await
                    .expect("ok");
                assert_eq!(read_everywhere(&volume, 0, SIZE / 2).await, 7);
                if there {
                    let snapshot = life.open("s").await;
                    assert_eq!(read_everywhere(&snapshot, 0, BLOCK).await, 1);
                    assert_eq!(read_everywhere(&snapshot, 3 * OBJECT, BLOCK).await, 2);
                }
            });
            world.end_process();
            world.check();
            if ended {
                break;
            }
        }
    });
}

#[test]
fn a_shrink_and_a_snapshot_at_once_come_one_after_the_other() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            volume.write(0, blocks(1, SIZE), false).await.expect("ok");
            delay_all(&life, Duration::from_millis(1));
            let shrink = {
                let mapper = life.mapper.clone();
                spawn(async move { mapper.resize_volume(name("v"), SIZE / 2).await })
            };
            let snapshot = life.snapshot("v", "s").await;
            shrink.await.expect("shrunk");
            life.resize("v", SIZE).await;
            assert_eq!(read_everywhere(&volume, 0, SIZE / 2).await, 1);
            assert_eq!(read_everywhere(&volume, SIZE / 2, SIZE / 2).await, 0);
            assert!([SIZE, SIZE / 2].contains(&snapshot.size()));
            assert_eq!(read_everywhere(&snapshot, 0, snapshot.size()).await, 1);
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn a_reader_of_a_snapshot_gets_its_data_though_it_is_deleted_meanwhile() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = filled(&life, seed).await;
            let snapshot = life.snapshot("v", "s").await;
            // Then the object is the snapshot's alone.
            volume.unmap(0, OBJECT).await.expect("ok");
            volume.flush().await.expect("ok");
            life.chaos.fail_call(Op::Read, 1, Fault::Hang);
            let reading = on(seed, &snapshot, |snapshot| async move {
                Ok(byte_at(&snapshot, 0, OBJECT).await)
            });
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            let deleting = {
                let mapper = life.mapper.clone();
                spawn(async move {
                    mapper.delete_volume(name("s")).await?;
                    mapper.gc_run().await
                })
            };
            sleep(SOON).await;
            assert_eq!(life.chaos.calls(Op::Delete), 0, "it is being read");
            life.chaos.release();
            assert_eq!(reading.await.expect("it was there"), 1);
            deleting.await.expect("deleted");
            let late = on(
                seed + 1,
                &snapshot,
                |s| async move { s.read(0, BLOCK).await },
            );
            assert_eq!(late.await.expect_err("gone").kind(), ErrorKind::Closed);
            life.gc_idle().await;
            assert_eq!(life.objects().await, []);
            assert_eq!(read(seed, &volume, 0, OBJECT).await, 0);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_protected_resource_is_not_deleted_and_a_protected_volume_not_rolled_back() {
    with_seeds(6, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            filled(&life, seed).await;
            life.snapshot("v", "s").await;
            for resource in ["v", "s"] {
                let info = life.mapper.protect(name(resource), true).await;
                assert!(info.expect("protected").row.protected);
            }
        });
        world.lose_power();
        world.live_on(some_cores(seed), move |life| async move {
            let mapper = &life.mapper;
            let refused = [
                mapper.delete_volume(name("v")).await,
                mapper.delete_volume(name("s")).await,
                mapper.rollback(name("v"), name("s")).await.map(drop),
            ];
            for outcome in refused {
                assert_eq!(outcome.expect_err("protected").kind(), ErrorKind::InUse);
            }
            for resource in ["s", "v"] {
                mapper.protect(name(resource), false).await.expect("free");
            }
            life.rollback("v", "s").await;
            life.delete("s").await;
            life.delete("v").await;
            life.gc_idle().await;
            assert_eq!(life.objects().await, []);
        });
        world.end_process();
        world.check();
    });
}

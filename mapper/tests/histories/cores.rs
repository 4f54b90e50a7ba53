//! One volume used from several cores at once. Every history runs under many schedules of the
//! simulator, one per seed; the volume's home is one of the cores, which one the seed says.

use crate::harness::{
    BLOCK, IO_TIMEOUT, Life, OBJECT, World, blocks, byte_at, bytes_at, name, on, read, with_seeds,
    write,
};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::{ErrorKind, VolumeHandle};
use atoll_reactor::{sleep, spawn, timeout};
use std::time::Duration;

const CORES: u16 = 3;
const SEEDS: u64 = 60;
const SECTOR: u64 = 512;
/// What resizes cut the volume off at.
const SHRUNK: u64 = 1 << 20;
/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(1);

/// A core that is not the volume's home.
fn away(volume: &VolumeHandle) -> u64 {
    u64::from(volume.home().id().0) + 1
}

/// A volume with one object of ones, of which every core has the map.
async fn filled(life: &Life, seed: u64) -> VolumeHandle {
    let volume = life.create(seed.into(), "v", 2 * SHRUNK).await;
    volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
    for core in 0..u64::from(CORES) {
        assert_eq!(read(core, &volume, 0, OBJECT).await, 1);
    }
    volume
}

#[test]
fn first_writes_to_one_object_from_several_cores_are_all_there() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = life.create(seed.into(), "v", 1 << 20).await;
            let writes = (0..8).map(|n| write(n, &volume, n * BLOCK, n as u8 + 1, BLOCK));
            for written in writes.collect::<Vec<_>>() {
                written.await.expect("written");
            }
            for n in 0..8 {
                assert_eq!(read(n / 2, &volume, n * BLOCK, BLOCK).await, n as u8 + 1);
            }
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn sub_block_writes_to_one_block_from_several_cores_are_all_there() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let at = if seed % 2 == 0 { 0 } else { OBJECT };
            let writes = (0..8).map(|n| write(n, &volume, at + n * SECTOR, n as u8 + 2, SECTOR));
            for written in writes.collect::<Vec<_>>() {
                written.await.expect("written");
            }
            for n in 0..8 {
                assert_eq!(
                    read(n / 3, &volume, at + n * SECTOR, SECTOR).await,
                    n as u8 + 2
                );
            }
        });
    });
}

#[test]
fn a_sub_block_write_never_takes_back_a_whole_block_write_of_another_core() {
    with_seeds(SEEDS * 2, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            life.chaos
                .delay(Op::Write, Duration::ZERO..Duration::from_micros(300));
            life.chaos
                .delay(Op::Read, Duration::ZERO..Duration::from_micros(300));
            for round in 0..8_u8 {
                let (whole, part) = (10 + round * 2, 11 + round * 2);
                let first = write(seed / 2, &volume, 3 * SECTOR, part, SECTOR);
                // At some moment of the other's read, change and write.
                sleep(Duration::from_micros(
                    (seed * 37 + u64::from(round) * 101) % 400,
                ))
                .await;
                let both = [
                    first,
                    write(away(&volume) + seed % 2, &volume, 0, whole, BLOCK),
                ];
                for written in both {
                    written.await.expect("written");
                }
                let bytes = bytes_at(&volume, 0, BLOCK).await;
                let (mut around, inside) = (bytes[..1536].to_vec(), &bytes[1536..2048]);
                around.extend_from_slice(&bytes[2048..]);
                assert!(
                    around.iter().all(|byte| *byte == whole),
                    "what was there before came back"
                );
                assert!(inside.iter().all(|byte| *byte == inside[0]), "torn");
                assert!([whole, part].contains(&inside[0]));
            }
        });
    });
}

#[test]
fn overlapping_writes_of_several_cores_leave_no_mixture_in_any_block() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            life.chaos
                .delay(Op::Write, Duration::ZERO..Duration::from_micros(300));
            for round in 0..4_u8 {
                let writes: Vec<_> = (0..6)
                    .map(|n| {
                        write(
                            n,
                            &volume,
                            (n % 3) * BLOCK,
                            10 + round * 6 + n as u8,
                            2 * BLOCK,
                        )
                    })
                    .collect();
                for written in writes {
                    written.await.expect("written");
                }
                for block in 0..4 {
                    // The same for every core, and of this round.
                    let byte = read(0, &volume, block * BLOCK, BLOCK).await;
                    assert!((10 + round * 6..16 + round * 6).contains(&byte), "{byte}");
                    for core in 1..u64::from(CORES) {
                        assert_eq!(read(core, &volume, block * BLOCK, BLOCK).await, byte);
                    }
                }
            }
        });
    });
}

#[test]
fn a_fence_holds_back_a_forwarded_write_and_lets_it_go_on() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            volume
                .write(OBJECT, blocks(1, OBJECT), false)
                .await
                .expect("ok");
            let core = away(&volume) + seed % 2;
            // What the fence waits for.
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(core, &volume, 0, 2, BLOCK);
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            let shrink = {
                let mapper = life.mapper.clone();
                spawn(async move { mapper.resize_volume(name("v"), SHRUNK).await })
            };
            sleep(SOON).await;
            // A sub-block write: it goes to the home core, where the fence holds it back.
            let mut held = write(core, &volume, OBJECT, 3, SECTOR);
            assert!(
                timeout(SOON, &mut held).await.is_err(),
                "the fence is passed"
            );
            let mut direct = write(core, &volume, OBJECT + BLOCK, 4, BLOCK);
            assert!(
                timeout(SOON, &mut direct).await.is_err(),
                "the fence is passed"
            );
            life.chaos.release();
            hung.await.expect("released");
            shrink.await.expect("shrunk");
            held.await.expect("let go on");
            direct.await.expect("let go on");
            assert_eq!(read(core, &volume, 0, BLOCK).await, 2);
            assert_eq!(read(core + 1, &volume, OBJECT, SECTOR).await, 3);
            assert_eq!(read(core + 1, &volume, OBJECT + BLOCK, BLOCK).await, 4);
            let beyond = write(core, &volume, SHRUNK, 5, BLOCK).await;
            assert_eq!(beyond.expect_err("cut off").kind(), ErrorKind::OutOfRange);
        });
    });
}

#[test]
fn a_fence_that_meets_a_hung_store_is_lifted_and_everything_goes_on() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let core = away(&volume) + seed % 2;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(core, &volume, 0, 2, BLOCK);
            sleep(SOON).await;
            let shrink = life.mapper.resize_volume(name("v"), SHRUNK).await;
            assert_eq!(shrink.expect_err("it hangs").kind(), ErrorKind::Busy);
            assert_eq!(hung.await.expect_err("it hangs").kind(), ErrorKind::Timeout);
            for other in 0..u64::from(CORES) {
                write(other, &volume, 10 * BLOCK, 3, BLOCK)
                    .await
                    .expect("not fenced");
                assert_eq!(read(other, &volume, 10 * BLOCK, BLOCK).await, 3);
            }
            life.chaos.release();
            sleep(SOON).await;
            life.mapper
                .resize_volume(name("v"), SHRUNK)
                .await
                .expect("shrunk");
            let beyond = write(core, &volume, SHRUNK, 5, BLOCK).await;
            assert_eq!(beyond.expect_err("cut off").kind(), ErrorKind::OutOfRange);
            write(core, &volume, 0, 6, BLOCK).await.expect("goes on");
        });
    });
}

#[test]
fn flushes_of_several_cores_that_overlap_each_keep_what_was_acknowledged_before_them() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            // An object each: nobody's flush is saved by another's.
            for n in 1..6 {
                let filled = volume.write(n * OBJECT, blocks(1, OBJECT), true).await;
                filled.expect("ok");
            }
            life.chaos
                .delay(Op::Sync, Duration::ZERO..Duration::from_millis(2));
            let tasks: Vec<_> = (0..6)
                .map(|n| {
                    on(n, &volume, move |volume| async move {
                        for byte in 2..6 {
                            volume.write(n * OBJECT, blocks(byte, BLOCK), false).await?;
                            volume.flush().await?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("flushed");
            }
        });
        world.lose_power();
        world.live_on(CORES, move |life| async move {
            let volume = life.open("v").await;
            for n in 0..6 {
                assert_eq!(read(n, &volume, n * OBJECT, BLOCK).await, 5, "lost");
            }
        });
    });
}

#[test]
fn a_fua_write_of_any_core_survives_power_loss() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let written = on(away(&volume), &volume, move |volume| async move {
                volume.write(BLOCK, blocks(7, 2 * BLOCK), true).await
            });
            written.await.expect("durable");
        });
        world.lose_power();
        world.live_on(CORES, move |life| async move {
            let volume = life.open("v").await;
            assert_eq!(read(seed, &volume, BLOCK, 2 * BLOCK).await, 7);
        });
    });
}

#[test]
fn a_write_of_another_core_that_was_given_up_never_lands_over_a_later_one() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let core = away(&volume);
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let error = write(core, &volume, 0, 2, 2 * BLOCK).await;
            assert_eq!(error.expect_err("it hangs").kind(), ErrorKind::Timeout);
            // From the same core, the home, or another one; whole blocks or a part of one.
            let len = if seed % 2 == 0 { BLOCK } else { SECTOR };
            let later = write(core + seed / 2 % 3, &volume, BLOCK, 3, len);
            sleep(SOON).await;
            life.chaos.release();
            later.await.expect("the first has ended");
            for core in 0..u64::from(CORES) {
                assert_eq!(read(core, &volume, BLOCK, len).await, 3);
            }
        });
    });
}

#[test]
fn a_forwarded_write_that_was_given_up_before_it_began_never_begins() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let core = away(&volume);
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(core, &volume, 0, 2, BLOCK);
            sleep(SOON).await;
            // Waits at the home core, behind the one that hangs.
            let waiting = write(core + 1, &volume, SECTOR, 3, SECTOR);
            for given_up in [hung, waiting] {
                let error = given_up.await.expect_err("no answer in time");
                assert_eq!(error.kind(), ErrorKind::Timeout);
            }
            life.chaos.release();
            sleep(SOON).await;
            assert_eq!(read(core, &volume, 0, BLOCK).await, 2, "it began after all");
            write(core, &volume, 0, 4, BLOCK).await.expect("goes on");
            sleep(IO_TIMEOUT).await;
            assert_eq!(read(core + 1, &volume, 0, BLOCK).await, 4);
        });
    });
}

#[test]
fn writes_that_were_given_up_behind_a_hung_one_let_their_data_go() {
    with_seeds(SEEDS / 6, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            let data = blocks(3, BLOCK);
            let writing = |core: u64| {
                let data = data.clone();
                on(core, &volume, move |volume| async move {
                    volume.write(0, data, false).await
                })
            };
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let hung = write(seed, &volume, 0, 2, BLOCK);
            sleep(SOON).await;
            for waiting in (0..6).map(writing).collect::<Vec<_>>() {
                let error = waiting.await.expect_err("it waits behind the hung one");
                assert_eq!(error.kind(), ErrorKind::Timeout);
            }
            hung.await.expect_err("it hangs");
            sleep(SOON).await;
            let only_ours = data.try_into_buf();
            assert!(only_ours.is_ok(), "somebody keeps the data");
            life.chaos.release();
        });
    });
}

#[test]
fn a_page_that_the_home_core_has_evicted_is_not_gone_by_on_other_cores() {
    with_seeds(SEEDS / 6, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            volume.flush().await.expect("ok");
            for core in 0..u64::from(CORES) {
                assert_eq!(read(core, &volume, OBJECT, BLOCK).await, 0);
            }
            // More pages than the home core has memory for, all of them its own.
            for n in 1..30 {
                let number = u128::from(seed) + n * u128::from(CORES);
                let other = life.create(number, &format!("v{n}"), SHRUNK).await;
                assert_eq!(other.home().id(), volume.home().id());
                other.write(0, blocks(1, BLOCK), true).await.expect("ok");
            }
            volume
                .write(OBJECT, blocks(2, OBJECT), false)
                .await
                .expect("ok");
            for core in 0..u64::from(CORES) {
                assert_eq!(read(core, &volume, OBJECT, BLOCK).await, 2, "an old page");
            }
        });
    });
}

#[test]
fn resizes_and_unmaps_under_load_bring_nothing_back_on_any_core() {
    with_seeds(SEEDS / 3, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            // Every core writes to an object of its own below the cut, all the time.
            let load: Vec<_> = (0..u64::from(CORES))
                .map(|core| {
                    on(core, &volume, move |volume| async move {
                        for byte in 10..60 {
                            let at = (core + 1) * OBJECT + u64::from(byte % 3) * SECTOR;
                            volume.write(at, blocks(byte, BLOCK), false).await?;
                            assert_eq!(byte_at(&volume, at, BLOCK).await, byte);
                        }
                        Ok(())
                    })
                })
                .collect();
            for round in 0..6 {
                let beyond = SHRUNK + round % 3 * OBJECT;
                write(round, &volume, beyond, 7, OBJECT).await.expect("ok");
                match (seed + round) % 2 {
                    0 => {
                        let resize = |size| life.mapper.resize_volume(name("v"), size);
                        resize(SHRUNK).await.expect("shrunk");
                        resize(2 * SHRUNK).await.expect("grown");
                    }
                    _ => {
                        let unmap = on(round + 1, &volume, move |volume| async move {
                            volume.unmap(beyond, OBJECT).await
                        });
                        unmap.await.expect("unmapped");
                    }
                }
                for core in 0..u64::from(CORES) {
                    assert_eq!(read(core, &volume, beyond, OBJECT).await, 0, "came back");
                }
            }
            for task in load {
                task.await.expect("written");
            }
        });
        world.check();
    });
}

#[test]
fn an_object_is_deleted_only_after_the_reads_of_every_core_have_ended() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            life.chaos.fail_call(Op::Read, 1, Fault::Hang);
            let reading = on(away(&volume), &volume, |volume| async move {
                Ok(byte_at(&volume, 0, OBJECT).await)
            });
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            volume.unmap(0, OBJECT).await.expect("unmapped");
            volume.flush().await.expect("committed");
            sleep(SOON).await;
            life.chaos.release();
            assert_eq!(reading.await.expect("still there"), 1);
            assert_eq!(read(away(&volume), &volume, 0, OBJECT).await, 0);
        });
        world.check();
    });
}

#[test]
fn a_deleted_volume_is_closed_on_every_core_and_its_name_is_free() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            life.mapper.delete_volume(name("v")).await.expect("deleted");
            for core in 0..u64::from(CORES) {
                let late = write(core, &volume, 0, 2, BLOCK).await;
                assert_eq!(late.expect_err("closed").kind(), ErrorKind::Closed);
            }
            let again = life.create(u128::from(seed) + 1000, "v", 1 << 20).await;
            assert_eq!(read(seed, &again, 0, OBJECT).await, 0);
            life.mapper.stop().await.expect("a clean stop");
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_failed_sync_stops_the_volume_on_every_core() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(CORES, move |life| async move {
            let volume = filled(&life, seed).await;
            write(away(&volume), &volume, 0, 2, BLOCK)
                .await
                .expect("ok");
            life.chaos
                .fail_call(Op::Sync, 1, Fault::Error(atoll_backends::ErrorKind::Io));
            volume.flush().await.expect_err("it fails");
            for core in 0..u64::from(CORES) {
                let error = write(core, &volume, 0, 3, BLOCK).await;
                assert_eq!(error.expect_err("faulted").kind(), ErrorKind::Faulted);
                let error = on(core, &volume, |volume| async move {
                    volume.read(0, BLOCK).await
                });
                assert_eq!(error.await.expect_err("faulted").kind(), ErrorKind::Faulted);
            }
        });
    });
}

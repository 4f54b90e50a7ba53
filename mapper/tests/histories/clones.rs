//! Clones: what a first write costs, what they show where they were never written, and their sizes.

use crate::harness::{
    BLOCK, IO_TIMEOUT, Life, OBJECT, World, blocks, byte_at, bytes_at, name, read, read_everywhere,
    some_cores, with_seeds, write,
};
use atoll_backends::chaos::{Fault, Op};
use atoll_backends::{BlockRange, ReadHint};
use atoll_mapper::{ErrorKind, NewClone, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::time::Duration;

const SEEDS: u64 = 45;
const SIZE: u64 = 2 << 20;
/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(1);

/// A volume `v` full of ones, its snapshot `s` and a clone of that, `c`.
async fn cloned(life: &Life, seed: u64) -> VolumeHandle {
    let volume = life.create(seed.into(), "v", SIZE).await;
    volume.write(0, blocks(1, SIZE), false).await.expect("ok");
    life.snapshot("v", "s").await;
    life.clone_of("s", "c", None).await
}

#[test]
fn the_first_4_kib_written_to_a_clone_are_all_that_is_written_to_the_store() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let clone = cloned(&life, seed).await;
            let before = life.objects().await;
            let counted = [Op::Write, Op::WriteZeroes, Op::Copy, Op::Read];
            let calls = counted.map(|op| life.chaos.calls(op));
            write(seed, &clone, 3 * BLOCK, 2, BLOCK).await.expect("ok");
            clone.flush().await.expect("ok");
            let now = counted.map(|op| life.chaos.calls(op));
            assert_eq!(now, [calls[0] + 1, calls[1], calls[2], calls[3]]);
            // The rest of what is below was not copied up.
            let mut new = life.objects().await;
            new.retain(|id| !before.contains(id));
            assert_eq!(new.len(), 1);
            let store = life.chaos.inner().attach().await.expect("it is there");
            let range = BlockRange::new(0, (OBJECT / BLOCK) as u32);
            let data = store.read(new[0], range, ReadHint::default()).await;
            let data = data.expect("readable");
            for (place, block) in data.chunks(BLOCK as usize).enumerate() {
                let is_full_of = |wanted: u8| block.iter().all(|byte| *byte == wanted);
                assert!(!is_full_of(1) && (place != 3 || is_full_of(2)), "{place}");
            }
            assert_eq!(read_everywhere(&clone, 0, 3 * BLOCK).await, 1);
            assert_eq!(read_everywhere(&clone, 3 * BLOCK, BLOCK).await, 2);
            assert_eq!(read_everywhere(&clone, 4 * BLOCK, OBJECT).await, 1);
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), |life| async move {
            let clone = life.open("c").await;
            assert_eq!(read_everywhere(&clone, 0, 3 * BLOCK).await, 1);
            assert_eq!(read_everywhere(&clone, 3 * BLOCK, BLOCK).await, 2);
            assert_eq!(read_everywhere(&clone, 4 * BLOCK, OBJECT).await, 1);
            assert_eq!(read_everywhere(&life.open("v").await, 0, SIZE).await, 1);
        });
    });
}

#[test]
fn clones_of_one_snapshot_and_its_volume_never_see_each_other() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let clone = cloned(&life, seed).await;
            let other = life.clone_of("s", "d", None).await;
            let volume = life.open("v").await;
            let all = [(&volume, 2), (&clone, 3), (&other, 4)];
            for at in [0, 512, 3 * BLOCK, OBJECT] {
                let writes = all.map(|(resource, byte)| write(seed, resource, at, byte, 512));
                for written in writes {
                    written.await.expect("ok");
                }
                for (resource, byte) in all {
                    assert_eq!(read_everywhere(resource, at, 512).await, byte);
                }
            }
            clone.unmap(2 * OBJECT, OBJECT).await.expect("ok");
            assert_eq!(read_everywhere(&clone, 2 * OBJECT, OBJECT).await, 0);
            assert_eq!(read_everywhere(&other, 2 * OBJECT, OBJECT).await, 1);
            assert_eq!(
                read_everywhere(&life.open("s").await, 0, SIZE).await,
                1,
                "the snapshot"
            );
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_clone_shows_zeros_where_it_was_cut_off_and_where_it_is_larger() {
    with_seeds(SEEDS / 3, |seed| {
        let mut world = World::new(seed);
        let inside = SIZE / 2 + 3 * BLOCK;
        world.live_on(some_cores(seed), move |life| async move {
            let clone = cloned(&life, seed).await;
            if seed % 2 == 0 {
                // A partial object at the cut, and one beyond it.
                write(seed, &clone, SIZE / 2 + BLOCK, 2, BLOCK)
                    .await
                    .expect("ok");
                write(seed, &clone, SIZE - BLOCK, 2, BLOCK)
                    .await
                    .expect("ok");
            }
            life.resize("c", inside).await;
            life.resize("c", 2 * SIZE).await;
            assert_grown(&clone, inside, seed).await;
            let smaller = life.clone_of("s", "smaller", Some(inside)).await;
            assert_eq!(read_everywhere(&smaller, 0, inside).await, 1);
            life.resize("smaller", SIZE).await;
            assert_eq!(read_everywhere(&smaller, inside, SIZE - inside).await, 0);
            let larger = life.clone_of("s", "larger", Some(2 * SIZE)).await;
            assert_eq!(read_everywhere(&larger, 0, SIZE).await, 1);
            assert_eq!(read_everywhere(&larger, SIZE, SIZE).await, 0);
            // At the last blocks that are inherited, and at the first that are not.
            write(seed, &smaller, inside - BLOCK, 3, 2 * BLOCK)
                .await
                .expect("ok");
            assert_eq!(
                read_everywhere(&smaller, inside - BLOCK, 2 * BLOCK).await,
                3
            );
            assert_eq!(
                read_everywhere(&smaller, inside + BLOCK, OBJECT).await,
                0,
                "beyond"
            );
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            assert_grown(&life.open("c").await, inside, seed).await;
            let snapshot = life.open("s").await;
            assert_eq!(read_everywhere(&snapshot, 0, SIZE).await, 1);
            // With nothing between the clones and the volume's blocks.
            for deleted in ["s", "v"] {
                life.delete(deleted).await;
                life.gc_idle().await;
                assert_grown(&life.open("c").await, inside, seed).await;
                let larger = life.open("larger").await;
                assert_eq!(read_everywhere(&larger, SIZE, SIZE).await, 0);
                assert_eq!(read_everywhere(&larger, 0, SIZE).await, 1);
            }
        });
        world.end_process();
        world.check();
    });
}

async fn assert_grown(clone: &VolumeHandle, inside: u64, seed: u64) {
    let second = if seed.is_multiple_of(2) { 2 } else { 1 };
    assert_eq!(read_everywhere(clone, 0, inside - 2 * BLOCK).await, 1);
    assert_eq!(
        read_everywhere(clone, inside - 2 * BLOCK, BLOCK).await,
        second
    );
    assert_eq!(read_everywhere(clone, inside - BLOCK, BLOCK).await, 1);
    assert_eq!(
        read_everywhere(clone, inside, 2 * SIZE - inside).await,
        0,
        "what was cut off"
    );
}

#[test]
fn a_part_of_a_block_written_after_a_cut_waits_for_the_old_write_of_that_block() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let volume = life.create(seed.into(), "v", SIZE).await;
            volume.write(0, blocks(1, OBJECT), false).await.expect("ok");
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let old = write(seed, &volume, BLOCK, 2, BLOCK);
            sleep(SOON).await;
            assert_eq!(life.chaos.hanging(), 1);
            // The heads are switched at once; the old one's write is waited for.
            let making = {
                let (mapper, wanted) = (life.mapper.clone(), life.wanted(&[("v", "s")]));
                spawn(async move { mapper.create_snapshots(wanted).await })
            };
            sleep(SOON).await;
            let part = write(seed + 1, &volume, BLOCK + 512, 3, 512);
            sleep(SOON).await;
            life.chaos.release();
            old.await.expect("ok");
            part.await.expect("ok");
            making.await.expect("made");
            let snapshot = life.open("s").await;
            assert_eq!(read_everywhere(&snapshot, BLOCK, BLOCK).await, 2);
            assert_eq!(read_everywhere(&volume, BLOCK, 512).await, 2);
            assert_eq!(read_everywhere(&volume, BLOCK + 512, 512).await, 3);
            assert_eq!(
                read_everywhere(&volume, BLOCK + 1024, BLOCK - 1024).await,
                2
            );
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn a_first_write_to_a_clone_that_was_given_up_never_lands_over_a_later_one() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let clone = cloned(&life, seed).await;
            life.chaos.fail_call(Op::Write, 1, Fault::Hang);
            let given_up = write(seed, &clone, BLOCK, 2, BLOCK).await;
            assert_eq!(given_up.expect_err("it hangs").kind(), ErrorKind::Timeout);
            let len = if seed % 2 == 0 { BLOCK } else { 512 };
            let later = write(seed + 1, &clone, BLOCK, 3, len);
            let elsewhere = write(seed + 2, &clone, 2 * BLOCK, 4, BLOCK);
            sleep(IO_TIMEOUT / 2).await;
            life.chaos.release();
            later.await.expect("the first has ended");
            elsewhere.await.expect("another block");
            assert_eq!(read_everywhere(&clone, BLOCK, len).await, 3);
            assert_eq!(read_everywhere(&clone, 2 * BLOCK, BLOCK).await, 4);
            assert_eq!(read_everywhere(&clone, 0, BLOCK).await, 1);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_read_over_the_parts_of_several_nodes_is_put_together_in_order() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            life.create(seed.into(), "v", SIZE).await;
            let volume = life.open("v").await;
            let mut expected = vec![0; 4 * OBJECT as usize];
            for round in 1..=6_u64 {
                for n in 0..5 {
                    let at = (seed * 7 + round * 11 + n * 23) % 60 * BLOCK + (n % 2) * 512;
                    let byte = (round * 10 + n) as u8;
                    let written = write(seed + n, &volume, at, byte, BLOCK * (n + 1) / 2);
                    written.await.expect("ok");
                    let end = at + BLOCK * (n + 1) / 2;
                    expected[at as usize..end as usize].fill(byte);
                }
                life.snapshot("v", &format!("s{round}")).await;
            }
            for chunk in [1_u64, 3, 16, 64] {
                for at in (0..4 * OBJECT).step_by((chunk * BLOCK) as usize) {
                    let len = (chunk * BLOCK).min(4 * OBJECT - at);
                    let found = bytes_at(&volume, at, len).await;
                    assert!(found == expected[at as usize..(at + len) as usize], "{at}");
                }
            }
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn a_clone_needs_a_snapshot_and_a_size_and_a_name_that_volumes_may_have() {
    with_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            cloned(&life, seed).await;
            let snapshot = life.mapper.volume(name("s")).await.expect("there").id;
            for (from, to, size, kind) in [
                ("v", "x", None, ErrorKind::Invalid),
                ("gone", "x", None, ErrorKind::NotFound),
                ("s", "c", None, ErrorKind::AlreadyExists),
                ("s", "x", Some(4096), ErrorKind::Invalid),
                ("s", "x", Some(SIZE + 512), ErrorKind::Invalid),
            ] {
                let id = atoll_mapper::types::ResourceId([200; 16]);
                assert_ne!(id, snapshot);
                let new = NewClone {
                    id,
                    snapshot: name(from),
                    name: name(to),
                    size,
                };
                let refused = life.mapper.create_clone(new).await;
                assert_eq!(refused.expect_err("refused").kind(), kind, "{from} {to}");
            }
            let info = life.mapper.volume(name("c")).await.expect("there");
            assert_eq!(info.origin, Some(name("s")));
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn a_flattened_clone_shows_the_same_and_needs_nobody() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let clone = cloned(&life, seed).await;
            write(seed, &clone, BLOCK, 2, BLOCK).await.expect("ok");
            clone.unmap(4 * OBJECT, OBJECT).await.expect("ok");
            life.resize("c", SIZE + OBJECT).await;
            let load = {
                let clone = clone.clone();
                spawn(async move {
                    for byte in 10..30 {
                        for at in [2 * OBJECT, 3 * OBJECT + 512, 4 * OBJECT] {
                            let written = write(u64::from(byte), &clone, at, byte, 512).await;
                            written.expect("ok");
                            assert_eq!(read(seed, &clone, at, 512).await, byte);
                        }
                    }
                })
            };
            let mut from = 0;
            loop {
                let progress = life.mapper.flatten(name("c"), from).await.expect("goes on");
                assert_eq!(progress.total, SIZE + OBJECT);
                if progress.ended {
                    break;
                }
                assert!(progress.done > from);
                from = progress.done;
            }
            load.await;
            assert_flat(&clone).await;
            let info = life.mapper.volume(name("c")).await.expect("there");
            assert_eq!(info.origin, None);
            for deleted in ["v", "s"] {
                life.delete(deleted).await;
            }
            life.gc_idle().await;
            assert_flat(&clone).await;
            assert_eq!(life.tree().await, [Some("c".into())]);
            clone.flush().await.expect("ok");
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), |life| async move {
            assert_flat(&life.open("c").await).await;
        });
    });
}

async fn assert_flat(clone: &VolumeHandle) {
    for (at, byte, len) in [
        (0, 1, BLOCK),
        (BLOCK, 2, BLOCK),
        (2 * BLOCK, 1, 2 * OBJECT - 2 * BLOCK),
        (2 * OBJECT, 29, 512),
        (2 * OBJECT + 512, 1, OBJECT),
        (3 * OBJECT + 512, 29, 512),
        (4 * OBJECT, 29, 512),
        (4 * OBJECT + 512, 0, OBJECT - 512),
        (5 * OBJECT, 1, SIZE - 5 * OBJECT),
        (SIZE, 0, OBJECT),
    ] {
        assert_eq!(byte_at(clone, at, len).await, byte, "{at}");
    }
}

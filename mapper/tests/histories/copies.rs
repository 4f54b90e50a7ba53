//! Copies of ranges, by naming objects twice and by moving bytes, and what tells two resources' differences.

use crate::harness::{
    BLOCK, Life, OBJECT, World, blocks, byte_at, name, read_everywhere, some_cores, with_seeds,
    write,
};
use atoll_backends::chaos::Op;
use atoll_mapper::{ChangedExtent, Changes, Copied, ErrorKind, VolumeHandle};
use atoll_reactor::{sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: u64 = 45;
const SIZE: u64 = 2 << 20;
const MOVING: [Op; 3] = [Op::Write, Op::WriteZeroes, Op::Copy];

async fn copy(life: &Life, from: (&str, u64), to: (&str, u64), len: u64) -> Copied {
    let copied = life
        .mapper
        .copy_range(name(from.0), from.1, name(to.0), to.1, len);
    let copied = copied.await.expect("copied");
    assert_eq!(copied.shared + copied.copied, len);
    copied
}

/// Volumes `v`, with four objects of ones, and `w`, which may have another home core.
async fn two(life: &Life, seed: u64) -> (VolumeHandle, VolumeHandle) {
    let first = life.create(seed.into(), "v", SIZE).await;
    let written = first.write(0, blocks(1, 4 * OBJECT), false);
    written.await.expect("ok");
    let second = life.create(u128::from(seed) + 1, "w", SIZE).await;
    (first, second)
}

#[test]
fn a_copy_from_a_head_and_its_source_never_change_with_each_other() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (source, target) = two(&life, seed).await;
            // Of the map that every core has.
            for volume in [&source, &target] {
                read_everywhere(volume, 0, 4 * OBJECT).await;
            }
            let moved = MOVING.map(|op| life.chaos.calls(op));
            let copied = copy(&life, ("v", 0), ("w", 4 * OBJECT), 4 * OBJECT).await;
            assert_eq!(copied.shared, 4 * OBJECT, "only names are copied");
            assert_eq!(MOVING.map(|op| life.chaos.calls(op)), moved);
            assert_eq!(read_everywhere(&target, 4 * OBJECT, 4 * OBJECT).await, 1);
            // Whole blocks, a part of one, a whole object, and nothing at all any more.
            let change = |volume: &VolumeHandle, base: u64, byte: u8| {
                let volume = volume.clone();
                async move {
                    for (at, len) in [(BLOCK, BLOCK), (OBJECT + 512, 512), (2 * OBJECT, OBJECT)] {
                        let written = write(seed + at, &volume, base + at, byte, len);
                        written.await.expect("ok");
                    }
                    volume.unmap(base + 3 * OBJECT, OBJECT).await.expect("ok");
                }
            };
            if seed % 2 == 0 {
                change(&source, 0, 2).await;
                assert_eq!(read_everywhere(&target, 4 * OBJECT, 4 * OBJECT).await, 1);
                change(&target, 4 * OBJECT, 3).await;
            } else {
                change(&target, 4 * OBJECT, 3).await;
                assert_eq!(read_everywhere(&source, 0, 4 * OBJECT).await, 1);
                change(&source, 0, 2).await;
            }
            assert_changed(&source, 0, 2).await;
            assert_changed(&target, 4 * OBJECT, 3).await;
            source.flush().await.expect("ok");
            target.flush().await.expect("ok");
        });
        world.lose_power();
        world.check();
        world.live_on(some_cores(seed), move |life| async move {
            let (source, target) = (life.open("v").await, life.open("w").await);
            assert_changed(&source, 0, 2).await;
            assert_changed(&target, 4 * OBJECT, 3).await;
            // Each is enough to keep what both have.
            let (first, second) = if seed % 2 == 0 {
                ("v", "w")
            } else {
                ("w", "v")
            };
            life.delete(first).await;
            life.gc_idle().await;
            let left = if seed % 2 == 0 { target } else { source };
            match seed % 2 {
                0 => assert_changed(&left, 4 * OBJECT, 3).await,
                _ => assert_changed(&left, 0, 2).await,
            }
            life.delete(second).await;
            life.gc_idle().await;
            assert_eq!(life.objects().await, []);
        });
        world.end_process();
        world.check();
    });
}

async fn assert_changed(volume: &VolumeHandle, base: u64, changed: u8) {
    for (at, byte, len) in [
        (0, 1, BLOCK),
        (BLOCK, changed, BLOCK),
        (2 * BLOCK, 1, OBJECT - 2 * BLOCK),
        (OBJECT, 1, 512),
        (OBJECT + 512, changed, 512),
        (OBJECT + 1024, 1, OBJECT - 1024),
        (2 * OBJECT, changed, OBJECT),
        (3 * OBJECT, 0, OBJECT),
    ] {
        assert_eq!(read_everywhere(volume, base + at, len).await, byte, "{at}");
    }
}

#[test]
fn copies_of_any_ranges_hold_what_the_source_held() {
    with_seeds(SEEDS * 2, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (source, target) = two(&life, seed).await;
            // Complete, partial, absent, and a hole over something.
            life.snapshot("v", "s").await;
            write(seed, &source, BLOCK, 2, 3 * BLOCK).await.expect("ok");
            source.unmap(2 * OBJECT, OBJECT).await.expect("ok");
            write(seed, &target, 0, 9, SIZE).await.expect("ok");
            let unit = [512, BLOCK, OBJECT][(seed % 3) as usize];
            let place = |n: u64, most: u64| (seed * 37 + n * 101) % most / unit * unit;
            let at = place(1, 3 * OBJECT);
            let to = place(2, 12 * OBJECT);
            let len = (unit + place(3, 4 * OBJECT)).min(SIZE - to);
            let expected = crate::harness::bytes_at(&source, at, len).await;
            copy(&life, ("v", at), ("w", to), len).await;
            let found = crate::harness::bytes_at(&target, to, len).await;
            assert!(found == expected, "{at}+{len} to {to}");
            if to > 0 {
                assert_eq!(read_everywhere(&target, 0, to).await, 9);
            }
            if to + len < SIZE {
                let rest = SIZE - to - len;
                assert_eq!(read_everywhere(&target, to + len, rest).await, 9);
            }
            target.flush().await.expect("ok");
            world_after(&life, "w", to, expected).await;
        });
        world.lose_power();
        world.check();
    });
}

/// The copy stays what it is when its source and all that is below it go.
async fn world_after(life: &Life, target: &str, to: u64, expected: Vec<u8>) {
    for deleted in ["s", "v"] {
        life.delete(deleted).await;
        life.gc_idle().await;
        let volume = life.open(target).await;
        let found = crate::harness::bytes_at(&volume, to, expected.len() as u64).await;
        assert!(found == expected, "without {deleted}");
    }
}

#[test]
fn a_copy_of_what_a_clone_inherits_needs_neither_the_clone_nor_its_ancestors() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (source, target) = two(&life, seed).await;
            life.snapshot("v", "s").await;
            let clone = life.clone_of("s", "c", None).await;
            let copied = copy(&life, ("c", 0), ("w", OBJECT), 4 * OBJECT).await;
            assert_eq!(copied.shared, 4 * OBJECT);
            // And back to where it came from, over what is there.
            write(seed, &source, 0, 2, 2 * OBJECT).await.expect("ok");
            copy(&life, ("w", OBJECT), ("v", OBJECT), 2 * OBJECT).await;
            assert_eq!(read_everywhere(&source, 0, OBJECT).await, 2);
            assert_eq!(read_everywhere(&source, OBJECT, 2 * OBJECT).await, 1);
            assert_eq!(read_everywhere(&clone, 0, 4 * OBJECT).await, 1);
            write(seed, &target, OBJECT, 3, BLOCK).await.expect("ok");
            target.flush().await.expect("ok");
        });
        for (place, deleted) in ["c", "s", "v", ""].into_iter().enumerate() {
            world.lose_power();
            world.check();
            world.live_on(some_cores(seed), move |life| async move {
                let target = life.open("w").await;
                assert_eq!(read_everywhere(&target, OBJECT, BLOCK).await, 3);
                assert_eq!(
                    read_everywhere(&target, OBJECT + BLOCK, 4 * OBJECT - BLOCK).await,
                    1
                );
                if (1..3).contains(&place) {
                    let snapshot = life.open(deleted).await;
                    let at = if place == 2 { OBJECT } else { 0 };
                    assert_eq!(byte_at(&snapshot, at, 2 * OBJECT).await, 1);
                }
                if !deleted.is_empty() {
                    life.delete(deleted).await;
                }
                life.gc_idle().await;
            });
        }
        world.end_process();
        world.check();
    });
}

#[test]
fn a_copy_inside_of_one_volume_holds_unless_it_overlaps_itself() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (volume, _) = two(&life, seed).await;
            copy(&life, ("v", 0), ("v", 8 * OBJECT), 4 * OBJECT).await;
            let unaligned = copy(&life, ("v", BLOCK), ("v", 16 * OBJECT), OBJECT).await;
            assert_eq!(unaligned.shared, 0);
            write(seed, &volume, 0, 2, OBJECT + BLOCK)
                .await
                .expect("ok");
            assert_eq!(read_everywhere(&volume, 8 * OBJECT, 4 * OBJECT).await, 1);
            assert_eq!(read_everywhere(&volume, 16 * OBJECT, OBJECT).await, 1);
            for (from, to, len, kind) in [
                (0, OBJECT, 2 * OBJECT, ErrorKind::Invalid),
                (OBJECT, 0, 2 * OBJECT, ErrorKind::Invalid),
                (SIZE - OBJECT, 0, 2 * OBJECT, ErrorKind::OutOfRange),
                (0, SIZE - OBJECT, 2 * OBJECT, ErrorKind::OutOfRange),
            ] {
                let refused = life
                    .mapper
                    .copy_range(name("v"), from, name("v"), to, len)
                    .await;
                assert_eq!(refused.expect_err("refused").kind(), kind, "{from} {to}");
            }
            life.snapshot("v", "s").await;
            let refused = life
                .mapper
                .copy_range(name("v"), 0, name("s"), 0, OBJECT)
                .await;
            assert_eq!(refused.expect_err("refused").kind(), ErrorKind::ReadOnly);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn writes_to_the_source_at_the_time_of_a_copy_are_in_it_or_not_and_never_in_it_later() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (source, target) = two(&life, seed).await;
            for op in [Op::Read, Op::Write, Op::Sync] {
                life.chaos
                    .delay(op, Duration::ZERO..Duration::from_millis(1));
            }
            let last = Rc::new(Cell::new(1));
            let load = {
                let (source, last) = (source.clone(), last.clone());
                spawn(async move {
                    for byte in 2..40 {
                        for (core, at) in [(0, 0), (1, OBJECT + BLOCK), (2, 2 * OBJECT)] {
                            write(core, &source, at, byte, BLOCK).await.expect("ok");
                        }
                        last.set(byte);
                    }
                })
            };
            sleep(Duration::from_micros(seed * 331 % 8000)).await;
            let least = last.get();
            // Aligned, or not.
            let to = 8 * OBJECT + seed % 2 * BLOCK;
            copy(&life, ("v", 0), ("w", to), 3 * OBJECT).await;
            let most = last.get() + 1;
            let mut seen = Vec::new();
            for at in [0, OBJECT + BLOCK, 2 * OBJECT] {
                let byte = read_everywhere(&target, to + at, BLOCK).await;
                assert!((least..=most).contains(&byte), "{least} {byte} {most}");
                seen.push(byte);
            }
            load.await;
            for (at, byte) in [0, OBJECT + BLOCK, 2 * OBJECT].into_iter().zip(seen) {
                assert_eq!(read_everywhere(&target, to + at, BLOCK).await, byte);
                assert_eq!(read_everywhere(&source, at, BLOCK).await, 39);
            }
        });
        world.lose_power();
        world.check();
    });
}

#[test]
fn a_power_loss_at_any_step_of_a_copy_leaves_old_or_new_blocks_and_an_untouched_source() {
    with_seeds(6, |seed| {
        for steps in 0.. {
            let mut world = World::new(seed);
            let begun = Rc::new(Cell::new(false));
            let (tell, mut left) = (begun.clone(), steps);
            let history = move |life: Life| async move {
                let (source, target) = two(&life, seed).await;
                write(seed, &target, 0, 9, 4 * OBJECT).await.expect("ok");
                source.flush().await.expect("ok");
                target.flush().await.expect("ok");
                tell.set(true);
                let at = seed % 2 * BLOCK;
                copy(&life, ("v", at), ("w", 0), 2 * OBJECT).await;
                target.flush().await.expect("ok");
                write(seed, &source, 0, 7, BLOCK).await.expect("ok");
                source.flush().await.expect("ok");
            };
            let ended = world.live_until(some_cores(seed), history, || {
                left -= i64::from(begun.get());
                left < 0
            });
            world.lose_power();
            world.check();
            world.live_on(some_cores(seed), move |life| async move {
                let (source, target) = (life.open("v").await, life.open("w").await);
                // What is not durable may be torn, at sectors.
                for sector in 0..2 * OBJECT / 512 {
                    let byte = byte_at(&target, sector * 512, 512).await;
                    let expected = if ended { &[1][..] } else { &[1, 9] };
                    assert!(expected.contains(&byte), "sector {sector}: {byte}");
                }
                assert_eq!(byte_at(&target, 2 * OBJECT, 2 * OBJECT).await, 9);
                let byte = byte_at(&source, 0, 512).await;
                assert!(byte == 1 || byte == 7);
                assert_eq!(byte_at(&source, BLOCK, 4 * OBJECT - BLOCK).await, 1);
                write(seed, &source, 0, 5, 4 * OBJECT).await.expect("ok");
                let byte = byte_at(&target, BLOCK, 512).await;
                assert!(byte == 1 || byte == 9, "{byte}");
                life.delete("v").await;
                life.delete("w").await;
                life.gc_idle().await;
            });
            world.end_process();
            world.check();
            if ended {
                break;
            }
        }
    });
}

async fn changes(life: &Life, from: Option<&str>, to: &str, most: usize) -> Vec<ChangedExtent> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(offset) = next {
        let changes: Changes = life
            .mapper
            .changes(from.map(name), name(to), offset, most)
            .await
            .expect("told");
        assert!(changes.extents.len() <= most);
        assert!(changes.next.is_none_or(|next| next > offset));
        all.extend(changes.extents);
        next = changes.next;
    }
    all
}

/// Whether a byte is told to have changed, and to what.
fn told(extents: &[ChangedExtent], at: u64) -> Option<bool> {
    let mut extents = extents.iter();
    let extent = extents.find(|extent| (extent.offset..extent.offset + extent.len).contains(&at));
    extent.map(|extent| extent.zero)
}

#[test]
fn what_differs_between_two_of_one_tree_is_told_in_both_directions() {
    with_seeds(SEEDS, |seed| {
        let mut world = World::new(seed);
        world.live_on(some_cores(seed), move |life| async move {
            let (volume, _) = two(&life, seed).await;
            life.snapshot("v", "s1").await;
            write(seed, &volume, BLOCK, 2, BLOCK).await.expect("ok");
            volume.unmap(2 * OBJECT, OBJECT).await.expect("ok");
            write(seed, &volume, 10 * OBJECT, 2, OBJECT)
                .await
                .expect("ok");
            life.snapshot("v", "s2").await;
            let most = [1, 2, 100][(seed % 3) as usize];
            let forward = changes(&life, Some("s1"), "s2", most).await;
            assert_eq!(told(&forward, BLOCK), Some(false));
            assert_eq!(told(&forward, 2 * OBJECT), Some(true));
            assert_eq!(told(&forward, 10 * OBJECT), Some(false));
            for same in [OBJECT, 3 * OBJECT, 5 * OBJECT, 11 * OBJECT] {
                assert_eq!(told(&forward, same), None, "{same}");
            }
            let backward = changes(&life, Some("s2"), "s1", most).await;
            assert_eq!(told(&backward, BLOCK), Some(false));
            assert_eq!(told(&backward, 2 * OBJECT), Some(false));
            assert_eq!(told(&backward, 10 * OBJECT), Some(true));
            assert_eq!(changes(&life, Some("s2"), "v", most).await, []);
            let stored = changes(&life, None, "s2", most).await;
            for at in [0, BLOCK, OBJECT, 3 * OBJECT, 10 * OBJECT] {
                assert_eq!(told(&stored, at), Some(false), "{at}");
            }
            assert!(told(&stored, 2 * OBJECT) != Some(false));
            assert!(told(&stored, 20 * OBJECT) != Some(false));
        });
        world.end_process();
        world.check();
    });
}

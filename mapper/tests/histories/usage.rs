//! What is said of how much is stored.

use crate::harness::{BLOCK, Life, OBJECT, World, blocks, name, with_seeds};
use atoll_backends::chaos::{Fault, Op};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{ErrorKind, NewClone, NewSnapshot, PoolUsage};
use atoll_reactor::sleep;
use std::time::Duration;

async fn quiet(life: &Life) {
    while life.mapper.gc_status().await.expect("told").running {
        sleep(Duration::from_millis(20)).await;
    }
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

async fn write(life: &Life, volume: &str, offset: u64, len: u64) {
    let volume = life.open(volume).await;
    volume
        .write(offset, blocks(1, len), true)
        .await
        .expect("ok");
    volume.flush().await.expect("ok");
}

/// Logical bytes, and objects: mapped, shared, unique, garbage.
async fn usage(life: &Life) -> (u64, [u64; 4]) {
    let usage = life.mapper.pool_usage(name("main")).await.expect("told");
    let PoolUsage {
        logical,
        mapped,
        shared,
        unique,
        garbage,
    } = usage;
    let objects = [mapped, shared, unique, garbage].map(|bytes| {
        assert!(bytes.is_multiple_of(OBJECT));
        bytes / OBJECT
    });
    (logical, objects)
}

#[test]
fn a_pool_says_what_is_mapped_shared_unique_and_garbage() {
    with_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let size = 2 << 20;
            assert_eq!(usage(&life).await, (0, [0; 4]));
            life.create(seed.into(), "v", size).await;
            write(&life, "v", 0, 4 * OBJECT).await;
            assert_eq!(usage(&life).await, (size, [4, 0, 4, 0]));
            snapshot(&life, 1000, "v", "s").await;
            assert_eq!(usage(&life).await, (2 * size, [4, 4, 0, 0]));
            write(&life, "v", 0, OBJECT).await;
            write(&life, "v", OBJECT, BLOCK).await;
            assert_eq!(usage(&life).await, (2 * size, [6, 4, 2, 0]));
            let clone = NewClone {
                id: ResourceId(2000_u128.to_be_bytes()),
                snapshot: name("s"),
                name: name("c"),
                size: None,
            };
            life.mapper.create_clone(clone).await.expect("a clone");
            write(&life, "c", 8 * OBJECT, OBJECT).await;
            assert_eq!(usage(&life).await, (3 * size, [7, 4, 3, 0]));
            // Its node is shared by both still.
            life.mapper.delete_volume(name("s")).await.expect("gone");
            quiet(&life).await;
            assert_eq!(usage(&life).await, (2 * size, [7, 4, 3, 0]));
            life.chaos.fail_call(Op::Delete, 1, Fault::Hang);
            life.mapper.delete_volume(name("c")).await.expect("gone");
            while life.chaos.hanging() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(usage(&life).await, (size, [6, 0, 6, 1]));
            life.chaos.release();
            // What the volume has covered is merged away.
            quiet(&life).await;
            let (logical, [mapped, shared, unique, garbage]) = usage(&life).await;
            assert_eq!((logical, shared, garbage), (size, 0, 0));
            assert_eq!((mapped, unique), (4, 4));
            life.mapper.delete_volume(name("v")).await.expect("gone");
            quiet(&life).await;
            assert_eq!(usage(&life).await, (0, [0; 4]));
            let error = life.mapper.pool_usage(name("other")).await;
            assert_eq!(error.expect_err("none").kind(), ErrorKind::NotFound);
        });
        world.end_process();
        world.check();
    });
}

#[test]
fn an_object_that_two_volumes_name_by_ref_is_shared_and_counts_once() {
    with_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.live(move |life| async move {
            let size = 2 << 20;
            life.create(seed.into(), "a", size).await;
            life.create((seed + 1).into(), "b", size).await;
            write(&life, "a", 0, 4 * OBJECT).await;
            let (from, to) = (name("a"), name("b"));
            let copied = life.mapper.copy_range(from, 0, to, 0, 3 * OBJECT).await;
            assert_eq!(copied.expect("copied").shared, 3 * OBJECT);
            assert_eq!(usage(&life).await, (2 * size, [4, 3, 1, 0]));
            life.mapper.delete_volume(name("b")).await.expect("gone");
            quiet(&life).await;
            assert_eq!(usage(&life).await, (size, [4, 0, 4, 0]));
        });
    });
}

#[test]
fn a_long_chain_of_snapshots_says_the_sum_of_its_nodes_among_those_of_others() {
    let mut world = World::new(2);
    world.live(|life| async move {
        life.create(0, "v", 64 << 20).await;
        life.create(1, "other", 64 << 20).await;
        for cut in 0..700_u64 {
            write(&life, "v", cut * OBJECT, BLOCK).await;
            if cut % 3 != 0 {
                write(&life, "other", cut * OBJECT, BLOCK).await;
                let number = 100_000 + u128::from(cut);
                snapshot(&life, number, "other", &format!("o{cut}")).await;
            }
            if cut % 200 < 120 {
                let number = 10_000 + u128::from(cut);
                snapshot(&life, number, "v", &format!("s{cut}")).await;
            }
        }
        let mapped = async |text: &str| {
            let bytes = life.mapper.mapped_bytes(name(text)).await.expect("told");
            bytes / OBJECT
        };
        assert_eq!(mapped("v").await, 700);
        assert_eq!(mapped("s0").await, 1);
        assert_eq!(mapped("s319").await, 320);
        assert_eq!(mapped("s600").await, 601);
        let tree = life.mapper.tree().await.expect("told");
        let all: u64 = tree.iter().map(|node| node.own_bytes / OBJECT).sum();
        assert_eq!(all, 700 + 466);
        let (_, [mapped, shared, unique, garbage]) = usage(&life).await;
        assert_eq!((mapped, shared + unique, garbage), (all, all, 0));
    });
}

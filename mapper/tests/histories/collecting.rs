//! The collector against a plain mark and sweep: after random histories of snapshots and clones it leaves in the pool
//! what reads can reach, what that needs to stay, and nothing else.

use crate::harness::{BLOCK, IO_TIMEOUT, Life, OBJECT, World, blocks, name, with_seeds};
use atoll_mapper::types::ResourceId;
use atoll_mapper::{NewClone, NewSnapshot};
use atoll_reactor::sleep;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const STEPS: u32 = 60;
/// Bytes of a volume at least and at most.
const MIN_SIZE: u64 = 16 * OBJECT;
const MAX_SIZE: u64 = 20 * OBJECT;
/// Resources above which none is made.
const MANY: usize = 8;

/// What is there, by name.
#[derive(Default)]
struct Names {
    made: u128,
    volumes: Vec<String>,
    snapshots: Vec<String>,
}

impl Names {
    fn next(&mut self, kind: &str) -> (ResourceId, String) {
        self.made += 1;
        (
            ResourceId(self.made.to_be_bytes()),
            format!("{kind}{}", self.made),
        )
    }
}

fn one_of(rng: &mut StdRng, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names[rng.random_range(0..names.len())].clone())
}

/// Some blocks inside of a few objects, often whole ones.
fn place(rng: &mut StdRng, size: u64) -> (u64, u64) {
    let unit = [BLOCK, BLOCK, OBJECT / 2, OBJECT][rng.random_range(0..4)];
    let offset = rng.random_range(0..size / unit) * unit;
    let len = rng.random_range(1..=3) * unit;
    (offset, len.min(size - offset))
}

async fn step(life: &Life, rng: &mut StdRng, names: &mut Names) {
    let Some(volume) = one_of(rng, &names.volumes) else {
        let (id, text) = names.next("v");
        life.create(u128::from_be_bytes(id.0), &text, MIN_SIZE)
            .await;
        names.volumes.push(text);
        return;
    };
    let snapshot = one_of(rng, &names.snapshots);
    let room = names.volumes.len() + names.snapshots.len() < MANY;
    match rng.random_range(0..20) {
        0..=5 => {
            let open = life.open(&volume).await;
            let (offset, len) = place(rng, open.size());
            let data = blocks(rng.random(), len);
            open.write(offset, data, false).await.expect("written");
        }
        6 => {
            let open = life.open(&volume).await;
            let (offset, len) = place(rng, open.size());
            open.unmap(offset, len).await.expect("unmapped");
        }
        7 => {
            let size = rng.random_range(MIN_SIZE / BLOCK..MAX_SIZE / BLOCK) * BLOCK;
            let resized = life.mapper.resize_volume(name(&volume), size).await;
            resized.expect("resized");
        }
        8..=9 if room => {
            let (id, text) = names.next("s");
            let (volume, name) = (name(&volume), name(&text));
            let new = NewSnapshot { id, volume, name };
            let made = life.mapper.create_snapshots(vec![new]).await;
            made.expect("a snapshot");
            names.snapshots.push(text);
        }
        10..=11 if room => {
            let Some(snapshot) = snapshot else { return };
            let (id, text) = names.next("c");
            let new = NewClone {
                id,
                snapshot: name(&snapshot),
                name: name(&text),
                size: rng.random_bool(0.3).then_some(MIN_SIZE + 2 * BLOCK),
            };
            life.mapper.create_clone(new).await.expect("a clone");
            names.volumes.push(text);
        }
        12 => {
            // Of another tree perhaps: then it is refused.
            if let Some(snapshot) = snapshot {
                let rolled = life.mapper.rollback(name(&volume), name(&snapshot)).await;
                let _refused = rolled;
            }
        }
        13 => {
            life.mapper
                .delete_volume(name(&volume))
                .await
                .expect("deleted");
            names.volumes.retain(|other| *other != volume);
        }
        14 => {
            if let Some(snapshot) = snapshot {
                let deleted = life.mapper.delete_volume(name(&snapshot)).await;
                deleted.expect("deleted");
                names.snapshots.retain(|other| *other != snapshot);
            }
        }
        15..=17 => {
            // From a volume or a snapshot, perhaps itself.
            let resources = names.volumes.iter().chain(&names.snapshots);
            let resources: Vec<String> = resources.cloned().collect();
            let Some(from) = one_of(rng, &resources) else {
                return;
            };
            let (offset, len) = place(rng, MIN_SIZE);
            let to = rng.random_range(0..=(MIN_SIZE - len) / OBJECT) * OBJECT;
            if from != volume || offset.abs_diff(to) >= len {
                let copy = life
                    .mapper
                    .copy_range(name(&from), offset, name(&volume), to, len);
                copy.await.expect("copied");
            }
        }
        18 => {
            let mut from = 0;
            while rng.random_bool(0.9) {
                let part = life.mapper.flatten(name(&volume), from).await;
                let part = part.expect("flattened");
                if part.ended {
                    break;
                }
                from = part.done;
            }
        }
        _ => sleep(Duration::from_secs(6)).await,
    }
}

/// Lets trims, write-backs, fills and the collector come to their ends.
async fn settle(life: &Life) {
    sleep(2 * IO_TIMEOUT).await;
    life.mapper.gc_run().await.expect("begun");
    while life.mapper.gc_status().await.expect("told").running {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(IO_TIMEOUT).await;
}

#[test]
fn the_collector_leaves_what_a_mark_and_sweep_finds_and_nothing_else() {
    let done = Rc::new(Cell::new((0, 0, 0)));
    with_seeds(150, |seed| {
        let mut world = World::new(seed);
        let sum = done.clone();
        world.live(move |life| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut names = Names::default();
            for _ in 0..STEPS {
                step(&life, &mut rng, &mut names).await;
            }
            settle(&life).await;
            let status = life.mapper.gc_status().await.expect("told");
            let (deleted, merged, objects) = sum.get();
            sum.set((
                deleted + status.deleted_nodes,
                merged + status.merged_nodes,
                objects + status.deleted_objects,
            ));
            life.mapper.stop().await.expect("stops");
        });
        world.end_process();
        world.check();
        world.check_collected();
    });
    let (deleted, merged, objects) = done.get();
    println!("{done:?}");
    assert!(
        deleted > 0 && merged > 0 && objects > 0,
        "nothing was collected: {done:?}"
    );
}

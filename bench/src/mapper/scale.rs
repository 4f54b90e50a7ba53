//! A large catalogue: how long a start takes, what it takes of memory, and how soon an admin has an answer.

use super::host::{Scratch, resident_bytes};
use super::report::{Check, bytes, millis};
use super::rows::{
    OBJECT_BYTES, Random, ResourceRows, Rows, StoreRows, generation, name, node, write_map,
};
use super::stage::{Stage, median, prepare, timed};
use atoll_mapper::format::{Entry, PoolKind, ResourceKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::{MapperConfig, Result};
use atoll_reactor::block_on;

const VOLUMES: u64 = 3_000;
const SNAPSHOTS: u64 = 20_000;
const OBJECTS: u64 = 22_000_000;
const NODES: u64 = VOLUMES + SNAPSHOTS;
/// Of each volume and snapshot.
const SIZE: u64 = 16 << 30;
const MIB: f64 = (1_u64 << 20) as f64;
const ROUNDS: u64 = 30;

pub fn run(_: &super::pebibyte::Pebibyte) -> Result<Vec<Check>> {
    let before = resident_bytes();
    let scratch = Scratch::new();
    prepare(&scratch, OpenMode::Create, write);
    let stage = Stage::start(&scratch, MapperConfig::default());
    let started = stage.opened_in + stage.started_in;
    let resident = resident_bytes();
    let mut random = Random(1);
    let (mut shown, mut listed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let volume = name(&format!("volume-{}", random.below(VOLUMES)));
        let (info, seconds) = block_on(timed(stage.mapper.volume(volume)));
        info?;
        shown.push(seconds);
        let (all, seconds) = block_on(timed(stage.mapper.volumes()));
        assert_eq!(all?.len() as u64, NODES);
        listed.push(seconds);
    }
    let volume = name(&format!("volume-{}", random.below(VOLUMES)));
    let (mapped, of_one) = block_on(timed(stage.mapper.mapped_bytes(volume)));
    mapped?;
    let (tree, of_tree) = block_on(timed(stage.mapper.tree()));
    assert_eq!(tree?.len() as u64, NODES);
    stage.stop();
    let what = format!(
        "start with {VOLUMES} volumes, {SNAPSHOTS} snapshots, {OBJECTS} objects ({} of rows)",
        bytes(scratch.database_bytes() as f64)
    );
    let after = format!(
        "memory of the process after it (before: {})",
        bytes(before as f64)
    );
    Ok(vec![
        Check::at_most(what, started.as_secs_f64(), 2.0, millis),
        Check::at_most(after, resident as f64, 500.0 * MIB, bytes),
        Check::at_most("show of a volume", median(&shown), 20e-3, millis),
        Check::at_most("its mapped bytes", of_one, 20e-3, millis),
        Check::told("list of all resources", millis(median(&listed))),
        Check::told("the tree", millis(of_tree)),
    ])
}

/// Each volume has a chain of snapshots, and each node about as many objects as any other.
async fn write(rows: &mut Rows<'_>) {
    let store = StoreRows {
        pool: PoolKind::Null,
        next_node: NODES + 1,
        mark: NODES + 1,
    };
    store.write(rows).await;
    let mut random = Random(2);
    let mut number = 0;
    let mut named = 0;
    for volume in 0..VOLUMES {
        let end = (volume + 1) * NODES / VOLUMES;
        let first = number + 1;
        while number < end {
            number += 1;
            let last = number == end;
            let share = number * OBJECTS / NODES - (number - 1) * OBJECTS / NODES;
            let resource = ResourceRows {
                kind: match last {
                    true => ResourceKind::Volume,
                    false => ResourceKind::Snapshot,
                },
                name: match last {
                    true => name(&format!("volume-{volume}")),
                    false => name(&format!("volume-{volume}-{number}")),
                },
                node: number,
                parent: (number > first).then(|| number - 1),
                depth: (number - first) as u16,
                size: SIZE,
                cut: number,
                objects: share,
            };
            resource.write(rows).await;
            let objects = SIZE / OBJECT_BYTES;
            let (mut left, mut of) = (share, objects);
            write_map(rows, node(number), objects, |_| {
                let chosen = random.below(of) < left;
                of -= 1;
                left -= u64::from(chosen);
                named += u64::from(chosen);
                match chosen {
                    true => Entry::object(generation(number)),
                    false => Entry::ABSENT,
                }
            })
            .await;
        }
    }
    assert_eq!((number, named), (NODES, OBJECTS));
}

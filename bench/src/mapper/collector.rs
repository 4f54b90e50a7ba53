//! What giving a million objects back costs: how fast it is when nothing holds it back, the memory it takes, and what
//! reads of another volume notice when it is held back as by default.

use super::drive::{Load, Operation, pause, rate};
use super::host::{Scratch, resident_bytes};
use super::report::{Check, bytes, per_second, times};
use super::rows::{
    OBJECT_BYTES, Random, ResourceRows, Rows, StoreRows, generation, name, node, write_map,
};
use super::stage::{Stage, median, prepare};
use atoll_mapper::format::{Entry, PoolKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::{GcConfig, MapperConfig, Result};
use atoll_reactor::block_on;
use std::time::{Duration, Instant};

const OBJECTS: u64 = 1 << 20;
/// Volumes of some seconds' work at the default's pace.
const SMALL_OBJECTS: u64 = 4096;
const ROUNDS: u64 = 9;
const SPAN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
const MIB: f64 = (1_u64 << 20) as f64;
/// What reads use.
const FOREGROUND_BYTES: u64 = 256 << 20;

pub fn run(_: &super::pebibyte::Pebibyte) -> Result<Vec<Check>> {
    let scratch = Scratch::new();
    prepare(&scratch, OpenMode::Create, async |rows| {
        let store = StoreRows {
            pool: PoolKind::Null,
            next_node: 1000,
            mark: 1 << 24,
        };
        store.write(rows).await;
        volume(rows, 1, "foreground", FOREGROUND_BYTES / OBJECT_BYTES).await;
        volume(rows, 2, "large", OBJECTS).await;
        for round in 0..ROUNDS {
            let name = format!("small-{round}");
            volume(rows, 10 + round, &name, SMALL_OBJECTS).await;
        }
    });
    let mut checks = foreground(&scratch)?;
    checks.extend(unhindered(&scratch)?);
    Ok(checks)
}

/// Reads while the collector works at its default's pace, and before it begins, by turns.
fn foreground(scratch: &Scratch) -> Result<Vec<Check>> {
    let config = MapperConfig::default();
    let stage = Stage::start(scratch, config);
    let volume = block_on(stage.open(&name("foreground")));
    let reads = Load::of(&volume, Operation::Read);
    let mut ratios = Vec::new();
    let mut undisturbed = Vec::new();
    for round in 0..ROUNDS {
        let before = rate(&reads, stage.cores(), round, SPAN).rate;
        let gone = name(&format!("small-{round}"));
        block_on(stage.mapper.delete_volume(gone))?;
        let during = rate(&reads, stage.cores(), round, SPAN).rate;
        let works = block_on(stage.mapper.gc_status())?.running;
        assert!(works, "the collector had enough to do");
        stage.collected()?;
        undisturbed.push(before);
        ratios.push(during / before);
    }
    stage.stop();
    let what = format!(
        "reads while it works at {} a second, to undisturbed ones ({})",
        config.gc.max_iops,
        per_second(median(&undisturbed))
    );
    Ok(vec![Check::at_least(what, median(&ratios), 0.9, times)])
}

/// A million objects as fast as it can.
fn unhindered(scratch: &Scratch) -> Result<Vec<Check>> {
    let config = MapperConfig {
        gc: GcConfig {
            max_iops: 0,
            ..GcConfig::default()
        },
        ..MapperConfig::default()
    };
    let stage = Stage::start(scratch, config);
    // What the process needs anyway is there.
    block_on(stage.snapshot(&name("foreground"), &name("small")))?;
    block_on(stage.snapshot(&name("large"), &name("snapshot")))?;
    pause(SPAN);
    let before = resident_bytes();
    let merge = collected(&stage, "snapshot")?;
    let deletion = collected(&stage, "large")?;
    let status = block_on(stage.mapper.gc_status())?;
    assert_eq!(status.dying_nodes + status.dead_objects, 0, "all is gone");
    assert_eq!(status.deleted_objects, OBJECTS, "every one was deleted");
    stage.stop();
    let rate = |collected: &Collected| per_second(OBJECTS as f64 / collected.seconds);
    let most = merge.resident.max(deletion.resident);
    Ok(vec![
        Check::told(
            "1 Mi objects of a deleted snapshot, no limit: entries merged",
            rate(&merge),
        ),
        Check::told(
            "1 Mi objects of a deleted volume, no limit: objects deleted",
            rate(&deletion),
        ),
        Check::at_most(
            "more memory meanwhile",
            most.saturating_sub(before) as f64,
            64.0 * MIB,
            bytes,
        ),
    ])
}

struct Collected {
    seconds: f64,
    /// The most memory of the process that was seen.
    resident: u64,
}

/// Deletes a resource and waits until nothing of it is left to be done.
fn collected(stage: &Stage, gone: &str) -> Result<Collected> {
    let start = Instant::now();
    block_on(stage.mapper.delete_volume(name(gone)))?;
    let mut resident = resident_bytes();
    while block_on(stage.mapper.gc_status())?.running {
        pause(POLL);
        resident = resident.max(resident_bytes());
    }
    Ok(Collected {
        seconds: start.elapsed().as_secs_f64(),
        resident,
    })
}

/// A volume each of whose objects has a generation of its own choice.
async fn volume(rows: &mut Rows<'_>, number: u64, text: &str, objects: u64) {
    let volume = ResourceRows::volume(name(text), number, objects * OBJECT_BYTES);
    volume.write(rows).await;
    let mut random = Random(number);
    write_map(rows, node(number), objects, |_| {
        Entry::object(generation(1 + random.below(1 << 20)))
    })
    .await;
}

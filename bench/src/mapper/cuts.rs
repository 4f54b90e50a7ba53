//! How long writes are held back by a snapshot's cut under full load on two cores: the longest of the writes that were
//! under way at a moment of the verb, over many snapshots.

use super::disk::Scratch;
use super::drive::{Load, Operation, Running, flush, pause};
use super::report::{Check, millis, per_second};
use super::rows::{OBJECT_BYTES, ResourceRows, StoreRows, generation, name, node, write_map};
use super::stage::{Stage, prepare, quantile};
use atoll_mapper::format::{Entry, PoolKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::{MapperConfig, Result};
use atoll_reactor::block_on;
use std::time::{Duration, Instant};

const VOLUME_BYTES: u64 = 1 << 30;
const CUTS: u64 = 200;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(70);
/// Only writes that took longer are looked at.
const SLOW: Duration = Duration::from_micros(200);

pub fn run(_: &super::pebibyte::Pebibyte) -> Result<Vec<Check>> {
    let scratch = Scratch::new();
    prepare(&scratch, OpenMode::Create, async |rows| {
        let store = StoreRows {
            pool: PoolKind::Null,
            next_node: 2,
            mark: 2,
        };
        store.write(rows).await;
        let objects = VOLUME_BYTES / OBJECT_BYTES;
        ResourceRows::volume(name("volume"), 1, VOLUME_BYTES)
            .write(rows)
            .await;
        let entry = Entry::object(generation(1));
        write_map(rows, node(1), objects, |_| entry).await;
    });
    let stage = Stage::start(&scratch, MapperConfig::default());
    let (without, flushed) = longest(&stage, async |stage, _| {
        flush(&stage.open(&name("volume")).await).await
    })?;
    let (with, rate) = longest(&stage, async |stage, number| {
        let snapshot = name(&format!("snapshot-{number}"));
        stage.snapshot(&name("volume"), &snapshot).await.map(|_| ())
    })?;
    stage.stop();
    Ok(vec![
        Check::told("writes with a flush every 70 ms", per_second(flushed)),
        Check::told("longest write at a flush, 99 %", millis(quantile(&without, 0.99))),
        Check::told("writes with a snapshot every 70 ms", per_second(rate)),
        Check::told("longest write at a cut, median", millis(quantile(&with, 0.5))),
        Check::at_most("longest write at a cut, 99 %", quantile(&with, 0.99), 5e-3, millis),
    ])
}

/// The longest write, in seconds, of those that were under way during each of many verbs; and writes per second.
fn longest(
    stage: &Stage,
    verb: impl AsyncFn(&Stage, u64) -> Result<()>,
) -> Result<(Vec<f64>, f64)> {
    let volume = block_on(stage.open(&name("volume")));
    let load = Load {
        slow: SLOW,
        ..Load::of(&volume, Operation::Write)
    };
    let running = Running::begin(&load, stage.cores(), 1);
    let mut spans = Vec::new();
    let mut failed = Ok(());
    for number in 0..CUTS {
        pause(PAUSE);
        let began = Instant::now();
        failed = block_on(verb(stage, number));
        spans.push((began, Instant::now()));
        if failed.is_err() {
            break;
        }
    }
    let done = block_on(running.end());
    failed?;
    let longest = |(began, ended): &(Instant, Instant)| {
        let meets = |write: &&(Instant, Instant)| write.0 < *ended && write.1 > *began;
        let writes = done.slow.iter().filter(meets);
        writes
            .map(|(began, ended)| (*ended - *began).as_secs_f64())
            .fold(SLOW.as_secs_f64(), f64::max)
    };
    Ok((spans.iter().map(longest).collect(), done.rate))
}

//! How long writes are held back by a snapshot's cut under full load on two cores: as the volume itself says, from shutting
//! its gate to opening it on all cores; and the longest of the writes that were under way at a moment of the verb, beside
//! the same of flushes, which hold nothing back.

use super::drive::{Load, Operation, Running, flush, pause};
use super::host::Scratch;
use super::report::{Check, millis, per_second};
use super::rows::{OBJECT_BYTES, ResourceRows, StoreRows, generation, name, node, write_map};
use super::stage::{Stage, prepare, quantile};
use atoll_mapper::format::{Entry, PoolKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::{MapperConfig, Result, VolumeHandle};
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
    let volume = block_on(stage.open(&name("volume")));
    let flushes = longest(&stage, &volume, async |_| flush(&volume).await)?;
    let mut held = Vec::new();
    let cuts = longest(&stage, &volume, async |number| {
        let snapshot = name(&format!("snapshot-{number}"));
        stage.snapshot(&name("volume"), &snapshot).await?;
        held.push(volume.shared().take_longest_hold().as_secs_f64());
        Ok(())
    })?;
    stage.stop();
    let longest = |met: &Met| {
        let [half, most] = [0.5, 0.99].map(|part| millis(quantile(&met.longest, part)));
        format!("{half} and {most}")
    };
    let limit = 5e-3;
    Ok(vec![
        Check::told("writes with a snapshot every 70 ms", per_second(cuts.rate)),
        Check::told("held back by a cut, median", millis(quantile(&held, 0.5))),
        Check::at_most(
            "held back by a cut, 99 %",
            quantile(&held, 0.99),
            limit,
            millis,
        ),
        Check::told("longest write at a cut, median and 99 %", longest(&cuts)),
        Check::told(
            "longest write at a flush, median and 99 %",
            longest(&flushes),
        ),
    ])
}

/// What was seen of writes at verbs.
struct Met {
    /// The longest write, in seconds, of those that were under way during each verb.
    longest: Vec<f64>,
    /// Writes per second.
    rate: f64,
}

fn longest(
    stage: &Stage,
    volume: &VolumeHandle,
    mut verb: impl AsyncFnMut(u64) -> Result<()>,
) -> Result<Met> {
    let load = Load {
        slow: SLOW,
        ..Load::of(volume, Operation::Write)
    };
    let running = Running::begin(&load, stage.cores(), 1);
    let mut spans = Vec::new();
    let mut outcome = Ok(());
    for number in 0..CUTS {
        pause(PAUSE);
        let began = Instant::now();
        outcome = block_on(verb(number));
        spans.push((began, Instant::now()));
        if outcome.is_err() {
            break;
        }
    }
    let done = block_on(running.end());
    outcome?;
    let longest = |(began, ended): &(Instant, Instant)| {
        let meets = |write: &&(Instant, Instant)| write.0 < *ended && write.1 > *began;
        let writes = done.slow.iter().filter(meets);
        writes
            .map(|(began, ended)| (*ended - *began).as_secs_f64())
            .fold(SLOW.as_secs_f64(), f64::max)
    };
    Ok(Met {
        longest: spans.iter().map(longest).collect(),
        rate: done.rate,
    })
}

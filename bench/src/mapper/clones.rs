//! Random writes of 4 KiB to a fresh clone of a full volume against the same to a full volume: operations per second, and
//! what reaches the pool. Without the filler, which copies on purpose.

use super::drive::{BLOCK, Done, Load, Operation, flush, rate};
use super::host::Scratch;
use super::report::{Check, per_second, times};
use super::rows::{Random, StoreRows, name, pool_name};
use super::stage::{Stage, median, prepare, quantile};
use atoll_backends::ObjectSize;
use atoll_mapper::format::{LogicalBlock, PoolKind};
use atoll_mapper::meta::OpenMode;
use atoll_mapper::types::ResourceName;
use atoll_mapper::{GcConfig, MapperConfig, NewVolume, Result, VolumeHandle};
use atoll_reactor::{Buf, CoreHandle, block_on};
use std::time::Duration;

const VOLUME_BYTES: u64 = 512 << 20;
const ROUNDS: u64 = 5;
const SPAN: Duration = Duration::from_secs(2);

pub fn run(_: &super::pebibyte::Pebibyte) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (kind, text) in [(PoolKind::Memory, "memory"), (PoolKind::File, "file")] {
        let scratch = Scratch::new();
        prepare(&scratch, OpenMode::Create, async |rows| {
            let store = StoreRows {
                pool: kind,
                next_node: 1,
                mark: 0,
            };
            store.write(rows).await;
        });
        let config = MapperConfig {
            gc: GcConfig {
                fill: false,
                ..GcConfig::default()
            },
            ..MapperConfig::default()
        };
        let stage = Stage::start(&scratch, config);
        checks.extend(measure(&stage, text)?);
        stage.stop();
    }
    Ok(checks)
}

/// The cores that write: all, or the volume's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writers {
    Home,
    All,
}

fn measure(stage: &Stage, pool: &str) -> Result<Vec<Check>> {
    let plain = block_on(full_volume(stage, name("plain")))?;
    block_on(full_volume(stage, name("origin")))?;
    let snapshot = name("snapshot");
    block_on(stage.snapshot(&name("origin"), &snapshot))?;
    let mut checks = Vec::new();
    let mut most = 0.0_f64;
    for (writers, by) in [(Writers::Home, "home core"), (Writers::All, "both cores")] {
        let mut ratios = Vec::new();
        let mut rates = Vec::new();
        // The first one warms up.
        for round in 0..=ROUNDS {
            let clone = name(&format!("clone-{round}"));
            block_on(stage.clone_of(&snapshot, &clone))?;
            let opened = block_on(stage.open(&clone));
            let mut of_plain = Done::default();
            let mut of_clone = Done::default();
            for is_clone in [round % 2 == 0, round % 2 != 0] {
                match is_clone {
                    true => {
                        let before = stage.written.bytes();
                        of_clone = write(stage, &opened, writers, round);
                        let written = (stage.written.bytes() - before) as f64;
                        most = most.max(written / (of_clone.operations * BLOCK) as f64);
                    }
                    false => of_plain = write(stage, &plain, writers, round),
                }
            }
            block_on(stage.mapper.delete_volume(clone))?;
            // Freeing what is on a file system costs, but is not what is measured.
            stage.collected()?;
            if round > 0 {
                ratios.push(of_clone.rate / of_plain.rate);
                rates.push(of_plain.rate);
            }
        }
        let what = format!(
            "{pool} pool, {by}: writes of a fresh clone to a volume's {} ({:.2} to {:.2})",
            per_second(median(&rates)),
            quantile(&ratios, 0.0),
            quantile(&ratios, 1.0),
        );
        checks.push(Check::at_least(what, median(&ratios), 0.8, times));
    }
    let what = format!("{pool} pool: bytes written per byte, the worst clone");
    checks.push(Check::at_most(what, most, 1.1, times));
    Ok(checks)
}

fn write(stage: &Stage, volume: &VolumeHandle, writers: Writers, round: u64) -> Done {
    let load = Load::of(volume, Operation::Write);
    let wanted = |core: &&CoreHandle| writers == Writers::All || core.id() == volume.home().id();
    let cores: Vec<_> = stage.cores().iter().filter(wanted).cloned().collect();
    let done = rate(&load, &cores, round, SPAN);
    // What was written is not written back in the next measurement.
    block_on(flush(volume)).expect("it is flushed");
    done
}

/// A volume all of whose blocks are written, with something that compresses nowhere.
async fn full_volume(stage: &Stage, name: ResourceName) -> Result<VolumeHandle> {
    let new = NewVolume {
        id: stage.fresh_id(),
        name: name.clone(),
        size: VOLUME_BYTES,
        block: LogicalBlock::Bytes512,
        pool: pool_name(),
    };
    stage.mapper.create_volume(new).await?;
    let volume = stage.open(&name).await;
    let (home, filled) = (volume.home().clone(), volume.clone());
    let filling = home.call(move || async move {
        let object = ObjectSize::DEFAULT.bytes();
        let mut data = Buf::alloc(object as usize);
        let mut random = Random(1);
        data.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let data = data.freeze();
        for offset in (0..VOLUME_BYTES).step_by(object as usize) {
            filled.write(offset, data.clone(), false).await?;
        }
        filled.flush().await
    });
    filling.await.expect("the core runs")?;
    Ok(volume)
}

//! Times of snapshot, clone, rollback and delete, and of opening, of a volume of 1 PiB that is mapped completely and of
//! one of 1 GiB, in alternating rounds. What the collector has to do afterwards goes on meanwhile.

use super::drive::touch;
use super::pebibyte::{GIB, PIB, Pebibyte, SPARE, spare_name};
use super::report::{Check, millis, times};
use super::rows::name;
use super::stage::{Stage, median, timed};
use atoll_mapper::types::ResourceName;
use atoll_mapper::{MapperConfig, Result};
use atoll_reactor::block_on;

/// Starts after which the volume is opened for the first time.
const STARTS: usize = 5;
const ROUNDS: u64 = SPARE;
/// Random blocks that are written between the verbs.
const TOUCHED: u64 = 16;
const VERBS: [&str; 6] = [
    "snapshot",
    "clone",
    "rollback",
    "delete of a clone",
    "delete of a snapshot",
    "delete of a volume",
];

type Times = [Vec<f64>; VERBS.len()];

pub fn run(pebibyte: &Pebibyte) -> Result<Vec<Check>> {
    let scratch = pebibyte.scratch();
    let mut opened = Vec::new();
    let mut read = Vec::new();
    for _ in 0..STARTS {
        let stage = Stage::start(scratch, MapperConfig::default());
        let (volume, seconds) = block_on(timed(stage.open(&name("pib"))));
        opened.push(seconds);
        let home = volume.home().clone();
        let reading = home.call(move || async move { volume.read(PIB / 2, 4096).await });
        let (data, seconds) = block_on(timed(reading));
        data.expect("the core runs")?;
        read.push(seconds);
        stage.stop();
    }
    let what = "first opening of 1 PiB after a start";
    let mut checks = vec![Check::at_most(what, median(&opened), 20e-3, millis)];
    checks.push(Check::told("first read after that", millis(median(&read))));

    let stage = Stage::start(scratch, MapperConfig::default());
    let mut all = [Times::default(), Times::default()];
    for round in 0..ROUNDS {
        for ((volume, size), times) in [("pib", PIB), ("gib", GIB)].into_iter().zip(&mut all) {
            block_on(verbs(&stage, &name(volume), size, round, times))?;
        }
    }
    stage.stop();
    let [large, small] = &all;
    for ((what, large), small) in VERBS.iter().zip(large).zip(small) {
        let of = format!("{what}, 1 PiB");
        checks.push(Check::at_most(of, median(large), 10e-3, millis));
        let of = format!("{what}, 1 PiB to 1 GiB ({})", millis(median(small)));
        checks.push(Check::at_most(
            of,
            median(large) / median(small),
            2.0,
            times,
        ));
    }
    Ok(checks)
}

async fn verbs(
    stage: &Stage,
    volume: &ResourceName,
    size: u64,
    round: u64,
    times: &mut Times,
) -> Result<()> {
    let opened = stage.open(volume).await;
    let snapshot = name(&format!("{volume}-snapshot-{round}"));
    let clone = name(&format!("{volume}-clone-{round}"));
    let spare = spare_name(size, round);
    let [
        snapshots,
        clones,
        rollbacks,
        of_clones,
        of_snapshots,
        of_volumes,
    ] = times;

    touch(&opened, TOUCHED, round).await;
    let (made, seconds) = timed(stage.snapshot(volume, &snapshot)).await;
    made?;
    snapshots.push(seconds);

    let (made, seconds) = timed(stage.clone_of(&snapshot, &clone)).await;
    made?;
    clones.push(seconds);
    touch(&stage.open(&clone).await, TOUCHED, round).await;

    touch(&opened, TOUCHED, round).await;
    let rolled = stage.mapper.rollback(volume.clone(), snapshot.clone());
    let (rolled, seconds) = timed(rolled).await;
    rolled?;
    rollbacks.push(seconds);
    touch(&opened, TOUCHED, round).await;

    touch(&stage.open(&spare).await, TOUCHED, round).await;
    for (gone, times) in [
        (clone, of_clones),
        (snapshot, of_snapshots),
        (spare, of_volumes),
    ] {
        let (deleted, seconds) = timed(stage.mapper.delete_volume(gone)).await;
        deleted?;
        times.push(seconds);
    }
    Ok(())
}

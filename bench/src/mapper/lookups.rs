//! Look-ups in resident pages, as reads make them, on the home core, on another, and on both: with pages that stay in
//! the caches, and with many more.

use super::host::own_seconds;
use super::pebibyte::{PIB, Pebibyte};
use super::report::{Check, per_second, times};
use super::rows::{OBJECT_BYTES, name};
use super::stage::{Stage, median};
use atoll_mapper::{MapperConfig, Result, VolumeHandle};
use atoll_reactor::{CoreHandle, block_on, oneshot, yield_now};

/// Bytes of entries of a page, and of the volume that they map.
const PAGE_BYTES: u64 = 4096;
const MAPPED_BY_PAGE: u64 = 512 * OBJECT_BYTES;
/// Pages that are looked at.
const IN_CACHES: u64 = (8 << 20) / PAGE_BYTES;
const IN_MEMORY: u64 = (1 << 30) / PAGE_BYTES;
/// More than the pages and what belongs to them.
const PAGE_MEMORY: usize = 3 << 30;
const LOOKUPS: u64 = 20_000_000;
/// Look-ups in one turn.
const IN_A_TURN: u64 = 1 << 16;
const ROUNDS: usize = 9;

pub fn run(pebibyte: &Pebibyte) -> Result<Vec<Check>> {
    let config = MapperConfig {
        page_memory: PAGE_MEMORY,
        ..MapperConfig::default()
    };
    let stage = Stage::start(pebibyte.scratch(), config);
    let volume = block_on(stage.open(&name("pib")));
    let (home, other): (Vec<_>, Vec<_>) = stage
        .cores()
        .iter()
        .cloned()
        .partition(|core| core.id() == volume.home().id());
    let mut checks = Vec::new();
    for pages in [IN_CACHES, IN_MEMORY] {
        assert!(pages * MAPPED_BY_PAGE <= PIB);
        for core in stage.cores() {
            block_on(fault(core, &volume, pages))?;
        }
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (cores, rates) in [&home[..], &other, stage.cores()].iter().zip(&mut rates) {
                rates.push(block_on(rate(cores, &volume, pages))?);
            }
        }
        let [home, other, both] = &rates;
        let slower: Vec<f64> = home.iter().zip(other).map(|(a, b)| a.min(*b)).collect();
        let alone = home.iter().zip(other).map(|(a, b)| (a + b) / 2.0);
        let ratio: Vec<f64> = both
            .iter()
            .zip(alone)
            .map(|(both, one)| both / one)
            .collect();
        let what = format!("look-ups in {} MiB of pages", (pages * PAGE_BYTES) >> 20);
        if pages == IN_CACHES {
            for (rates, place) in [(home, "home core"), (other, "other core")] {
                let what = format!("{what}, {place}");
                checks.push(Check::at_least(what, median(rates), 50e6, per_second));
            }
            let what = format!("{what}, both cores to one");
            checks.push(Check::at_least(what, median(&ratio), 1.9, times));
        } else {
            let one = format!("{what}, slower core");
            checks.push(Check::told(one, per_second(median(&slower))));
            let two = format!("{what}, both cores to one");
            checks.push(Check::told(two, times(median(&ratio))));
        }
    }
    stage.stop();
    Ok(checks)
}

/// Reads a block by each page, so that the core has them.
async fn fault(core: &CoreHandle, volume: &VolumeHandle, pages: u64) -> Result<()> {
    let volume = volume.clone();
    let faulted = core.call(move || async move {
        for page in 0..pages {
            volume.read(page * MAPPED_BY_PAGE, 4096).await?;
        }
        Ok(())
    });
    faulted.await.expect("the core runs")
}

/// Look-ups per second of these cores together, of the time that they had: other processes only cost caches.
async fn rate(cores: &[CoreHandle], volume: &VolumeHandle, pages: u64) -> Result<f64> {
    let running: Vec<_> = cores
        .iter()
        .map(|core| {
            let (sender, receiver) = oneshot::channel();
            let volume = volume.clone();
            let seed = u64::from(core.id().0);
            let begun = core.spawn(move || async move {
                // Who asks waits for it.
                let _ = sender.send(look_up(volume, pages, seed).await);
            });
            begun.expect("an idle core takes it");
            receiver
        })
        .collect();
    let mut rate = 0.0;
    for core in running {
        rate += core.await.expect("the core runs to the end")?;
    }
    Ok(rate)
}

async fn look_up(volume: VolumeHandle, pages: u64, seed: u64) -> Result<f64> {
    let start = own_seconds();
    let mut done = 0;
    while done < LOOKUPS {
        let found = volume.probe(pages * 512, IN_A_TURN, seed + done).await?;
        assert_eq!(found, IN_A_TURN, "every entry names an object");
        done += IN_A_TURN;
        yield_now().await;
    }
    Ok(done as f64 / (own_seconds() - start))
}

//! Random histories of volumes, snapshots and clones on the simulated reactor, metadata store and pool, with power losses at
//! any step, against a plain model of what may be read. `ATOLL_MODEL_SEED` runs one seed,
//! `ATOLL_MODEL_STEPS` sets the number of operations.

mod client;
mod content;
mod history;
mod io;
mod oracle;
mod quiet;
mod real;
mod verbs;
mod verify;
mod world;

use history::Progress;
use world::World;

/// Operations in a plain test run, over all seeds.
const STEPS: u64 = 100_000;
/// Operations of the long mode (`ATOLL_SOAK=1`): hours.
const SOAK_STEPS: u64 = 20_000_000;
/// Operations on the real stack, and of its long mode.
const REAL_STEPS: u64 = 3_000;
const REAL_SOAK_STEPS: u64 = 500_000;
/// Operations per seed.
const STEPS_PER_SEED: u64 = 500;
const FIRST_SEED: u64 = 1;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn is_soak() -> bool {
    setting("ATOLL_SOAK").is_some_and(|on| on != 0)
}

/// Prints the seed if the test fails on it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with ATOLL_MODEL_SEED={}", self.0);
        }
    }
}

fn run(seed: u64, steps: u64) -> Progress {
    let _named = Seed(seed);
    let mut world = World::new(seed);
    while world.progress().operations < steps {
        world.live();
    }
    world.progress()
}

#[test]
fn histories_with_power_losses_agree_with_the_model() {
    if let Some(seed) = setting("ATOLL_MODEL_SEED") {
        println!(
            "{:?}",
            run(seed, setting("ATOLL_MODEL_STEPS").unwrap_or(STEPS_PER_SEED))
        );
        return;
    }
    let plain = if is_soak() { SOAK_STEPS } else { STEPS };
    let wanted = setting("ATOLL_MODEL_STEPS").unwrap_or(plain);
    let mut total = Progress::default();
    let mut seed = FIRST_SEED;
    while total.operations < wanted {
        total.add(&run(seed, STEPS_PER_SEED));
        seed += 1;
    }
    println!("{} seeds: {total:?}", seed - FIRST_SEED);
    // A history in which nothing happens proves nothing.
    assert!(total.crashes > 100 && total.clean_stops > 20, "{total:?}");
    assert!(total.flushes > 100 && total.verified > 1000, "{total:?}");
    assert!(total.snapshots > 100 && total.clones > 50, "{total:?}");
    assert!(total.rollbacks > 50 && total.copies > 50, "{total:?}");
    assert!(total.flattened > 50 && total.quiet > 20, "{total:?}");
}

#[test]
fn histories_on_rocksdb_and_a_file_pool_agree_with_the_model() {
    let steps = if is_soak() {
        REAL_SOAK_STEPS
    } else {
        REAL_STEPS
    };
    let seed = setting("ATOLL_MODEL_SEED").unwrap_or(FIRST_SEED);
    let _named = Seed(seed);
    let done = real::run(seed, steps);
    println!("{done:?}");
    assert!(
        done.crashes > 3 && done.flushes > 50 && done.verified > 1000,
        "{done:?}"
    );
}

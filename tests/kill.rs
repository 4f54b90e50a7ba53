//! `kill -9` under initiators that write, unmap and flush: what was flushed is there afterwards, nothing is torn, and
//! nothing is in a volume that was not written to it.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::fsck;
use atoll_e2e::verify::{Load, Tag, verify};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOLUME_MIB: u64 = 16;
const SESSIONS: u64 = 3;

#[test]
fn what_was_flushed_survives_kill_and_nothing_foreign_appears() {
    let rounds = if soak() { 500 } else { 25 };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(Options::in_dir(scratch.path()));
    let loads: Vec<Load> = (0..2)
        .map(|index| {
            let name = format!("vol{index}");
            daemon.export_new(&name, &format!("{VOLUME_MIB}M"), &[]);
            Load::new(&name, (VOLUME_MIB << 20) / 512, SESSIONS, Tag(seed ^ index))
        })
        .collect();
    for round in 0..rounds {
        let writers: Vec<_> = loads
            .iter()
            .map(|load| load.start(daemon.iscsi(), rng.random()))
            .collect();
        for writers in &writers {
            writers.wait_for(rng.random_range(1..120));
        }
        let options = daemon.kill();
        for failure in writers.into_iter().flat_map(|writers| writers.join()) {
            assert!(
                failure.is_disconnect(),
                "round {round}: refused before the kill: {failure}"
            );
        }
        fsck(&options.data);
        daemon = Daemon::start(options);
        for load in &loads {
            verify(load, daemon.iscsi());
        }
    }
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    fsck(&options.data);
}

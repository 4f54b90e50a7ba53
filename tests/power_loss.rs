//! Power loss on the real stack: pool and metadata on a file system that forgets what was not synced.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::fsck;
use atoll_e2e::powerfs::PowerFs;
use atoll_e2e::verify::{Load, Tag, verify_torn};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOLUME_MIB: u64 = 16;
const SESSIONS: u64 = 2;

#[test]
fn what_was_flushed_survives_power_loss() {
    let rounds = if soak() { 500 } else { 25 };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let mut fs = match PowerFs::mount(&scratch.dir("mnt"), seed) {
        Ok(fs) => fs,
        Err(error) => return eprintln!("skipped: FUSE cannot be used here: {error}"),
    };
    let options = Options {
        data: fs.path().join("data"),
        ..Options::in_dir(scratch.path())
    };
    // That file system has no sockets.
    let socket = scratch.path().join("admin.sock");
    let options = options.arg("--admin").arg(socket.display().to_string());
    let mut daemon = Daemon::start(options);
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
        // Sometimes the daemon dies first and is started again: what it reads then must not depend on what its
        // predecessor left unsynced.
        let restarted = rng.random_bool(0.25);
        if restarted {
            daemon = Daemon::start(daemon.kill());
            loads
                .iter()
                .for_each(|load| verify_torn(load, daemon.iscsi()));
        }
        let survival = fs.lose_power();
        let options = daemon.kill();
        writers.into_iter().for_each(|writers| drop(writers.join()));
        fs.restore_power()
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        eprintln!(
            "round {round}: {survival:?} of what was not synced survived; restarted before: {restarted}"
        );
        fsck(&options.data);
        daemon = Daemon::start(options);
        loads
            .iter()
            .for_each(|load| verify_torn(load, daemon.iscsi()));
    }
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    fsck(&options.data);
}

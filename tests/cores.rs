//! One volume served from several cores: sessions on all of them overlap in all that they do, and none of them ever
//! reads what is torn, foreign or was replaced before; nor does who reads it after a crash.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use atoll_e2e::daemon::fsck;
use atoll_e2e::verify::{BLOCK_SECTORS, Lba, Load, SECTOR, Tag, verify};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOLUME_MIB: u64 = 16;
/// Small, so that long commands span several and unmap whole ones.
const OBJECT_SIZE: &str = "256K";
const SESSIONS: u64 = 4;
const OPERATIONS: u64 = 100_000;
/// How often the volume is cut off while it is in use.
const CUTS: u64 = 50;

fn sessions_of_cores(daemon: &Daemon) -> Vec<u64> {
    let status = daemon.json(&["status"]);
    let cores = status["cores"].as_array().expect("cores");
    let sessions = cores.iter().map(|core| core["sessions"].as_u64());
    sessions.map(|count| count.expect("a number")).collect()
}

#[test]
fn four_sessions_on_two_cores_share_a_volume_and_read_nothing_torn_foreign_or_stale() {
    let operations = if soak() { 100 * OPERATIONS } else { OPERATIONS };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ u64::MAX);
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    let pool = scratch.path().join("pool");
    let path = pool.to_str().expect("UTF-8");
    let small = ["pool", "add", "small", "--type", "file", "--path", path];
    daemon.run(&[&small[..], &["--object-size", OBJECT_SIZE]].concat());
    daemon.export_new("vol", &format!("{VOLUME_MIB}M"), &["--pool", "small"]);
    let sectors = (VOLUME_MIB << 20) / SECTOR as u64;
    let load = Load::new("vol", sectors, SESSIONS, Tag(seed));

    let sharers = load.share(daemon.iscsi(), seed, operations);
    sharers.wait_for(operations / 100);
    assert_eq!(sessions_of_cores(&daemon), [2, 2]);
    for cut in 1..CUTS {
        sharers.wait_for(operations / CUTS * cut);
        // Every other time where most commands go.
        let range = match rng.random_bool(0.5) {
            true => load.crowd(),
            false => sectors / 2..sectors,
        };
        let at = rng.random_range(range) / BLOCK_SECTORS * BLOCK_SECTORS;
        let size = (at * SECTOR as u64).to_string();
        let resize = |size: &str| drop(daemon.run(&["volume", "resize", "vol", size]));
        load.cut(
            Lba(at),
            || resize(&size),
            || resize(&format!("{VOLUME_MIB}M")),
        );
    }
    sharers.join();
    let options = daemon.kill();
    fsck(&options.data);
    let daemon = Daemon::start(options);
    verify(&load, daemon.iscsi());
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    fsck(&options.data);
}

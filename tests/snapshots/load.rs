//! Snapshots of a volume that several sessions write to from two cores.

use atoll_e2e::initiator::{Durability, Failure, SECTOR};
use atoll_e2e::verify::{Image, Load, Tag, look, verify_image};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{NOTHING, add_pool, collect, delete, fsck_deep, login};

const VOLUME_MIB: u64 = 8;
const SESSIONS: u64 = 4;
const SNAPSHOTS: u64 = 10;
/// Snapshots that are read again after each deletion.
const LOOKED_AT: usize = 4;
/// Between two snapshots.
const OPERATIONS: u64 = 2000;

fn refuses_to_be_written(daemon: &Daemon, snapshot: &str) {
    let mut session = login(daemon.iscsi(), snapshot);
    let refused = |what: Result<(), Failure>| match what {
        Err(failure) => assert!(failure.is_write_protected(), "{snapshot}: {failure}"),
        Ok(()) => panic!("{snapshot} was written to"),
    };
    for durability in [Durability::Flush, Durability::Now] {
        refused(session.write(8, &mut [7; 8 * SECTOR], durability));
    }
    refused(session.write(3, &mut [7; SECTOR], Durability::Flush));
    refused(session.unmap(0, 64));
    session.logout();
}

#[test]
fn a_snapshot_under_load_is_one_instant_and_never_changes_whatever_is_deleted_beside_it() {
    let snapshots = if soak() { 20 * SNAPSHOTS } else { SNAPSHOTS };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    add_pool(&daemon, "256K");
    daemon.export_new("vol", &format!("{VOLUME_MIB}M"), &["--pool", "small"]);
    let sectors = (VOLUME_MIB << 20) / SECTOR as u64;
    let load = Load::new("vol", sectors, SESSIONS, Tag(seed));
    let sharers = load.share(daemon.iscsi(), seed, OPERATIONS * (snapshots + 1));

    let mut taken: Vec<(String, Image)> = Vec::new();
    for number in 0..snapshots {
        sharers.wait_for(OPERATIONS * (number + 1));
        let name = format!("snap{number}");
        let cut = load.begin_cut();
        daemon.run(&["volume", "snapshot", "vol", &name]);
        let mut image = load.end_cut(&cut, true);
        daemon.run(&["export", "add", &name]);
        verify_image(&mut image, &name, daemon.iscsi());
        refuses_to_be_written(&daemon, &name);
        taken.push((name, image));
        // The collector merges what was between snapshots while the volume is written to.
        if rng.random_bool(0.4) {
            let (name, _) = taken.swap_remove(rng.random_range(0..taken.len()));
            delete(&daemon, &name);
            daemon.run(&["gc", "run"]);
        }
    }
    sharers.join();
    look(&load, daemon.iscsi());

    for (name, image) in &mut taken {
        verify_image(image, name, daemon.iscsi());
    }
    while !taken.is_empty() {
        taken.shuffle(&mut rng);
        let (name, _) = taken.swap_remove(0);
        delete(&daemon, &name);
        if rng.random_bool(0.3) {
            daemon.run(&["gc", "run", "--wait"]);
        }
        for (name, image) in taken.iter_mut().take(LOOKED_AT) {
            verify_image(image, name, daemon.iscsi());
        }
    }
    collect(&daemon);
    look(&load, daemon.iscsi());
    let usage = daemon.json(&["pool", "show", "small"])["usage"].clone();
    assert_eq!(usage["shared"], 0, "{usage}");

    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(fsck_deep(&options.data), NOTHING);
    let daemon = Daemon::start(options);
    look(&load, daemon.iscsi());
}

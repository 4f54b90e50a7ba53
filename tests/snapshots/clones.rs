//! Many clones of one image, each written to by its own session, through crashes.

use std::fs;
use std::path::Path;

use atoll_e2e::daemon::fsck;
use atoll_e2e::initiator::SECTOR;
use atoll_e2e::verify::{Fork, Image, Load, Tag, verify, verify_image};
use atoll_e2e::{Daemon, Options, Scratch, process, seed, soak, tools};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{NOTHING, add_pool, collect, delete, fsck_deep};

const CLONES: u64 = 8;
const VOLUME_BYTES: u64 = 6 << 20;
/// Of these the image has data; the rest is zeros.
const DATA_BYTES: usize = 5 << 20;
/// Acknowledged writes of each clone that are waited for.
const WRITES: u64 = 12;

/// Makes a qcow2 image of what the oracle says, and converts that onto the volume.
fn install(load: &Load, daemon: &Daemon, dir: &Path) {
    let mut data = vec![0; DATA_BYTES];
    load.begins_with(&mut data);
    data.resize(VOLUME_BYTES as usize, 0);
    let (raw, image) = (dir.join("image.raw"), dir.join("image.qcow2"));
    fs::write(&raw, data).expect("written");
    let mut command = tools::qemu("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]);
    process::succeed(command.arg(&raw).arg(&image));
    let mut command = tools::qemu("qemu-img");
    command.args(["convert", "-n", "-f", "qcow2", "-O", "raw"]);
    process::succeed(command.arg(&image).arg(daemon.url(load.export())));
}

fn snapshot(daemon: &Daemon, load: &Load, name: &str) -> Image {
    let cut = load.begin_cut();
    daemon.run(&["volume", "snapshot", load.export(), name]);
    let image = load.end_cut(&cut, true);
    daemon.run(&["export", "add", name]);
    image
}

#[test]
fn clones_of_an_image_diverge_and_keep_what_was_flushed_and_snapshotted_through_kill() {
    let rounds = if soak() { 60 } else { 3 };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    add_pool(&daemon, "256K");
    daemon.export_new("image", &VOLUME_BYTES.to_string(), &["--pool", "small"]);
    let image = Load::new("image", VOLUME_BYTES / SECTOR as u64, 1, Tag(seed));
    install(&image, &daemon, scratch.path());
    let mut gold = snapshot(&daemon, &image, "gold");
    verify_image(&mut gold, "gold", daemon.iscsi());
    let clones: Vec<Load> = (1..=CLONES)
        .map(|number| {
            let name = format!("clone{number}");
            daemon.run(&["volume", "clone", "gold", &name]);
            daemon.run(&["export", "add", &name]);
            Load::of_image(&gold, Fork(number), &name, 1)
        })
        .collect();
    let mut taken: Vec<(String, Image, usize)> = Vec::new();
    for round in 0..rounds {
        let start = |load: &Load| load.start(daemon.iscsi(), rng.random());
        let writers: Vec<_> = clones.iter().map(start).collect();
        let wait = || writers.iter().for_each(|writers| writers.wait_for(WRITES));
        wait();
        match round {
            0 => delete(&daemon, "gold"),
            1 => delete(&daemon, "image"),
            _ => drop(daemon.run(&["gc", "run"])),
        }
        wait();
        let flattened = rng.random_range(0..clones.len());
        daemon.run(&["volume", "flatten", clones[flattened].export()]);
        for _ in 0..2 {
            let of = rng.random_range(0..clones.len());
            let name = format!("{}-{round}-{}", clones[of].export(), taken.len());
            taken.push((name.clone(), snapshot(&daemon, &clones[of], &name), of));
        }
        wait();
        let options = daemon.kill();
        for failure in writers.into_iter().flat_map(|writers| writers.join()) {
            assert!(
                failure.is_disconnect(),
                "round {round}: refused before the kill: {failure}"
            );
        }
        fsck(&options.data);
        daemon = Daemon::start(options);

        // One goes back to a snapshot, and is that from now on. One that was flattened has no older relatives.
        let (to, to_image, of) = &taken[rng.random_range(taken.len() - 2..taken.len())];
        daemon.run(&["volume", "rollback", clones[*of].export(), to]);
        clones[*of].roll_back(to_image);
        for (name, image, _) in &mut taken {
            verify_image(image, name, daemon.iscsi());
        }
        for clone in &clones {
            verify(clone, daemon.iscsi());
        }
        while taken.len() > CLONES as usize {
            let (name, ..) = taken.swap_remove(rng.random_range(0..taken.len()));
            delete(&daemon, &name);
        }
    }
    collect(&daemon);
    for (name, image, _) in &mut taken {
        verify_image(image, name, daemon.iscsi());
    }
    for clone in &clones {
        verify(clone, daemon.iscsi());
    }
    collect(&daemon);
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    let mut findings = fsck_deep(&options.data);
    // Nodes without a name that several clones inherit from, which is no garbage.
    findings.retain(|kind| kind != "collecting");
    assert_eq!(findings, NOTHING);
}

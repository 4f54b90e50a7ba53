//! `kill -9` and power losses in the middle of verbs, under initiators that write: what was answered is done, what was
//! not is done or not, and no half of it.

use std::process::{Output, Stdio};

use atoll_e2e::daemon::fsck;
use atoll_e2e::powerfs::PowerFs;
use atoll_e2e::verify::{Load, Writers};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::forest::{Begun, Forest, Verb};
use super::{NOTHING, add_pool, collect, fsck_deep};

const VOLUMES: u64 = 3;
/// Of these volumes, so many are written to at a time.
const WRITTEN: usize = 2;
/// Exit code of the command line for a daemon that is gone.
const UNAVAILABLE: i32 = 5;

fn run(daemon: &Daemon, verb: &Verb) {
    let args = verb.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    daemon.run(&args);
}

/// Whether a verb was answered before the crash.
fn was_answered(verb: &Begun, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => true,
        Some(UNAVAILABLE) => false,
        _ => panic!("{:?}: {}: {said}", verb.verb(), output.status),
    }
}

/// How a daemon ends.
enum Crash {
    Kill,
    Power(PowerFs),
}

impl Crash {
    fn happen(&mut self, daemon: Daemon, writers: Vec<Writers>) -> Options {
        let options = match self {
            Crash::Kill => daemon.kill(),
            Crash::Power(fs) => {
                let survival = fs.lose_power();
                eprintln!("{survival:?} of what was not synced survived");
                daemon.kill()
            }
        };
        for failure in writers.into_iter().flat_map(Writers::join) {
            let power = matches!(self, Crash::Power(_));
            assert!(
                power || failure.is_disconnect(),
                "refused before the kill: {failure}"
            );
        }
        if let Crash::Power(fs) = self {
            fs.restore_power().unwrap_or_else(|e| panic!("{e}"));
        }
        options
    }

    /// Whether writes may be torn at sectors.
    fn tears(&self) -> bool {
        matches!(self, Crash::Power(_))
    }
}

#[test]
fn verbs_that_a_kill_meets_are_done_or_not_and_what_was_answered_before_is() {
    let rounds = if soak() { 400 } else { 8 };
    let seed = seed();
    let scratch = Scratch::new();
    let options = Options::in_dir(scratch.path()).arg("--cores").arg("0,1");
    survives(options, Crash::Kill, rounds, seed);
}

#[test]
fn verbs_that_a_power_loss_meets_are_done_or_not_and_what_was_answered_before_is() {
    let rounds = if soak() { 400 } else { 8 };
    let seed = seed();
    let scratch = Scratch::new();
    let fs = match PowerFs::mount(&scratch.dir("mnt"), seed) {
        Ok(fs) => fs,
        Err(error) => return eprintln!("skipped: FUSE cannot be used here: {error}"),
    };
    // That file system has no sockets.
    let socket = scratch.path().join("admin.sock");
    let options = Options {
        data: fs.path().join("data"),
        ..Options::in_dir(scratch.path())
    };
    let options = options.arg("--admin").arg(socket.display().to_string());
    let options = options.arg("--cores").arg("0,1");
    survives(options, Crash::Power(fs), rounds, seed);
}

fn survives(options: Options, mut crash: Crash, rounds: u64, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut daemon = Daemon::start(options);
    add_pool(&daemon, "64K");
    let mut forest = Forest::new(&daemon, VOLUMES, seed, crash.tears());
    for round in 0..rounds {
        let loads = forest.occupy(WRITTEN, &mut rng);
        let start = |load: &Load| load.start(daemon.iscsi(), rng.random());
        let writers: Vec<_> = loads.iter().map(start).collect();
        for _ in 0..rng.random_range(1..5) {
            let verb = forest.choose(&daemon, &mut rng);
            eprintln!("round {round}: {verb:?}");
            let begun = forest.begin(verb);
            run(&daemon, begun.verb());
            forest.answered(begun, &daemon);
        }

        let verb = forest.choose(&daemon, &mut rng);
        let begun = forest.begin(verb);
        let args = begun.verb().args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = daemon.command(&args);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("setpriv");
        // As likely to be few as many.
        let most = 1 << rng.random_range(0..=5);
        let writes = rng.random_range(0..=most);
        writers[0].wait_for(writes);
        let options = crash.happen(daemon, writers);
        let output = child.wait_with_output().expect("it ends");
        forest.vacate();
        let answered = was_answered(&begun, &output);
        eprintln!(
            "round {round}: crash, answered {answered}: {:?}",
            begun.verb()
        );
        fsck(&options.data);
        daemon = Daemon::start(options);
        match answered {
            true => forest.answered(begun, &daemon),
            false => {
                let doubt = forest.unanswered(begun);
                let done = forest.resolve(doubt, &daemon);
                eprintln!("round {round}: it was done: {done}");
            }
        }
        forest.verify(&daemon);
        if rng.random_bool(0.3) {
            collect(&daemon);
            forest.verify(&daemon);
        }
    }
    forest.delete_all(&daemon, &mut rng);
    collect(&daemon);
    let usage = daemon.json(&["pool", "show", "small"])["usage"].clone();
    assert_eq!(usage["mapped"], 0, "{usage}");
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(fsck_deep(&options.data), NOTHING);
}

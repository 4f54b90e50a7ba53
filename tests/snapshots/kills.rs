//! `kill -9` in the middle of verbs, under initiators that write: what was answered is done, what was not is done or
//! not, and no half of it.

use std::process::{Output, Stdio};

use atoll_e2e::daemon::fsck;
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

/// Whether a verb was answered before the daemon was killed.
fn was_answered(verb: &Begun, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => true,
        Some(UNAVAILABLE) => false,
        _ => panic!("{:?}: {}: {said}", verb.verb(), output.status),
    }
}

#[test]
fn verbs_that_a_kill_meets_are_done_or_not_and_what_was_answered_before_is() {
    let rounds = if soak() { 400 } else { 8 };
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    add_pool(&daemon, "64K");
    let mut forest = Forest::new(&daemon, VOLUMES, seed);
    for round in 0..rounds {
        let loads = forest.occupy(WRITTEN, &mut rng);
        let start = |load: &atoll_e2e::verify::Load| load.start(daemon.iscsi(), rng.random());
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
        let options = daemon.kill();
        let output = child.wait_with_output().expect("it ends");
        for failure in writers.into_iter().flat_map(|writers| writers.join()) {
            assert!(
                failure.is_disconnect(),
                "round {round}: refused before the kill: {failure}"
            );
        }
        forest.vacate();
        let answered = was_answered(&begun, &output);
        eprintln!(
            "round {round}: killed, answered {answered}: {:?}",
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

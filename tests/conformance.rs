//! libiscsi's conformance tests, each in a process of its own, against what `iscsi-test-cu.expected` says of them.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::thread;

use atoll_e2e::{Daemon, Options, Scratch, process};

const PROGRAM: &str = "iscsi-test-cu";
/// Tests that run at a time, each on a volume of its own.
const WORKERS: usize = 4;
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Pass,
    /// The test found nothing to try; why, in its words.
    Skip(String),
    Fail,
    /// It ended without a result.
    None,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Pass => write!(f, "pass"),
            Outcome::Skip(why) => write!(f, "skip {why}"),
            Outcome::Fail => write!(f, "fail"),
            Outcome::None => write!(f, "no result"),
        }
    }
}

/// `TEST pass`, `TEST skip REASON` or `TEST fail REASON` in each line; the reason of a skip is the program's, that of a
/// failure ours. In the order of the file.
fn expected() -> Vec<(&'static str, Outcome)> {
    let lines = include_str!("iscsi-test-cu.expected")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match *line.splitn(3, ' ').collect::<Vec<_>>() {
            [test, "pass"] => (test, Outcome::Pass),
            [test, "skip", why] => (test, Outcome::Skip(why.into())),
            [test, "fail", why] if !why.is_empty() => (test, Outcome::Fail),
            _ => panic!(
                "iscsi-test-cu.expected: {line:?} is neither `TEST pass` nor `TEST skip REASON` nor `TEST fail REASON`"
            ),
        })
        .collect()
}

/// The URLs that a test is given. One that needs a volume of a special kind gets a new one, so that nothing is left on it.
fn urls(daemon: &Daemon, test: &str, volume: &str) -> Vec<String> {
    let own = test.to_ascii_lowercase().replace('.', "-");
    match test.split('.').collect::<Vec<_>>()[..] {
        // There is nothing to see in a read-only unit that is writable.
        [_, "ReadOnly", _] => {
            daemon.run(&["volume", "create", &own, "--size", "128M"]);
            daemon.run(&["export", "add", &own, "--iscsi", "--read-only"]);
            vec![daemon.url(&own)]
        }
        // Two sessions with one unit. Some count on blocks that were never written.
        [_, "MultipathIO", _] => {
            daemon.export_new(&own, "128M", &[]);
            vec![daemon.url(&own); 2]
        }
        // It expects that an answer begins with the physical block after the one that holds the first block asked for,
        // which can be so only where each logical block is a physical one.
        [_, "GetLBAStatus", "UnmapSingle"] => {
            daemon.export_new(&own, "128M", &["--block-size", "4096"]);
            vec![daemon.url(&own)]
        }
        _ => vec![daemon.url(volume)],
    }
}

fn run(test: &str, urls: &[String]) -> (Outcome, String) {
    // Its own limit, should it hang: the result is then none.
    let output = process::run(
        process::command("timeout")
            .args(["60", PROGRAM, "--dataloss", "--test", test])
            .args(urls),
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // What the program says after the verdict is about its own tidying up.
    let own = said.split_once("Test: ").map_or("", |(_, rest)| rest);
    let own = own.split_once("passed").map_or(own, |(before, _)| before);
    let skipped = own.lines().find_map(|line| line.split_once("[SKIPPED] "));
    // CUnit's summary: total, ran, passed, failed. Its tests print "[FAILED]" also about what they only probe.
    let counts = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("tests "));
    let counts: Vec<&str> = counts.unwrap_or("").split_whitespace().take(4).collect();
    let outcome = match (counts.as_slice(), skipped) {
        (["1", "1", "1", "0"], None) => Outcome::Pass,
        (["1", "1", "1", "0"], Some((_, why))) => Outcome::Skip(why.trim().into()),
        (["1", "1", ..], _) => Outcome::Fail,
        _ => Outcome::None,
    };
    (outcome, said)
}

#[test]
fn every_test_that_the_program_has_is_expected_to_end_some_way() {
    let listed = process::succeed(process::command(PROGRAM).arg("--list"));
    let listed: BTreeSet<&str> = listed
        .lines()
        .filter(|line| matches!(line.split('.').collect::<Vec<_>>()[..], ["ALL", _, _]))
        .collect();
    assert!(listed.len() >= 200, "the list of tests looks different");
    let expected = expected();
    let named: BTreeSet<&str> = expected.iter().map(|(test, _)| *test).collect();
    assert_eq!(named.len(), expected.len(), "a test is named twice");
    let missing: Vec<_> = listed.difference(&named).collect();
    assert!(
        missing.is_empty(),
        "not in iscsi-test-cu.expected: {missing:#?}"
    );
}

#[test]
fn iscsi_test_cu_ends_as_expected() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    let expected = expected();
    let todo = Mutex::new(expected.iter());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (daemon, todo, wrong) = (&daemon, &todo, &wrong);
            let volume = format!("vol{worker}");
            daemon.export_new(&volume, "128M", &[]);
            scope.spawn(move || {
                loop {
                    let next = todo.lock().expect("no panic").next();
                    let Some((test, expected)) = next else { return };
                    let (outcome, said) = run(test, &urls(daemon, test, &volume));
                    if outcome != *expected {
                        wrong
                            .lock()
                            .expect("no panic")
                            .push(format!("{test} {outcome}\n  expected: {expected}\n{said}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(
        wrong.is_empty(),
        "{} of {} ended otherwise:\n{}",
        wrong.len(),
        expected.len(),
        wrong.join("\n")
    );
}

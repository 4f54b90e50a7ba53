//! libiscsi's conformance tests, each in a process of its own, against what `iscsi-test-cu.expected` says of them.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::thread;

use atoll_e2e::{Daemon, Options, Scratch, process};

const PROGRAM: &str = "iscsi-test-cu";
/// Tests that run at a time, each on a volume of its own.
const WORKERS: usize = 4;
/// Families of which every test must be in the file: none is left out unseen.
const FAMILIES: [&str; 23] = [
    "TestUnitReady",
    "Inquiry",
    "Mandatory",
    "ReadCapacity10",
    "ReadCapacity16",
    "Read6",
    "Read10",
    "Read12",
    "Read16",
    "Write10",
    "Write12",
    "Write16",
    "ReportSupportedOpcodes",
    "ModeSense6",
    "ReadOnly",
    "Unmap",
    "WriteSame10",
    "WriteSame16",
    "NoMedia",
    "StartStopUnit",
    "iSCSIcmdsn",
    "iSCSIdatasn",
    "iSCSIResiduals",
];

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

/// `TEST pass` or `TEST skip REASON` in each line, as this test prints them.
fn expected() -> BTreeMap<&'static str, Outcome> {
    let lines = include_str!("iscsi-test-cu.expected")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(' ') {
            Some((test, "pass")) => (test, Outcome::Pass),
            Some((test, skip)) if skip.starts_with("skip ") => {
                (test, Outcome::Skip(skip["skip ".len()..].into()))
            }
            _ => panic!(
                "iscsi-test-cu.expected: {line:?} is neither `TEST pass` nor `TEST skip REASON`"
            ),
        })
        .collect()
}

fn run(test: &str, url: &str) -> (Outcome, String) {
    // Its own limit, should it hang: the result is then none.
    let output = process::run(process::command("timeout").args([
        "60",
        PROGRAM,
        "--dataloss",
        "--test",
        test,
        url,
    ]));
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
fn every_test_of_a_required_family_is_expected_to_pass_or_to_skip_for_a_reason() {
    let listed = process::succeed(process::command(PROGRAM).arg("--list"));
    let required: BTreeSet<&str> = listed
        .lines()
        .filter(|line| matches!(line.split('.').collect::<Vec<_>>()[..], ["ALL", family, _] if FAMILIES.contains(&family)))
        .collect();
    assert!(
        required.len() > 90,
        "the list of tests looks different: {listed}"
    );
    let expected = expected();
    let missing: Vec<_> = required
        .iter()
        .filter(|test| !expected.contains_key(**test))
        .collect();
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
            // There is nothing to see in a read-only unit that is writable.
            let read_only = format!("{volume}-ro");
            daemon.run(&["volume", "create", &read_only, "--size", "128M"]);
            daemon.run(&["export", "add", &read_only, "--iscsi", "--read-only"]);
            scope.spawn(move || {
                loop {
                    let next = todo.lock().expect("no panic").next();
                    let Some((test, expected)) = next else { return };
                    let export = if test.starts_with("ALL.ReadOnly.") {
                        &read_only
                    } else {
                        &volume
                    };
                    let (outcome, said) = run(test, &daemon.url(export));
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

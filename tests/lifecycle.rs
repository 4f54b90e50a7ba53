//! Starting, stopping and being idle.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::fs;
use std::thread;
use std::time::Duration;

use atoll_e2e::daemon::{IQN, fsck};
use atoll_e2e::initiator::{Durability, Initiator};
use atoll_e2e::process::Signal;
use atoll_e2e::raw::RawSession;
use atoll_e2e::{Daemon, Options, Scratch};
use serde_json::json;

const INITIATOR: &str = "iqn.2026-11.test:lifecycle";
const SECTOR: usize = 512;

fn login(daemon: &Daemon, volume: &str) -> Initiator {
    Initiator::login(daemon.iscsi(), &format!("{IQN}:{volume}"), INITIATOR)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn sigterm_keeps_even_what_was_not_flushed_and_a_restart_serves_it() {
    for signal in [Signal::Term, Signal::Int] {
        let scratch = Scratch::new();
        let daemon = Daemon::start(Options::in_dir(scratch.path()));
        daemon.export_new("vol", "16M", &[]);
        let mut data = vec![0x42; 64 * SECTOR];
        login(&daemon, "vol")
            .write(100, &mut data, Durability::Flush)
            .unwrap_or_else(|e| panic!("{e}"));
        daemon.signal(signal);
        let (options, status) = daemon.wait();
        assert!(status.success(), "{signal:?}: {status}");
        fsck(&options.data);
        let daemon = Daemon::start(options);
        let read = login(&daemon, "vol")
            .read(100, 64)
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(read == data, "{signal:?}: other data after the restart");
    }
}

#[test]
fn a_second_sigterm_ends_a_stop_that_waits_for_an_initiator() {
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new("vol", "16M", &[]);
    let mut deaf = login(&daemon, "vol"); // answers nothing: libiscsi runs only inside its calls
    let mut data = vec![0x17; SECTOR];
    deaf.write(0, &mut data, Durability::Now)
        .unwrap_or_else(|e| panic!("{e}"));
    daemon.signal(Signal::Term);
    if daemon.is_running() {
        daemon.signal(Signal::Term);
    }
    let (options, _status) = daemon.wait();
    let daemon = Daemon::start(options);
    let read = login(&daemon, "vol")
        .read(0, 1)
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(read == data, "a write with FUA was lost");
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused_and_the_first_goes_on() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new("vol", "16M", &[]);
    let other = Options {
        log: scratch.path().join("other-log"),
        ..daemon.options().clone()
    };
    let (status, said) = other.start_refused();
    assert!(!status.success(), "{status}");
    assert!(
        !said.contains("panicked") && !said.trim().is_empty(),
        "{said}"
    );
    assert!(
        login(&daemon, "vol").sectors().is_ok(),
        "the first daemon no longer serves"
    );
}

#[test]
fn listening_beyond_loopback_needs_to_be_said() {
    let scratch = Scratch::new();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let open = Options {
            iscsi: address.into(),
            ..Options::in_dir(scratch.path())
        };
        let (status, said) = open.start_refused();
        assert!(!status.success(), "{address}: {status}");
        assert!(
            said.contains("--insecure-no-auth"),
            "{address}: says no way out: {said}"
        );
    }
    let said = Options {
        iscsi: "0.0.0.0:0".into(),
        ..Options::in_dir(scratch.path())
    }
    .arg("--insecure-no-auth");
    let (_options, status) = Daemon::start(said).stop();
    assert!(status.success(), "{status}");
}

#[test]
fn an_unknown_option_of_the_configuration_is_refused_by_name() {
    let scratch = Scratch::new();
    let config = scratch.path().join("atoll.toml");
    fs::write(&config, "[iscsi]\nqueue_dept = 3\n").expect("write");
    let options = Options::in_dir(scratch.path())
        .arg("--config")
        .arg(config.to_str().expect("UTF-8"));
    let (status, said) = options.start_refused();
    assert!(
        !status.success() && said.contains("queue_dept"),
        "{status}: {said}"
    );
}

/// R5: under 1 % of a core over 10 s, at most 150 MiB.
#[test]
fn a_daemon_with_a_thousand_volumes_is_idle_and_small() {
    const VOLUMES: usize = 1000;
    const WINDOW: Duration = Duration::from_secs(10);
    const WINDOWS: usize = 3; // the last of the work of creating them may reach into the first
    const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux
    const MAX_RSS_KIB: u64 = 150 << 10;
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    for index in 0..VOLUMES {
        let name = format!("vol{index}");
        daemon.post(
            "/v1/volumes",
            &json!({ "name": name, "size": 10_u64 << 30 }),
        );
        daemon.post("/v1/exports", &json!({ "name": name }));
    }
    let daemon = Daemon::start(daemon.stop().0);
    assert_eq!(
        daemon.json(&["export", "list"]).as_array().map(Vec::len),
        Some(VOLUMES)
    );
    let limit = WINDOW.as_secs() * TICKS_PER_SECOND / 100;
    let mut used = Vec::new();
    while used.len() < WINDOWS && used.last().is_none_or(|&ticks| ticks >= limit) {
        let before = daemon.cpu_ticks();
        thread::sleep(WINDOW);
        used.push(daemon.cpu_ticks() - before);
    }
    let idle = used.last().is_some_and(|&ticks| ticks < limit);
    assert!(
        idle,
        "CPU ticks in each {WINDOW:?}: {used:?}, limit {limit}"
    );
    let rss = daemon.rss_kib();
    assert!(rss <= MAX_RSS_KIB, "{rss} KiB resident");
    eprintln!("{VOLUMES} volumes: CPU ticks in {WINDOW:?}: {used:?}; {rss} KiB resident");
}

/// R5: a hundred sessions that are idle take under 1 % of a core over 10 s and 64 KiB each at most, and are served when
/// they have something to do again.
#[test]
fn a_hundred_idle_sessions_cost_nothing_and_are_answered_at_once() {
    const SESSIONS: u32 = 100;
    const WARM: u32 = 32;
    const SETTLED: Duration = Duration::from_millis(300);
    const WINDOW: Duration = Duration::from_secs(10);
    const WINDOWS: usize = 3; // the last of the work before may reach into the first
    const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux
    const MAX_KIB: u64 = 64;
    let scratch = Scratch::new();
    let config = scratch.path().join("atoll.toml");
    std::fs::write(
        &config,
        "[reactor]\nbuffer_memory = \"4M\"\n[iscsi]\nlow_space = 0\n",
    )
    .expect("written");
    // What the heap has free is not to count as the sessions': it is given back at once.
    let options = Options::in_dir(scratch.path()).env("MIMALLOC_PURGE_DELAY", "0");
    let daemon = Daemon::start(options.arg("--config").arg(config.display().to_string()));
    daemon.export_new("vol", "64M", &[]);
    let target = format!("{IQN}:vol");
    let data = |number: u32| vec![number as u8; 256 << 10];
    let busy = |number: u32| {
        let mut session = RawSession::login(daemon.iscsi(), &target, number)
            .unwrap_or_else(|e| panic!("session {number}: {e}"));
        let lba = u64::from(number) * 512;
        session.write(lba, &data(number)).expect("a write");
        let read = session.read(lba, 512).expect("a read");
        assert!(read == data(number), "session {number}");
        session
    };
    // What all share is touched before: maps, and the core's I/O buffers, which are few here.
    let mut warm: Vec<RawSession> = (0..WARM).map(busy).collect();
    for session in &mut warm {
        session.flush().expect("a flush");
        // Long enough to be idle in the daemon's eyes.
        session.idle(SETTLED).expect("the session lives");
    }
    let before = daemon.rss_kib();
    let mut sessions: Vec<RawSession> = (WARM..WARM + SESSIONS).map(busy).collect();
    let limit = WINDOW.as_secs() * TICKS_PER_SECOND / 100;
    let mut used = Vec::new();
    while used.len() < WINDOWS && used.last().is_none_or(|&ticks| ticks >= limit) {
        let before = daemon.cpu_ticks();
        // They answer pings, as initiators do.
        thread::scope(|scope| {
            for session in warm.iter_mut().chain(&mut sessions) {
                scope.spawn(|| session.idle(WINDOW).expect("the session lives"));
            }
        });
        used.push(daemon.cpu_ticks() - before);
    }
    let each = daemon.rss_kib().saturating_sub(before) / u64::from(SESSIONS);
    eprintln!("{SESSIONS} sessions: CPU ticks in each {WINDOW:?}: {used:?}; {each} KiB each");
    assert!(
        used.last().is_some_and(|&ticks| ticks < limit),
        "CPU ticks in each {WINDOW:?}: {used:?}, limit {limit}"
    );
    assert!(each <= MAX_KIB, "{each} KiB for each session");
    for (number, session) in (WARM..).zip(&mut sessions) {
        let read = session.read(u64::from(number) * 512, 512);
        let read = read.unwrap_or_else(|e| panic!("session {number} after idling: {e}"));
        assert!(read == data(number), "session {number}");
    }
}

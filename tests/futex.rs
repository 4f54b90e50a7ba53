//! R1 from outside: while a daemon serves reads, writes, flushes and unmaps, its reactor threads make no futex call, so
//! that they neither wait for a lock nor wake who waits for one. A tracer watches those threads, and only those.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Stdio};

use atoll_e2e::process::{Group, Signal};
use atoll_e2e::verify::{Load, SECTOR, Tag};
use atoll_e2e::{Daemon, Options, Scratch, process, seed};

const VOLUME_MIB: u64 = 16;
const OBJECT_SIZE: &str = "64K";
const SESSIONS: u64 = 4;
/// Operations that bring the daemon to its steady state.
const WARMING: u64 = 2_000;
/// Operations that are watched.
const WATCHED: u64 = 4_000;

/// Ids of the daemon's reactor threads.
fn reactors(daemon: &Daemon) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let is_reactor = |task: &fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("atoll-core-")
    };
    let reactors = tasks.map_while(Result::ok).filter(is_reactor);
    let ids = reactors.map(|task| task.file_name().to_string_lossy().parse());
    ids.collect::<Result<_, _>>().expect("numbers")
}

/// Why the tracer may not watch, if it does not; it does when this returns.
fn refusal(tracer: &mut BufReader<ChildStderr>, threads: usize) -> Option<String> {
    let mut attached = 0;
    for line in tracer.lines().map_while(Result::ok) {
        if line.contains("attached") {
            attached += 1;
            if attached == threads {
                return None;
            }
        } else {
            return Some(line);
        }
    }
    Some("strace ended".into())
}

/// Calls per thread and name: lines are `TID NAME(ARGUMENTS...`.
fn calls(trace: &Path) -> BTreeMap<(u32, String), Vec<String>> {
    let mut calls = BTreeMap::<_, Vec<String>>::new();
    for line in fs::read_to_string(trace).expect("a trace").lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        let (Ok(thread), Some((name, _))) = (thread.parse(), call.split_once('(')) else {
            continue; // of an exit or a signal
        };
        let all = calls.entry((thread, name.to_string())).or_default();
        all.push(call.to_string());
    }
    calls
}

#[test]
fn reactor_threads_make_no_futex_call_while_they_serve() {
    let seed = seed();
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    // Small objects, so that unmaps drop whole ones and flushes have changes of the map to commit.
    let pool = scratch.path().join("pool");
    let path = pool.to_str().expect("UTF-8");
    let small = ["pool", "add", "small", "--type", "file", "--path", path];
    daemon.run(&[&small[..], &["--object-size", OBJECT_SIZE]].concat());
    daemon.export_new("vol", &format!("{VOLUME_MIB}M"), &["--pool", "small"]);
    let sectors = (VOLUME_MIB << 20) / SECTOR as u64;
    let load = Load::new("vol", sectors, SESSIONS, Tag(seed));
    load.share(daemon.iscsi(), seed, WARMING).join();

    let threads = reactors(&daemon);
    assert_eq!(threads.len(), 2);
    let trace = scratch.path().join("trace");
    let mut command = process::command("strace");
    command
        .args(["-e", "trace=futex,io_uring_enter", "-o"])
        .arg(&trace);
    for thread in &threads {
        command.args(["-p", &thread.to_string()]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut tracer = Group::spawn(&mut command);
    let mut said = BufReader::new(tracer.0.stderr.take().expect("piped"));
    if let Some(why) = refusal(&mut said, threads.len()) {
        eprintln!("skipped: this machine does not let strace watch: {why}");
        return;
    }
    load.share(daemon.iscsi(), !seed, WATCHED).join();
    process::send(&tracer.0, Signal::Int);
    process::wait(&mut tracer.0, "strace after SIGINT");

    let calls = calls(&trace);
    for thread in threads {
        let of = |name: &str| {
            calls
                .get(&(thread, name.to_string()))
                .map_or(&[][..], Vec::as_slice)
        };
        assert!(
            !of("io_uring_enter").is_empty(),
            "thread {thread} was not watched"
        );
        let futexes = of("futex");
        let some = &futexes[..futexes.len().min(10)];
        assert!(
            futexes.is_empty(),
            "thread {thread}: {} calls: {some:#?}",
            futexes.len()
        );
    }
    assert!(daemon.stop().1.success());
}

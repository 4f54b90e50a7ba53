//! Snapshots of several volumes at one instant, under initiators whose writes to one follow from those to the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use atoll_e2e::initiator::{Durability, Initiator, SECTOR};
use atoll_e2e::process::PATIENCE;
use atoll_e2e::{Daemon, Options, Scratch, soak};

use super::{add_pool, delete, login};

const WRITERS: u64 = 3;
const GROUPS: u64 = 10;
/// Rounds of each writer between two snapshots.
const ROUNDS: u64 = 20;
/// Where a writer writes, in sectors: each in another object.
const STRIDE: u64 = 512;

/// How far a writer is.
#[derive(Default)]
struct Writer {
    begun: AtomicU64,
    /// Rounds of which both writes were answered.
    ended: Mutex<u64>,
    moved: Condvar,
    stop: AtomicBool,
}

impl Writer {
    /// Writes 1, 2, 3... first to one volume, and when that is answered to the other.
    fn run(&self, portal: SocketAddr, index: u64) {
        let (first, second) = order(index);
        let [mut first, mut second] = [first, second].map(|volume| login(portal, volume));
        let sector = index * STRIDE;
        for number in 1.. {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            self.begun.store(number, Ordering::Release);
            for session in [&mut first, &mut second] {
                let mut data = [0; SECTOR];
                data[..8].copy_from_slice(&number.to_le_bytes());
                let written = session.write(sector, &mut data, Durability::Flush);
                written.unwrap_or_else(|e| panic!("{e}"));
            }
            *self.ended.lock().expect("no panic") = number;
            self.moved.notify_all();
        }
        first.logout();
        second.logout();
    }

    fn wait_for(&self, ended: u64) {
        let before = |now: &mut u64| *now < ended;
        let now = self.ended.lock().expect("no panic");
        let waited = self.moved.wait_timeout_while(now, PATIENCE, before);
        assert!(!waited.expect("no panic").1.timed_out(), "a writer stands");
    }

    fn ended(&self) -> u64 {
        *self.ended.lock().expect("no panic")
    }
}

fn number(session: &mut Initiator, sector: u64) -> u64 {
    let data = session.read(sector, 1).unwrap_or_else(|e| panic!("{e}"));
    u64::from_le_bytes(data[..8].try_into().expect("8 bytes"))
}

#[test]
fn in_snapshots_of_a_group_no_write_is_there_without_the_one_that_was_answered_before_it() {
    let groups = if soak() { 50 * GROUPS } else { GROUPS };
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()).arg("--cores").arg("0,1"));
    add_pool(&daemon, "256K");
    for volume in ["a", "b"] {
        daemon.export_new(volume, "4M", &["--pool", "small"]);
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| {
            let writer = Arc::new(Writer::default());
            let (own, portal) = (writer.clone(), daemon.iscsi());
            let thread = std::thread::spawn(move || own.run(portal, index));
            (writer, thread)
        })
        .collect();

    for group in 0..groups {
        let mut before = Vec::new();
        for (writer, _) in &writers {
            writer.wait_for(writer.ended() + ROUNDS);
        }
        before.extend(writers.iter().map(|(writer, _)| writer.ended()));
        let name = format!("g{group}");
        daemon.run(&["snapshot", "group", &name, "a", "b"]);
        let after = writers.iter().map(|(w, _)| w.begun.load(Ordering::Acquire));
        let after: Vec<u64> = after.collect();

        let [a, b] = ["a", "b"].map(|volume| format!("{volume}-{name}"));
        for snapshot in [&a, &b] {
            daemon.run(&["export", "add", snapshot]);
        }
        let mut sessions = [&a, &b].map(|snapshot| login(daemon.iscsi(), snapshot));
        for index in 0..WRITERS {
            let mut found = sessions
                .each_mut()
                .map(|session| number(session, index * STRIDE));
            if order(index).0 == "b" {
                found.reverse();
            }
            let [first, second] = found;
            assert!(
                first == second || first == second + 1,
                "group {group}, writer {index}: {first} was written first, {second} then"
            );
            let (least, most) = (before[index as usize], after[index as usize]);
            assert!(
                second >= least && first <= most,
                "group {group}, writer {index}: {first} and {second}, of {least} to {most}"
            );
        }
        sessions.into_iter().for_each(Initiator::logout);
        if group % 2 == 0 {
            delete(&daemon, &a);
            delete(&daemon, &b);
        }
    }
    for (writer, thread) in writers {
        writer.stop.store(true, Ordering::Release);
        thread.join().expect("a writer failed");
    }
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    atoll_e2e::daemon::fsck(&options.data);
}

/// Which volume a writer writes to first.
fn order(index: u64) -> (&'static str, &'static str) {
    match index % 2 {
        0 => ("a", "b"),
        _ => ("b", "a"),
    }
}

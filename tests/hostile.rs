//! Thousands of connections that mean harm, or have bad luck, against a daemon that serves verifying initiators: these
//! see no error, and the daemon keeps neither descriptors nor memory.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use atoll_e2e::daemon::{IQN, fsck};
use atoll_e2e::process::PATIENCE;
use atoll_e2e::raw::{self, READS, RawSession, WRITES};
use atoll_e2e::verify::{Load, Tag, verify};
use atoll_e2e::{Daemon, Options, Scratch, seed, soak};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOLUME_MIB: u64 = 16;
const SESSIONS: u64 = 2;
const THREADS: u64 = 8;
/// Connections that one thread holds open at a time, while it opens more.
const KEPT: usize = 12;
/// No peer waits longer than this for what it is told.
const GLANCE: Duration = Duration::from_millis(20);

/// One connection's behaviour. Gives the connection back if it is to stay open for a while.
fn misbehave(
    portal: SocketAddr,
    number: u32,
    rng: &mut ChaCha8Rng,
) -> io::Result<Option<TcpStream>> {
    let target = format!("{IQN}:hostile");
    let login = raw::login_request(&target, number);
    let mut stream = TcpStream::connect(portal)?;
    stream.set_read_timeout(Some(GLANCE))?;
    stream.set_write_timeout(Some(GLANCE))?;
    match rng.random_range(0..11) {
        // Says nothing.
        0 => return Ok(Some(stream)),
        // Garbage.
        1 => {
            let mut noise = vec![0; rng.random_range(1..20_000)];
            rng.fill(noise.as_mut_slice());
            stream.write_all(&noise)?;
            let _ = stream.read(&mut [0; 4096])?;
        }
        // Half a PDU, then the end, or silence.
        2 => {
            stream.write_all(&login[..rng.random_range(1..login.len())])?;
            if rng.random() {
                return Ok(Some(stream));
            }
            stream.shutdown(Shutdown::Write)?;
            let _ = stream.read(&mut [0; 4096])?;
        }
        // A slow sender.
        3 => {
            for byte in &login[..rng.random_range(1..60)] {
                stream.write_all(&[*byte])?;
            }
            return Ok(Some(stream));
        }
        // A damaged login.
        4 => {
            let mut damaged = login;
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..damaged.len());
                damaged[at] = rng.random();
            }
            stream.write_all(&damaged)?;
            let _ = stream.read(&mut [0; 4096])?;
        }
        // A reset: the login's answer is left unread.
        5 => {
            stream.write_all(&login)?;
            stream.peek(&mut [0])?;
        }
        // In full feature phase: garbage behind a good login.
        6 => {
            let mut session = RawSession::login(portal, &target, number)?;
            let mut noise = vec![0; rng.random_range(48..4000)];
            rng.fill(noise.as_mut_slice());
            session.stream.write_all(&noise)?;
            session.stream.set_read_timeout(Some(GLANCE))?;
            let _ = session.stream.read(&mut [0; 4096])?;
        }
        // A flood of pings whose echoes nobody takes.
        7 => {
            let mut session = RawSession::login(portal, &target, number)?;
            session.stream.set_write_timeout(Some(GLANCE))?;
            let mut ping = raw::header(0x40, 0x80, 8192, 7);
            ping[20..24].fill(0xff);
            let ping = raw::pdu(&ping, &[b'x'; 8192]);
            for _ in 0..rng.random_range(1..400) {
                session.stream.write_all(&ping)?;
            }
            return Ok(Some(session.stream));
        }
        // A flood of reads whose data nobody takes.
        8 => {
            let mut session = RawSession::login(portal, &target, number)?;
            session.stream.set_write_timeout(Some(GLANCE))?;
            for at in 0..rng.random_range(1..128) {
                let cdb = raw::transfer(0x88, 0, 16 << 10);
                let read = raw::command(at, at, &cdb, READS, 8 << 20, &[]);
                session.stream.write_all(&read)?;
            }
            return Ok(Some(session.stream));
        }
        // Large writes whose data never comes.
        9 => {
            let mut session = RawSession::login(portal, &target, number)?;
            for at in 0..rng.random_range(1..128) {
                let cdb = raw::transfer(0x8a, 0, 16 << 10);
                let write = raw::command(at, at, &cdb, WRITES, 8 << 20, &[1; 512]);
                session.stream.write_all(&write)?;
            }
            return Ok(Some(session.stream));
        }
        // Writes, aborted by the end in the middle of one.
        _ => {
            let mut session = RawSession::login(portal, &target, number)?;
            session.write(0, &vec![2; 64 << 10])?;
            let cdb = raw::transfer(0x8a, 0, 128);
            let write = raw::command(
                session.cmd_sn,
                9,
                &cdb,
                WRITES,
                64 << 10,
                &vec![3; 64 << 10],
            );
            session
                .stream
                .write_all(&write[..rng.random_range(48..write.len())])?;
        }
    }
    Ok(None)
}

/// So many hostile connections, from several threads at a time.
fn attack(portal: SocketAddr, connections: u64, seed: u64) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(seed ^ thread);
                let mut kept = Vec::new();
                for number in 0..connections / THREADS {
                    let number = u32::try_from(thread * connections + number).expect("few");
                    // Whatever the daemon does to them is fine.
                    if let Ok(Some(stream)) = misbehave(portal, number, &mut rng) {
                        kept.push(stream);
                    }
                    if kept.len() > KEPT {
                        kept.swap_remove(rng.random_range(0..kept.len()));
                    }
                }
            });
        }
    });
}

/// Waits until the daemon has no more sockets than that.
fn until_sockets(daemon: &Daemon, most: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = daemon.sockets();
        if left <= most {
            return;
        }
        assert!(Instant::now() < deadline, "{left} sockets, {most} before");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn five_thousand_hostile_connections_harm_no_honest_one_and_leave_nothing() {
    const SPARE_DESCRIPTORS: usize = 16; // objects that only the later ones touched
    const MAX_GROWTH_KIB: u64 = 32 << 10;
    let connections = if soak() { 50_000 } else { 5_000 };
    let seed = seed();
    let scratch = Scratch::new();
    let daemon = Daemon::start(Options::in_dir(scratch.path()));
    daemon.export_new("hostile", "64M", &[]);
    daemon.export_new("honest", &format!("{VOLUME_MIB}M"), &[]);
    let load = Load::new("honest", (VOLUME_MIB << 20) / 512, SESSIONS, Tag(seed));
    let writers = load.start(daemon.iscsi(), seed);
    writers.wait_for(50);
    let sockets = daemon.sockets();
    // What pools keep for later use, open files of objects among it, is there after the first.
    attack(daemon.iscsi(), connections / 5, seed ^ 0x5a5a);
    until_sockets(&daemon, sockets);
    let (descriptors, memory) = (daemon.descriptors(), daemon.rss_kib());
    attack(daemon.iscsi(), connections, seed);
    until_sockets(&daemon, sockets);
    assert!(daemon.descriptors() <= descriptors + SPARE_DESCRIPTORS);
    let after = daemon.rss_kib();
    writers.wait_for(50);
    writers.stop();
    verify(&load, daemon.iscsi());
    assert!(
        after <= memory + MAX_GROWTH_KIB,
        "{after} KiB resident, {memory} KiB before"
    );
    eprintln!("{connections} hostile connections: {memory} KiB resident before, {after} after");
    let (options, status) = daemon.stop();
    assert!(status.success(), "{status}");
    fsck(&options.data);
}

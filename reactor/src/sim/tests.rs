//! The simulation as a whole: one seed gives one run, and the network keeps TCP's promises.

use super::*;
use crate::fs::{self, File, OpenOptions};
use crate::net::{TcpListener, TcpStream};
use crate::{Buf, SharedBuf, cores, sleep, spawn, timeout};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

#[test]
fn a_simulated_day_passes_at_once_and_calls_cross_cores() {
    let mut sim = Sim::new(1, 2);
    let sum = sim.block_on(async {
        let sleeper = spawn(async {
            sleep(Duration::from_secs(86_400)).await;
            1
        });
        let other = cores()[1].call(|| async { crate::core_id().0 }).await;
        let late = timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
        assert!(late.is_err());
        sleeper.await + other.expect("core 1 runs")
    });
    assert_eq!(sum, 2);
    assert!(sim.now().as_nanos() > 86_400_000_000_000);
}

#[test]
fn one_seed_gives_one_schedule() {
    fn order(seed: u64) -> Vec<u32> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut sim = Sim::new(seed, 2);
        let out = seen.clone();
        sim.block_on(async move {
            let tasks: Vec<_> = (0..20)
                .map(|number| {
                    let out = out.clone();
                    spawn(async move { out.borrow_mut().push(number) })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        });
        seen.take()
    }
    assert_eq!(order(7), order(7));
    assert_ne!(order(7), order(8));
}

fn server_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3260))
}

/// Sends back what comes, each connection on the core after the last one's.
async fn echo_server() {
    let listener = TcpListener::bind(server_addr()).expect("binds");
    for turn in 0.. {
        let (stream, _) = listener.accept().await.expect("accepts");
        let core = cores()[turn % cores().len()].clone();
        core.spawn(move || async move {
            let stream = stream.attach().expect("attaches");
            loop {
                let (done, mut buf) = stream.recv(Buf::alloc(5000)).await;
                let Ok(count @ 1..) = done else { break };
                buf.set_len(count);
                if stream.send_all(vec![buf.freeze()]).await.is_err() {
                    break;
                }
            }
        })
        .expect("room");
    }
}

async fn send_random(stream: TcpStream, seed: u64, total: usize) -> std::io::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bytes: Vec<u8> = (0..total).map(|_| rng.random()).collect();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (slice, after) = rest.split_at(rng.random_range(1..=rest.len().min(20_000)));
        let middle = slice.len() / 2;
        let parts = [&slice[..middle], &slice[middle..]];
        let data: Vec<_> = parts.into_iter().map(SharedBuf::copy_of).collect();
        stream.send_all(data).await?;
        rest = after;
    }
    Ok(())
}

/// Sends random bytes and compares what returns; the number that returned before an error.
async fn echo_client(seed: u64, total: usize) -> usize {
    let Ok(stream) = TcpStream::connect(server_addr()).await else {
        return 0;
    };
    let sender = spawn(send_random(stream.clone(), seed, total));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut count = 0;
    while count < total {
        let (done, buf) = stream.recv(Buf::alloc(4096)).await;
        let Ok(got @ 1..) = done else { return count };
        for byte in &buf[..got] {
            assert_eq!(*byte, rng.random::<u8>(), "byte {count} of seed {seed}");
            count += 1;
        }
    }
    sender.await.expect("everything was sent");
    count
}

fn busy(seed: u64) -> (u64, u64) {
    let mut sim = Sim::new(seed, 3);
    drop(sim.spawn(CoreId(1), echo_server()));
    sim.block_on(async move {
        sleep(Duration::from_millis(1)).await;
        let clients: Vec<_> = (0..4)
            .map(|i| spawn(echo_client(seed + i, 50_000)))
            .collect();
        let options = OpenOptions {
            create: true,
            ..OpenOptions::read_write()
        };
        for number in 0..20_u8 {
            let name = format!("/{number}");
            let file = File::open(Path::new(&name), options).await.expect("opens");
            let data = SharedBuf::copy_of(&[number; 5000]);
            file.write_all_at(data, 7).await.expect("writes");
            file.sync_data().await.expect("syncs");
        }
        for client in clients {
            assert_eq!(client.await, 50_000);
        }
        assert_eq!(fs::read_dir(Path::new("/")).await.expect("lists").len(), 20);
    });
    (sim.trace_hash(), sim.now().as_nanos())
}

#[test]
fn a_busy_run_repeats_exactly_from_its_seed() {
    for seed in 0..5 {
        assert_eq!(busy(seed), busy(seed), "seed {seed}");
        assert_ne!(busy(seed).0, busy(seed + 100).0);
    }
}

#[test]
fn echoed_bytes_return_in_order_whatever_the_segmentation() {
    for seed in 0..30 {
        let config = SimConfig {
            net: NetConfig {
                window: 1 + usize::try_from(seed * 701 % 9000).expect("small"),
                segment: 1 + usize::try_from(seed * 331 % 3000).expect("small"),
                ..NetConfig::default()
            },
            ..SimConfig::default()
        };
        let mut sim = Sim::with_config(seed, 2, config);
        drop(sim.spawn(CoreId(1), echo_server()));
        let count = sim.block_on(async move {
            sleep(Duration::from_millis(1)).await;
            echo_client(seed, 20_000).await
        });
        assert_eq!(count, 20_000);
    }
}

#[test]
fn random_resets_end_connections_without_wrong_bytes_and_leave_none_behind() {
    let mut ended = 0;
    for seed in 0..20 {
        let config = SimConfig {
            net: NetConfig {
                reset_probability: 0.02,
                segment: 2000,
                ..NetConfig::default()
            },
            ..SimConfig::default()
        };
        let mut sim = Sim::with_config(seed, 2, config);
        drop(sim.spawn(CoreId(1), echo_server()));
        let count = sim.block_on(async move {
            sleep(Duration::from_millis(1)).await;
            echo_client(seed, 50_000).await
        });
        ended += u32::from(count < 50_000);
        sim.run_until_idle();
        assert!(sim.net().connections().is_empty());
    }
    assert!(ended > 5);
}

#[test]
fn partitions_hold_bytes_back_and_healing_delivers_them() {
    let mut sim = Sim::new(4, 2);
    let net = sim.net();
    drop(sim.spawn(CoreId(1), echo_server()));
    sim.block_on(async move {
        sleep(Duration::from_millis(1)).await;
        let stream = TcpStream::connect(server_addr()).await.expect("connects");
        net.partition(server_addr());
        stream
            .send_all(vec![SharedBuf::copy_of(b"hello")])
            .await
            .expect("sends");
        let silent = timeout(Duration::from_secs(60), stream.recv(Buf::alloc(10))).await;
        assert!(silent.is_err());
        let error = TcpStream::connect(server_addr()).await.map(drop);
        assert_eq!(error.expect_err("cut off").kind(), ErrorKind::TimedOut);
        net.heal(server_addr());
        let mut got = Vec::new();
        while got.len() < 5 {
            let (done, buf) = stream.recv(Buf::alloc(10)).await;
            got.extend_from_slice(&buf[..done.expect("receives")]);
        }
        assert_eq!(got, b"hello");
        assert_eq!(net.reset(server_addr()), 1);
        let (done, _) = stream.recv(Buf::alloc(10)).await;
        assert_eq!(done.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.recv(Buf::alloc(10)).await.0.expect("told once"), 0);
        let sent = stream.send_all(vec![SharedBuf::copy_of(b"x")]).await;
        assert_eq!(sent.expect_err("reset").kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn shutdown_ends_the_stream_after_what_was_sent_and_refuses_more() {
    let mut sim = Sim::new(9, 1);
    sim.block_on(async {
        let refused = TcpStream::connect(server_addr()).await.map(drop);
        assert_eq!(
            refused.expect_err("nobody").kind(),
            ErrorKind::ConnectionRefused
        );
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).expect("binds");
        let addr = listener.local_addr();
        assert_ne!(addr.port(), 0);
        let taken = TcpListener::bind(addr).map(drop).expect_err("taken");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        let client = TcpStream::connect(addr).await.expect("connects");
        let (server, peer) = listener.accept().await.expect("accepts");
        let server = server.attach().expect("attaches");
        assert_eq!(
            (peer, server.peer_addr()),
            (client.local_addr(), client.local_addr())
        );
        let waiting = client.clone();
        let waiting = spawn(async move { waiting.recv(Buf::alloc(10)).await.0 });
        client
            .send_all(vec![SharedBuf::copy_of(b"last")])
            .await
            .expect("sends");
        client.shutdown();
        assert_eq!(waiting.await.expect("ended here"), 0);
        let mut got = Vec::new();
        loop {
            let (done, buf) = server.recv(Buf::alloc(10)).await;
            match done.expect("receives") {
                0 => break,
                count => got.extend_from_slice(&buf[..count]),
            }
        }
        assert_eq!(got, b"last");
        // The other side reads no more: what is sent now is answered by a reset.
        server
            .send_all(vec![SharedBuf::copy_of(b"?")])
            .await
            .expect("buffered");
        let (done, _) = server.recv(Buf::alloc(10)).await;
        assert!(
            matches!(done, Ok(0)),
            "the peer's end comes first: {done:?}"
        );
        sleep(Duration::from_secs(1)).await;
        let sent = server.send_all(vec![SharedBuf::copy_of(b"?")]).await;
        assert_eq!(sent.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_loop_that_waits_for_time_by_yielding_ends() {
    let mut sim = Sim::new(2, 1);
    sim.block_on(async {
        let end = crate::now() + Duration::from_micros(50);
        while crate::now() < end {
            crate::yield_now().await;
        }
    });
}

//! TCP over loopback on real cores: content, concurrency, ends and cancellation.
mod common;

use atoll_reactor::net::{TcpListener, TcpStream};
use atoll_reactor::{Buf, PollMode, SharedBuf, cores, spawn, spawn_detached, timeout};
use common::{run, start};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Answers what it receives until the peer ends.
async fn echo(stream: TcpStream) {
    loop {
        let (count, mut buf) = stream.recv(Buf::alloc(64 << 10)).await;
        let Ok(count) = count else { return };
        if count == 0 {
            return;
        }
        buf.set_len(count);
        if stream.send_all(vec![buf.freeze()]).await.is_err() {
            return;
        }
    }
}

async fn recv_exact(stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        let (count, buf) = stream.recv(Buf::alloc(len - got.len())).await;
        let count = count.unwrap();
        assert!(count > 0, "ended after {} of {len} bytes", got.len());
        got.extend_from_slice(&buf[..count]);
    }
    got
}

#[test]
fn many_connections_echo_on_two_cores() {
    const CONNECTIONS: usize = 50;
    const ROUNDS: usize = 20;
    for poll in [PollMode::Adaptive, PollMode::Never] {
        let runtime = start(2, poll);
        let done = runtime.run(|| async {
            let listener = TcpListener::bind(loopback()).unwrap();
            let addr = listener.local_addr();
            let server = spawn(async move {
                for number in 0..CONNECTIONS {
                    let (detached, peer) = listener.accept().await.unwrap();
                    assert!(peer.ip().is_loopback());
                    let core = &cores()[number % 2];
                    core.spawn(move || async move { echo(detached.attach().unwrap()).await })
                        .unwrap();
                }
            });
            let mut clients = Vec::new();
            for number in 0..CONNECTIONS {
                clients.push(spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    assert_eq!(stream.peer_addr(), addr);
                    for round in 0..ROUNDS {
                        let text = vec![(number * 7 + round) as u8; 1 + number * 997 % 5000];
                        let parts = vec![
                            SharedBuf::copy_of(&text[..1]),
                            SharedBuf::empty(),
                            SharedBuf::copy_of(&text[1..]),
                        ];
                        stream.send_all(parts).await.unwrap();
                        assert_eq!(recv_exact(&stream, text.len()).await, text);
                    }
                }));
            }
            for client in clients {
                client.await;
            }
            server.await;
        });
        done.unwrap();
        runtime.shutdown();
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let one = TcpStream::connect(listener.local_addr()).await.unwrap();
    let (two, _) = listener.accept().await.unwrap();
    (one, two.attach().unwrap())
}

#[test]
fn both_directions_move_at_once_and_more_than_the_sockets_hold() {
    const TOTAL: usize = 32 << 20;
    run(|| async {
        let (one, two) = pair().await;
        let mut ends = Vec::new();
        for stream in [one, two] {
            let sender = stream.clone();
            ends.push(spawn(async move {
                let pieces: Vec<SharedBuf> = (0..TOTAL >> 16)
                    .map(|index| SharedBuf::from_vec(vec![index as u8; 1 << 16]))
                    .collect();
                sender.send_all(pieces).await.unwrap();
            }));
            ends.push(spawn(async move {
                let mut got = 0;
                while got < TOTAL {
                    let (count, buf) = stream.recv(Buf::alloc(256 << 10)).await;
                    let count = count.unwrap();
                    assert!(count > 0);
                    for (index, byte) in buf[..count].iter().enumerate() {
                        assert_eq!(*byte, ((got + index) >> 16) as u8);
                    }
                    got += count;
                }
            }));
        }
        for end in ends {
            end.await;
        }
    });
}

#[test]
fn the_end_of_the_peer_is_seen_after_its_last_bytes() {
    run(|| async {
        let (one, two) = pair().await;
        one.send_all(vec![SharedBuf::copy_of(b"last words")])
            .await
            .unwrap();
        drop(one);
        assert_eq!(recv_exact(&two, 10).await, b"last words");
        let (count, _) = two.recv(Buf::alloc(4096)).await;
        assert_eq!(count.unwrap(), 0);
        let (count, _) = two.recv(Buf::alloc(4096)).await;
        assert_eq!(count.unwrap(), 0, "and again");
    });
}

#[test]
fn a_receive_that_waits_ends_with_shutdown_and_one_given_up_loses_nothing() {
    run(|| async {
        let (one, two) = pair().await;
        for round in 0..100_u8 {
            let limit = Duration::from_micros(200);
            let late = timeout(limit, one.recv(Buf::alloc(16))).await;
            assert!(late.is_err(), "nothing was sent");
            two.send_all(vec![SharedBuf::copy_of(&[round])])
                .await
                .unwrap();
            assert_eq!(recv_exact(&one, 1).await, [round]);
        }
        let waiting = one.clone();
        let waiting = spawn(async move { waiting.recv(Buf::alloc(16)).await.0 });
        atoll_reactor::yield_now().await;
        one.shutdown();
        assert_eq!(waiting.await.unwrap(), 0);
        let error = one.send_all(vec![SharedBuf::copy_of(b"x")]).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_send_given_up_in_its_middle_tears_the_stream_and_a_second_one_is_refused() {
    run(|| async {
        let (one, _two) = pair().await;
        let big = || vec![SharedBuf::zeros(1 << 20); 64];
        let sender = one.clone();
        let limit = Duration::from_millis(50);
        let first = spawn(async move { timeout(limit, sender.send_all(big())).await });
        atoll_reactor::yield_now().await;
        let error = one.send_all(big()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert!(first.await.is_err(), "nobody receives");
        let error = one.send_all(big()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_refused_connection_and_a_taken_address_are_errors() {
    run(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        let addr = listener.local_addr();
        let error = TcpListener::bind(addr).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(listener);
        let gone = timeout(Duration::from_secs(30), async {
            // The close is under way in the ring; what it finds waiting is reset.
            while TcpStream::connect(addr).await.err().map(|e| e.kind())
                != Some(ErrorKind::ConnectionRefused)
            {
                atoll_reactor::yield_now().await;
            }
        });
        gone.await.expect("nobody listens any more");
    });
}

#[test]
fn an_accept_that_was_given_up_leaves_the_connection_to_the_next() {
    run(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        let addr = listener.local_addr();
        let late = timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(late.is_err());
        spawn_detached(async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream
                .send_all(vec![SharedBuf::copy_of(b"hello")])
                .await
                .unwrap();
            std::future::pending::<()>().await;
        });
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(recv_exact(&stream.attach().unwrap(), 5).await, b"hello");
    });
}

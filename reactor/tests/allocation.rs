//! In the steady state tasks, timers, boxed futures, pooled buffers, file and socket operations
//! cost no call of the heap: a counting allocator proves it.
mod common;
#[path = "common/counting.rs"]
mod counting;

use atoll_reactor::fs::{File, OpenOptions};
use atoll_reactor::net::{TcpListener, TcpStream};
use atoll_reactor::{Buf, LocalFuture, SharedBuf, sleep, spawn_detached, timeout, yield_now};
use common::run;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Calls of the heap by this thread during the second of two equal runs.
async fn calls_when_warm<F: AsyncFn()>(work: F) -> u64 {
    work().await;
    let before = counting::calls();
    work().await;
    counting::calls() - before
}

#[test]
fn tasks_and_boxed_futures_are_recycled() {
    let calls = run(|| async {
        let ended = Rc::new(Cell::new(0));
        calls_when_warm(async || {
            for _ in 0..100 {
                let target = ended.get() + 100;
                for number in 0..100_u64 {
                    let ended = ended.clone();
                    spawn_detached(async move {
                        let boxed = LocalFuture::new(async move {
                            yield_now().await;
                            number
                        });
                        assert_eq!(boxed.await, number);
                        ended.set(ended.get() + 1);
                    });
                }
                while ended.get() < target {
                    yield_now().await;
                }
            }
        })
        .await
    });
    assert_eq!(calls, 0);
}

#[test]
fn timers_and_time_limits_are_recycled() {
    let calls = run(|| async {
        calls_when_warm(async || {
            for _ in 0..200 {
                let limited = timeout(Duration::from_secs(30), yield_now());
                limited.await.unwrap();
                sleep(Duration::from_micros(20)).await;
            }
        })
        .await
    });
    assert_eq!(calls, 0);
}

#[test]
fn file_operations_and_their_buffers_are_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let calls = run(move || async move {
        let options = OpenOptions {
            create: true,
            ..OpenOptions::read_write()
        };
        let file = File::open(&path, options).await.unwrap();
        calls_when_warm(async || {
            for number in 0..200_u64 {
                let mut buf = Buf::alloc(4096);
                buf.fill(number as u8);
                let data = buf.freeze();
                let half = data.slice(0..2048);
                file.write_all_at(half, number * 4096).await.unwrap();
                let (count, _) = file.read_at(Buf::alloc(2048), number * 4096).await;
                assert_eq!(count.unwrap(), 2048);
            }
            file.sync_data().await.unwrap();
        })
        .await
    });
    assert_eq!(calls, 0);
}

#[test]
fn receiving_and_sending_are_recycled() {
    let calls = run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let server = server.attach().unwrap();
        calls_when_warm(async || {
            for _ in 0..200 {
                let parts = [SharedBuf::zeros(100), SharedBuf::zeros(50)];
                client.send_all(parts).await.unwrap();
                let mut got = 0;
                while got < 150 {
                    let (count, _) = server.recv(Buf::alloc(4096)).await;
                    got += count.unwrap();
                }
            }
        })
        .await
    });
    assert_eq!(calls, 0);
}

//! Several cores: calls between them, sleep and wake-up, timers, their end, helper threads.
mod common;

use atoll_reactor::fs::{File, OpenOptions};
use atoll_reactor::mailbox;
use atoll_reactor::{
    Buf, PollMode, RemoteError, Runtime, RuntimeConfig, SharedBuf, block_on, blocking, cores, now,
    sleep, spawn, spawn_detached, timeout, yield_now,
};
use common::{run, start};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Far beyond what anything here takes: what comes later was lost.
const LOST: Duration = Duration::from_secs(120);

#[test]
fn no_wake_up_is_lost_between_cores_that_sleep_at_once() {
    const ROUNDS: usize = 20_000;
    // One caller alone: each side sleeps in every round. Several: they race with falling asleep.
    for callers in [1, 4] {
        let runtime = start(2, PollMode::Never);
        let done = runtime.run(move || async move {
            let calls: Vec<_> = (0..callers)
                .map(|_| {
                    spawn(async {
                        for round in 0..ROUNDS {
                            let answer = cores()[1].call(move || async move { round }).await;
                            assert_eq!(answer, Ok(round));
                        }
                    })
                })
                .collect();
            for call in calls {
                timeout(LOST, call).await.expect("a wake-up was lost");
            }
        });
        done.unwrap();
        runtime.shutdown();
    }
}

#[test]
fn mailboxes_deliver_everything_in_order_to_sleeping_and_spinning_cores() {
    const MESSAGES: u64 = 20_000;
    for poll in [PollMode::Never, PollMode::Adaptive] {
        let runtime = start(2, poll);
        let done = runtime.run(|| async {
            let (to, mut from) = mailbox::channel::<u64>(8);
            let (back, mut answers) = mailbox::channel::<u64>(8);
            cores()[1]
                .spawn(move || async move {
                    while let Some(message) = from.recv().await {
                        back.send(message + 1).await.unwrap();
                    }
                })
                .unwrap();
            let sender = spawn(async move {
                for message in 0..MESSAGES {
                    to.send(message).await.unwrap();
                }
            });
            let receive = async {
                for message in 0..MESSAGES {
                    assert_eq!(answers.recv().await, Some(message + 1));
                }
                assert_eq!(answers.recv().await, None);
            };
            timeout(LOST, receive).await.expect("a wake-up was lost");
            sender.await;
        });
        done.unwrap();
        runtime.shutdown();
    }
}

#[test]
fn threads_that_are_no_reactors_reach_a_sleeping_core() {
    let runtime = start(1, PollMode::Never);
    let core = runtime.cores()[0].clone();
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let core = core.clone();
            std::thread::spawn(move || {
                for round in 0..1000 {
                    let answer = block_on(core.call(move || async move {
                        yield_now().await;
                        round * number
                    }));
                    assert_eq!(answer, Ok(round * number));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    runtime.shutdown();
    let late = block_on(core.call(|| async {}));
    assert_eq!(late, Err(RemoteError::Closed));
}

#[allow(clippy::disallowed_methods, reason = "procfs does not block")]
fn cpu_time_of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

#[test]
fn an_idle_core_uses_no_cpu_but_a_spinning_one_does() {
    const IDLE: Duration = Duration::from_millis(200);
    for poll in [PollMode::Never, PollMode::Adaptive, PollMode::Always] {
        let runtime = start(1, poll);
        let used = runtime.run(|| async {
            let before = cpu_time_of_this_thread();
            sleep(IDLE).await;
            cpu_time_of_this_thread() - before
        });
        let used = used.unwrap();
        let stats = runtime.cores()[0].stats();
        match poll {
            PollMode::Always => assert_eq!(stats.asleep, Duration::ZERO),
            _ => {
                assert!(used < IDLE / 4, "{poll:?}: {used:?} while idle");
                assert!(stats.asleep > IDLE / 2, "{poll:?}: {stats:?}");
            }
        }
        assert!(stats.tasks > 0 && stats.turns > 0);
        assert!((0.0..=1.0).contains(&stats.busy_share()));
        runtime.shutdown();
    }
}

#[test]
fn timers_fire_in_order_and_never_early_and_dropped_ones_not_at_all() {
    run(|| async {
        let fired = Rc::new(Cell::new(0));
        let mut sleepers = Vec::new();
        for number in 0..200_u64 {
            let micros = number * 7919 % 20_000;
            let fired = fired.clone();
            sleepers.push(spawn(async move {
                let deadline = now() + Duration::from_micros(micros);
                sleep(Duration::from_micros(micros)).await;
                assert!(now() >= deadline);
                fired.set(fired.get() + 1);
            }));
        }
        let dropped = fired.clone();
        let late = timeout(Duration::from_micros(500), async move {
            sleep(Duration::from_millis(5)).await;
            dropped.set(dropped.get() + 1);
        });
        assert!(late.await.is_err());
        for sleeper in sleepers {
            sleeper.await;
        }
        assert_eq!(fired.get(), 200);
    });
}

fn fifo(dir: &Path) -> PathBuf {
    let path = dir.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[test]
fn a_buffer_whose_future_was_dropped_stays_with_the_ring_until_the_read_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    run(move || async move {
        let file = File::open(&path, OpenOptions::read_write()).await.unwrap();
        let free = atoll_reactor::buf::pool_free_blocks();
        let buf = Buf::try_pooled(4096).unwrap();
        let late = timeout(Duration::from_millis(5), file.read_at(buf, 0)).await;
        assert!(late.is_err(), "nothing was written");
        assert_eq!(atoll_reactor::buf::pool_free_blocks(), free - 1);
        let data = SharedBuf::copy_of(b"for nobody");
        file.write_all_at(data, 0).await.unwrap();
        let back = timeout(LOST, async {
            while atoll_reactor::buf::pool_free_blocks() < free {
                sleep(Duration::from_micros(100)).await;
            }
        });
        back.await.expect("the buffer came back");
    });
}

/// Counts when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_end_drops_all_tasks_and_cancels_what_would_never_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let dropped = Arc::new(AtomicUsize::new(0));
    let runtime = start(2, PollMode::Adaptive);
    let counter = dropped.clone();
    let began = runtime.run(move || async move {
        let file = File::open(&path, OpenOptions::read_write()).await.unwrap();
        for number in 0..10 {
            let counted = Counted(counter.clone());
            let file = file.clone();
            spawn_detached(async move {
                let _counted = counted;
                let _ = file.read_at(Buf::alloc(4096), 0).await;
                unreachable!("read {number} ends after its task is gone");
            });
            let counted = Counted(counter.clone());
            let away = cores()[1].spawn(move || async move {
                let _counted = counted;
                std::future::pending::<()>().await;
            });
            away.unwrap();
        }
        yield_now().await;
        yield_now().await;
    });
    began.unwrap();
    runtime.shutdown();
    assert_eq!(dropped.load(Ordering::SeqCst), 20);
}

#[test]
fn after_the_end_written_files_are_closed_and_their_lock_is_free() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("locked");
    let options = OpenOptions {
        create: true,
        ..OpenOptions::read_write()
    };
    for _ in 0..5 {
        let runtime = start(1, PollMode::Adaptive);
        let path = path.clone();
        let began = runtime.run(move || async move {
            let file = File::open(&path, options).await.unwrap();
            assert!(file.try_lock().await.unwrap(), "free since the last end");
            for number in 0..64 {
                let file = file.clone();
                spawn_detached(async move {
                    let offset = number << 20;
                    let _ = file.write_all_at(SharedBuf::zeros(1 << 20), offset).await;
                    let _ = file.sync_data().await;
                });
            }
            yield_now().await;
        });
        began.unwrap();
        runtime.shutdown();
    }
}

#[test]
fn helper_threads_take_more_work_than_their_queue_holds_and_pass_panics_on() {
    run(|| async {
        let mut waiting = Vec::new();
        for number in 0..1000_u32 {
            waiting.push(spawn(blocking::run(move || number * 2)));
        }
        for (number, work) in (0..).zip(waiting) {
            assert_eq!(work.await, number * 2);
        }
    });
    let caught = std::panic::catch_unwind(|| {
        block_on(blocking::run(|| panic!("in a helper")));
    });
    let panic = caught.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in a helper"));
}

#[test]
fn a_runtime_that_cannot_be_is_refused_with_the_reason() {
    let usual = RuntimeConfig::default().buffer_bytes;
    for (cpus, buffer_bytes, reason) in [
        (vec![], usual, "0 CPUs"),
        (vec![100_000], usual, "CPU 100000 is not"),
        (vec![0], usize::MAX, "bytes of buffers"),
    ] {
        let config = RuntimeConfig {
            cpus,
            buffer_bytes,
            ..RuntimeConfig::default()
        };
        let error = Runtime::start(config).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Not a test of its own: the child of the one below.
#[test]
fn child_whose_task_panics() {
    if std::env::var_os("ATOLL_TEST_PANIC").is_none() {
        println!("skipped: runs as a child only");
        return;
    }
    let runtime = start(2, PollMode::Adaptive);
    let _ = runtime.run(|| async {
        cores()[1].spawn(|| async { panic!("on purpose") }).unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_panic_on_one_core_ends_the_whole_process_and_says_why() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_whose_task_panics", "--nocapture"])
        .env("ATOLL_TEST_PANIC", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("on purpose"), "{said}");
    assert!(said.contains("core 1 has panicked"), "{said}");
}

#[test]
fn a_core_calls_itself_without_its_inbox() {
    run(|| async {
        let here = cores()[0].clone();
        // More than an inbox holds, none of them begun yet.
        for _ in 0..10_000 {
            here.spawn(|| async {}).unwrap();
        }
        assert_eq!(here.call(|| async { 7 }).await, Ok(7));
    });
}

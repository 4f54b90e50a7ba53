//! A few helper threads for what cannot be done without blocking (directory listings, `syncfs`,
//! host-name look-ups): work goes there and its answer comes back as a future.
//! Not for anything on the I/O path.

use crate::core::{Driver, try_with_core};
use crate::doze::Doze;
use crate::oneshot;
use crossbeam::queue::ArrayQueue;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Helper threads of the process; they start with the first work.
const MAX_THREADS: usize = 4;
/// Work that waits for a thread; more waits with whoever brings it (R3).
const QUEUE_CAPACITY: usize = 256;

type Work = Box<dyn FnOnce() + Send>;

struct Helpers {
    queue: ArrayQueue<Work>,
    /// One wake-up for each work; no channel, whose lock a reactor would take.
    idle: Doze,
    threads: AtomicUsize,
}

fn helpers() -> &'static Helpers {
    static HELPERS: OnceLock<Helpers> = OnceLock::new();
    HELPERS.get_or_init(|| Helpers {
        queue: ArrayQueue::new(QUEUE_CAPACITY),
        idle: Doze::new().expect("a descriptor for the helper threads' sleep"),
        threads: AtomicUsize::new(0),
    })
}

/// Starts another thread unless there are enough.
fn start_thread(helpers: &'static Helpers) {
    let more = |count: usize| (count < MAX_THREADS).then_some(count + 1);
    let grown = helpers
        .threads
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    let Ok(number) = grown else { return };
    let serve = || {
        loop {
            helpers.idle.sleep();
            if let Some(work) = helpers.queue.pop() {
                work();
            }
        }
    };
    let started = std::thread::Builder::new()
        .name(format!("atoll-helper-{number}"))
        .spawn(move || {
            allow_every_cpu();
            serve();
        });
    if let Err(error) = started {
        let left = helpers.threads.fetch_sub(1, Ordering::AcqRel) - 1;
        assert!(left > 0, "no helper thread can be started: {error}");
        tracing::warn!(%error, left, "a helper thread could not be started");
    }
}

/// A thread inherits the CPU of the reactor that started it, which it must not compete for.
fn allow_every_cpu() {
    // SAFETY: an all-ones set is valid; the kernel intersects it with what the process may use.
    unsafe {
        let mut all = std::mem::zeroed::<libc::cpu_set_t>();
        for cpu in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut all);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &all);
    }
}

/// Runs `work` on a helper thread; in simulation in place. Its panic is the caller's.
///
/// Dropping the future does not stop the work.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let simulated = try_with_core(|core| matches!(core.driver, Driver::Sim(_)));
    if simulated == Some(true) {
        return work();
    }
    let (sender, receiver) = oneshot::channel();
    let mut work: Work = Box::new(move || {
        // The caller may have given up; the answer is dropped then.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let helpers = helpers();
    loop {
        if helpers.threads.load(Ordering::Relaxed) < MAX_THREADS {
            start_thread(helpers);
        }
        match helpers.queue.push(work) {
            Ok(()) => break,
            Err(back) => work = back,
        }
        crate::yield_now().await;
    }
    helpers.idle.wake();
    match receiver.await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(oneshot::Closed) => unreachable!("helpers answer always"),
    }
}

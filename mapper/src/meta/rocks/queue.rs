//! How reactors hand work to the store's threads: lock-free queues, and threads that sleep in the
//! kernel while there is nothing to do. Submitting never blocks (R1).

use atoll_reactor::Doze;
use crossbeam::queue::ArrayQueue;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The sleeping place of one thread, of which is known whether it sleeps.
pub(super) struct Sleeper {
    idle: AtomicBool,
    place: Doze,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<Sleeper> {
        Ok(Sleeper {
            idle: AtomicBool::new(false),
            place: Doze::new()?,
        })
    }

    /// Sleeps until woken, unless there is work. May return without any.
    pub(super) fn sleep_unless(&self, work: impl FnOnce() -> bool) {
        self.idle.store(true, Ordering::SeqCst);
        // Whoever publishes work after this look sees that we are idle.
        fence(Ordering::SeqCst);
        if !work() {
            self.place.sleep();
        }
        self.idle.store(false, Ordering::SeqCst);
    }

    /// After work was published. True if this ended the thread's sleep.
    pub(super) fn wake(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.idle.load(Ordering::SeqCst) || !self.idle.swap(false, Ordering::SeqCst) {
            return false;
        }
        self.place.wake();
        true
    }
}

/// A bounded queue that several threads work off.
pub(super) struct WorkQueue<T> {
    queue: ArrayQueue<T>,
    workers: Vec<Sleeper>,
    stopped: AtomicBool,
}

impl<T> WorkQueue<T> {
    /// Fails when there is no place to sleep for its workers.
    pub(super) fn new(capacity: usize, workers: usize) -> io::Result<WorkQueue<T>> {
        Ok(WorkQueue {
            queue: ArrayQueue::new(capacity),
            workers: (0..workers)
                .map(|_| Sleeper::new())
                .collect::<Result<_, _>>()?,
            stopped: AtomicBool::new(false),
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Waits, without blocking the thread, while the queue is full. False, and the work is dropped,
    /// if the queue is or was stopped.
    pub(super) async fn submit(&self, work: T) -> bool {
        let mut work = work;
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return false;
            }
            match self.queue.push(work) {
                Ok(()) => break,
                Err(back) => work = back,
            }
            atoll_reactor::yield_now().await;
        }
        self.wake_one();
        fence(Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) {
            // The workers may have left before they saw it; dropping it answers its caller.
            while self.queue.pop().is_some() {}
        }
        true
    }

    pub(super) fn wake_one(&self) {
        let _any = self.workers.iter().any(Sleeper::wake);
    }

    /// The next work for this worker; `None` once the queue is stopped and empty, or `interrupt`
    /// says so.
    pub(super) fn next(&self, worker: usize, interrupt: impl Fn() -> bool) -> Option<T> {
        let sleeper = &self.workers[worker];
        loop {
            if let Some(work) = self.queue.pop() {
                return Some(work);
            }
            if self.is_stopped() || interrupt() {
                return None;
            }
            sleeper.sleep_unless(|| !self.queue.is_empty() || self.is_stopped() || interrupt());
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// No more work is taken; workers end when they have done what is queued.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for worker in &self.workers {
            worker.wake();
        }
    }

    /// After the workers have ended: drops what came too late.
    pub(super) fn clear(&self) {
        while self.queue.pop().is_some() {}
    }
}

//! The production driver: one io_uring per core. It submits, reaps and sleeps; what an operation
//! is and owns is in `op`, the faces built from them in `fs` and `net`.

pub(crate) mod fs;
pub(crate) mod net;
mod op;
mod room;
mod setup;
mod socket;

use crate::buf::Pool;
use crate::core::{CoreShared, Driver, try_with_core};
use crate::time::Instant;
use io_uring::squeue::{self, Entry};
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, types};
use op::{Completion, Head, PollTarget, PollToken};
use room::Room;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

/// Submissions that one `io_uring_enter` takes at most.
const SQ_ENTRIES: u32 = 1024;
/// Completions that wait to be reaped before the kernel has to keep more aside.
const CQ_ENTRIES: u32 = 8192;
/// Operations in flight per core; more wait for one to end (R3). Polls, closes and cancellations
/// come on top: their number is bounded by that of the descriptors.
const MAX_IN_FLIGHT: usize = 4096;
/// How long a core that ends leaves its operations alone before it cancels them.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
const _: () = assert!(MAX_IN_FLIGHT < CQ_ENTRIES as usize);

/// `user_data` of submissions whose completion interests nobody.
const NOBODY: u64 = 0;
/// `user_data` of closes: a failure is logged.
const CLOSED: u64 = 1;

/// Start of the reactors' clock, the same for all cores of the process.
fn clock_start() -> std::time::Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    *START.get_or_init(std::time::Instant::now)
}

/// What the ring did since its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct RingCounts {
    pub(crate) submissions: u64,
    pub(crate) enters: u64,
    pub(crate) completions: u64,
}

pub(crate) struct UringDriver {
    ring: RefCell<IoUring>,
    /// Submissions that found the queue full and the kernel unwilling to take it.
    backlog: RefCell<VecDeque<Entry>>,
    done: RefCell<VecDeque<(u64, Completion)>>,
    room: Rc<Room>,
    start: std::time::Instant,
    fixed_buffers: bool,
    has_ftruncate: bool,
    counts: Cell<RingCounts>,
}

/// The eventfd's poll: its completion ends the sleep, nothing else is to do.
struct WakeUps {
    armed: Cell<Option<PollToken>>,
}

impl PollTarget for WakeUps {
    fn polled(&self, _events: u32, armed: bool) {
        if !armed {
            self.armed.set(None);
        }
    }
}

/// Wakes a core that sleeps in its ring.
pub(crate) struct WakePoll {
    fd: RawFd,
    state: Rc<WakeUps>,
}

/// A ring of each kind that [`UringDriver::new`] would fall back to.
#[cfg(test)]
pub(crate) fn rings_to_try() -> impl Iterator<Item = io::Result<IoUring>> {
    setup::rings(SQ_ENTRIES, CQ_ENTRIES)
}

impl UringDriver {
    /// Sets the ring up on the thread that will use it.
    pub(crate) fn new(pool: &Pool, allowed: &libc::cpu_set_t) -> io::Result<UringDriver> {
        UringDriver::with_ring(setup::ring(SQ_ENTRIES, CQ_ENTRIES)?, pool, allowed)
    }

    pub(crate) fn with_ring(
        ring: IoUring,
        pool: &Pool,
        allowed: &libc::cpu_set_t,
    ) -> io::Result<UringDriver> {
        let has_ftruncate = setup::check(&ring)?;
        setup::limit_workers(&ring, allowed);
        let fixed_buffers = setup::register_pool(&ring, pool);
        Ok(UringDriver {
            ring: RefCell::new(ring),
            backlog: RefCell::new(VecDeque::new()),
            done: RefCell::new(VecDeque::with_capacity(CQ_ENTRIES as usize)),
            room: Rc::new(Room::new(MAX_IN_FLIGHT)),
            start: clock_start(),
            fixed_buffers,
            has_ftruncate,
            counts: Cell::default(),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(nanos)
    }

    pub(crate) fn counts(&self) -> RingCounts {
        self.counts.get()
    }

    fn count(&self, change: impl FnOnce(&mut RingCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Queues a submission; the turn's end hands it to the kernel.
    fn push(&self, entry: Entry) {
        self.room.began();
        self.count(|counts| counts.submissions += 1);
        let mut backlog = self.backlog.borrow_mut();
        if !backlog.is_empty() || !self.try_push(&entry) {
            backlog.push_back(entry);
        }
    }

    fn try_push(&self, entry: &Entry) -> bool {
        let mut ring = self.ring.borrow_mut();
        if ring.submission().is_full() {
            self.count(|counts| counts.enters += 1);
            // A refusal leaves the queue full, which is seen below.
            let _ = ring.submit();
        }
        // SAFETY: what the entry points at is owned by its cell until its completion (`Payload`).
        unsafe { ring.submission().push(entry) }.is_ok()
    }

    fn drain_backlog(&self) {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front() {
            if !self.try_push(entry) {
                return;
            }
            backlog.pop_front();
        }
    }

    /// Hands the turn's submissions over with one `io_uring_enter`, if there is anything to hand
    /// over or the kernel has work to finish, and reaps completions; their number.
    pub(crate) fn submit_and_reap(&self) -> usize {
        if !self.backlog.borrow().is_empty() {
            self.drain_backlog();
        }
        let needed = {
            let mut ring = self.ring.borrow_mut();
            let queue = ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        if needed {
            self.enter(None);
        }
        self.reap()
    }

    /// As [`Self::submit_and_reap`], but waits for a completion, at most for `limit`.
    pub(crate) fn submit_and_wait(&self, limit: Option<Duration>) -> usize {
        if !self.backlog.borrow().is_empty() {
            self.drain_backlog();
        }
        let limit = limit.unwrap_or(Duration::from_secs(3600));
        self.enter(Some(limit));
        self.reap()
    }

    fn enter(&self, wait: Option<Duration>) {
        self.count(|counts| counts.enters += 1);
        let ring = self.ring.borrow();
        let entered = match wait {
            None => ring.submit(),
            Some(limit) => {
                let limit = Timespec::new()
                    .sec(limit.as_secs())
                    .nsec(limit.subsec_nanos());
                let args = SubmitArgs::new().timespec(&limit);
                ring.submitter().submit_with_args(1, &args)
            }
        };
        let Err(error) = entered else { return };
        match error.raw_os_error() {
            // Nothing came in time, a signal came, or completions must be reaped first.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
            _ => panic!("io_uring_enter failed: {error}"),
        }
    }

    fn reap(&self) -> usize {
        let mut ring = self.ring.borrow_mut();
        let mut done = self.done.borrow_mut();
        for entry in ring.completion() {
            let completion = Completion {
                result: entry.result(),
                flags: entry.flags(),
            };
            done.push_back((entry.user_data(), completion));
        }
        let count = done.len();
        self.count(|counts| counts.completions += count as u64);
        count
    }

    /// Runs the completions that were reaped; they wake tasks, which run later.
    pub(crate) fn run_completions(&self) {
        while let Some((user_data, completion)) = { self.done.borrow_mut().pop_front() } {
            if !io_uring::cqueue::more(completion.flags) {
                self.room.ended();
            }
            match user_data {
                NOBODY => {}
                CLOSED if completion.result < 0 => {
                    let error = io::Error::from_raw_os_error(-completion.result);
                    tracing::warn!(%error, "closing a file failed");
                }
                CLOSED => {}
                // SAFETY: all other values are addresses of cells, alive until now.
                address => unsafe { Head::deliver(address, completion) },
            }
        }
    }

    /// Keeps a poll on the core's eventfd, so that other threads can end its sleep.
    pub(crate) fn watch(&self, shared: &Arc<CoreShared>) -> WakePoll {
        let fd = shared
            .parker
            .event_fd()
            .expect("real cores have an eventfd");
        let state = Rc::new(WakeUps {
            armed: Cell::new(None),
        });
        let wake = WakePoll { fd, state };
        self.rearm(&wake);
        wake
    }

    pub(crate) fn rearm(&self, wake: &WakePoll) {
        if wake.state.armed.get().is_none() {
            let token = op::arm(self, wake.fd, libc::POLLIN as u32, wake.state.clone());
            wake.state.armed.set(Some(token));
        }
    }

    /// Ends the poll on the eventfd.
    pub(crate) fn unwatch(&self, wake: &WakePoll) {
        if let Some(token) = wake.state.armed.get() {
            op::cancel(self, token);
        }
    }

    /// Closes a descriptor without blocking, on a thread of the kernel's: the last one of a file that was deleted frees its
    /// blocks, which takes as long as the file is large.
    fn close_fd(&self, fd: RawFd) {
        let close = opcode::Close::new(types::Fd(fd)).build();
        self.push(close.flags(squeue::Flags::ASYNC).user_data(CLOSED));
    }

    /// After the tasks are gone: waits until the kernel has ended what they began, so that files
    /// are closed and locks free; at most `limit`. True if nothing is left.
    ///
    /// What is left then stays owned by the ring, forever.
    pub(crate) fn drain(&self, limit: Duration) -> bool {
        let start = std::time::Instant::now();
        let mut cancelled = false;
        loop {
            self.submit_and_reap();
            self.run_completions();
            if self.room.in_flight() == 0 {
                return true;
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            if start.elapsed() >= DRAIN_GRACE && !std::mem::replace(&mut cancelled, true) {
                // Something hangs: whatever the kernel has not begun yet need not begin.
                let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
                self.push(entry.user_data(NOBODY));
            }
            self.submit_and_wait(Some(left.min(DRAIN_GRACE)));
            self.run_completions();
        }
    }
}

/// Closes a descriptor by the ring of this thread's core, at once if there is none.
fn close(fd: RawFd) {
    let by_ring = try_with_core(|core| match &core.driver {
        Driver::Uring(driver) => {
            driver.close_fd(fd);
            true
        }
        Driver::Sim(_) => false,
    });
    if by_ring != Some(true) {
        // SAFETY: the descriptor is the caller's and is not used afterwards.
        unsafe { libc::close(fd) };
    }
}

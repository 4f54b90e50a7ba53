//! The two primitives under everything that crosses cores: a slot for one waker, and the parking
//! place of a core. Lock-free; tested with loom.

use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::Waker;

const IDLE: usize = 0;
const REGISTERING: usize = 1;
const WAKING: usize = 2;

/// Holds the waker of the one task that waits; any thread may wake it.
pub(crate) struct AtomicWaker {
    state: AtomicUsize,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the waker's cell is touched only by who moved `state` from IDLE to REGISTERING or WAKING.
unsafe impl Send for AtomicWaker {}
// SAFETY: as above.
unsafe impl Sync for AtomicWaker {}

impl AtomicWaker {
    pub(crate) fn new() -> AtomicWaker {
        AtomicWaker {
            state: AtomicUsize::new(IDLE),
            waker: UnsafeCell::new(None),
        }
    }

    /// Sets whom to wake. The caller looks at its condition again afterwards.
    pub(crate) fn register(&self, waker: &Waker) {
        match self
            .state
            .compare_exchange(IDLE, REGISTERING, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                // SAFETY: REGISTERING is ours.
                unsafe {
                    let slot = &mut *self.waker.get();
                    match slot {
                        Some(known) => known.clone_from(waker),
                        None => *slot = Some(waker.clone()),
                    }
                }
                let ended = self.state.compare_exchange(
                    REGISTERING,
                    IDLE,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                if ended.is_err() {
                    // Somebody woke meanwhile: the wake-up is ours to give.
                    // SAFETY: the waker left the cell to us (REGISTERING | WAKING).
                    let waker = unsafe { (*self.waker.get()).take() };
                    self.state.store(IDLE, Ordering::Release);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            // A wake-up is under way: be polled again.
            Err(_) => waker.wake_by_ref(),
        }
        // What was published before a wake-up that found no waker must be seen after this.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.state.fetch_or(WAKING, Ordering::AcqRel) == IDLE {
            // SAFETY: WAKING from IDLE is ours.
            let waker = unsafe { (*self.waker.get()).take() };
            self.state.fetch_and(!WAKING, Ordering::Release);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Lets a core sleep in the kernel and others end its sleep; costs a waker a system call only if
/// the core sleeps.
pub(crate) struct Parker {
    sleeping: AtomicBool,
    event: Option<OwnedFd>,
}

impl Parker {
    /// With an eventfd, which the driver waits for.
    pub(crate) fn with_eventfd() -> std::io::Result<Parker> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Parker {
            sleeping: AtomicBool::new(false),
            event: Some(event),
        })
    }

    /// For simulated cores, which never sleep in the kernel.
    pub(crate) fn none() -> Parker {
        Parker {
            sleeping: AtomicBool::new(false),
            event: None,
        }
    }

    pub(crate) fn event_fd(&self) -> Option<RawFd> {
        self.event.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The core says that it is about to sleep; it must look for work once more before it does.
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// After work was published: ends the core's sleep if there is one.
    pub(crate) fn unpark(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst)
            && self.sleeping.swap(false, Ordering::SeqCst)
            && let Some(fd) = self.event_fd()
        {
            let one = 1_u64.to_le_bytes();
            // SAFETY: eight readable bytes; the descriptor is ours. EAGAIN means that a wake-up is
            // pending already.
            unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
        }
    }
}

//! The primitives under everything that crosses cores: a slot for one waker, the parking place of a
//! core, and claims of places. Lock-free; model-checked with loom.

mod claims;
mod event;
#[cfg(all(test, loom))]
mod loom_tests;
pub(crate) mod shim;

pub use claims::Claims;
use event::Event;
use shim::{AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence, spin_loop};
use std::os::fd::RawFd;
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
        let begun =
            self.state
                .compare_exchange(IDLE, REGISTERING, Ordering::AcqRel, Ordering::Acquire);
        if begun.is_err() {
            // A wake-up is under way: be polled again.
            waker.wake_by_ref();
            spin_loop();
            return;
        }
        self.waker.with_mut(|slot| {
            // SAFETY: REGISTERING is ours, and with it the cell.
            match unsafe { &mut *slot } {
                Some(known) => known.clone_from(waker),
                empty => *empty = Some(waker.clone()),
            }
        });
        let ended =
            self.state
                .compare_exchange(REGISTERING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_err() {
            // Somebody woke meanwhile and left the cell to us: the wake-up is ours to give.
            // SAFETY: the state is REGISTERING and WAKING, so nobody else touches the cell.
            let known = self.waker.with_mut(|slot| unsafe { (*slot).take() });
            // Reads what others that woke released, for whoever registers next.
            self.state.swap(IDLE, Ordering::AcqRel);
            if let Some(known) = known {
                known.wake();
            }
        }
    }

    /// Wakes who is registered, once. What was published before is seen by the woken, and by who
    /// registers after.
    pub(crate) fn wake(&self) {
        if self.state.fetch_or(WAKING, Ordering::AcqRel) == IDLE {
            // SAFETY: WAKING from IDLE is ours, and with it the cell.
            let waker = self.waker.with_mut(|slot| unsafe { (*slot).take() });
            self.state.fetch_and(!WAKING, Ordering::Release);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Lets a core sleep in the kernel and others end its sleep; costs a waker a system call only if
/// the core sleeps.
///
/// **Invariant:** work that is published before `unpark` is either seen by the look that follows
/// `prepare_sleep`, or the event is signalled.
pub(crate) struct Parker {
    sleeping: AtomicBool,
    event: Option<Event>,
}

impl Parker {
    /// With an eventfd, which the driver waits for.
    pub(crate) fn with_eventfd() -> std::io::Result<Parker> {
        Ok(Parker {
            sleeping: AtomicBool::new(false),
            event: Some(Event::new()?),
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
        self.event.as_ref().and_then(Event::fd)
    }

    /// The core says that it is about to sleep; it must look for work once more before it does.
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `unpark`: one of the two sees the other's store.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// After work was published: ends the core's sleep if there is one.
    pub(crate) fn unpark(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.swap(false, Ordering::Relaxed)
            && let Some(event) = &self.event
        {
            event.signal();
        }
    }
}

//! What ends a core's sleep: an eventfd that its ring waits for; a counter in the model checker.

#[cfg(not(loom))]
mod real {
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    pub(crate) struct Event {
        fd: OwnedFd,
    }

    impl Event {
        pub(crate) fn new() -> io::Result<Event> {
            // SAFETY: no pointers are passed.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a new descriptor that nobody else owns.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            Ok(Event { fd })
        }

        pub(crate) fn fd(&self) -> Option<RawFd> {
            Some(self.fd.as_raw_fd())
        }

        pub(crate) fn signal(&self) {
            let one = 1_u64.to_le_bytes();
            // SAFETY: eight readable bytes; the descriptor is ours. EAGAIN means that a wake-up is
            // pending already.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

#[cfg(loom)]
#[allow(
    dead_code,
    reason = "the model has no ring that would wait for a descriptor"
)]
mod counted {
    use super::super::shim::{AtomicUsize, Ordering};
    use std::io;
    use std::os::fd::RawFd;

    pub(crate) struct Event {
        pub(crate) signals: AtomicUsize,
    }

    impl Event {
        pub(crate) fn new() -> io::Result<Event> {
            Ok(Event {
                signals: AtomicUsize::new(0),
            })
        }

        pub(crate) fn fd(&self) -> Option<RawFd> {
            None
        }

        pub(crate) fn signal(&self) {
            self.signals.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(loom)]
pub(crate) use counted::Event;
#[cfg(not(loom))]
pub(crate) use real::Event;

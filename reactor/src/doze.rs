//! Where a thread that is no reactor sleeps until a reactor has work for it: an eventfd, so that the reactor, which wakes
//! it, makes no futex call. It knows nothing of the work, nor whether the thread does sleep.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A sleeping place. Each wake-up ends one sleep: one that runs, else the next at once.
#[derive(Debug)]
pub struct Doze {
    fd: OwnedFd,
}

impl Doze {
    /// Fails when the process may have no more descriptors.
    pub fn new() -> io::Result<Doze> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Doze { fd })
    }

    /// Sleeps until woken, or for no reason.
    pub fn sleep(&self) {
        let mut count = [0; 8];
        // SAFETY: eight writable bytes; the descriptor is ours. A signal ends it early.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Ends one sleep. Never blocks: the counter is far from full.
    pub fn wake(&self) {
        let one = 1_u64.to_le_bytes();
        // SAFETY: eight readable bytes; the descriptor is ours.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn each_wake_up_ends_a_sleep_that_it_meets_or_the_next() {
        let doze = Doze::new().unwrap();
        doze.wake();
        doze.wake();
        doze.sleep();
        doze.sleep();
        let woken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                woken.store(true, Ordering::SeqCst);
                doze.wake();
            });
            while !woken.load(Ordering::SeqCst) {
                doze.sleep();
            }
        });
    }
}

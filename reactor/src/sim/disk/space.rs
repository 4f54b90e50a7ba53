//! The room on a simulated disk, shared by its files.

use std::cell::Cell;
use std::io;

pub(super) struct Space {
    used: Cell<u64>,
    capacity: Cell<u64>,
}

impl Space {
    pub(super) fn new(capacity: u64) -> Space {
        Space {
            used: Cell::new(0),
            capacity: Cell::new(capacity),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.get()
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.capacity.set(bytes);
    }

    pub(super) fn available(&self) -> u64 {
        self.capacity.get().saturating_sub(self.used.get())
    }

    /// Takes room, or fails with `ENOSPC`.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        if self.available() < bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.take_anyway(bytes);
        Ok(())
    }

    pub(super) fn take_anyway(&self, bytes: u64) {
        self.used.set(self.used.get() + bytes);
    }

    pub(super) fn give(&self, bytes: u64) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }
}

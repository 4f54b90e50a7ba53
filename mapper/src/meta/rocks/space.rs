//! Keeps deletes possible when the store's file system fills up: below a watermark growing commits
//! are refused, and a ballast file is given up to make room for those that free space.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "runs on the store's own threads"
)]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the file system has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Plenty,
    /// Commits that free, and nothing else.
    FreeingOnly,
    /// Not even that: a write that fails half way would end the store.
    None,
}

/// The file system under the store.
pub(super) trait Disk {
    /// Bytes that can still be allocated.
    fn available(&self) -> io::Result<u64>;

    fn has_ballast(&self) -> bool;

    /// Allocates the ballast, durably enough to count on its room.
    fn inflate(&self, bytes: u64) -> io::Result<()>;

    fn release(&self) -> io::Result<()>;
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) ballast: u64,
    /// Growing commits are refused while less is available.
    pub(super) low_water: u64,
}

impl Limits {
    /// Below this everything is refused.
    fn floor(self) -> u64 {
        self.low_water / 4
    }

    /// From here on, with the ballast still to be taken out of it, the store grows again.
    fn recovered(self) -> u64 {
        self.ballast + self.low_water + self.low_water / 2
    }
}

/// Decides what is written.
pub(super) struct Space<D> {
    disk: D,
    limits: Limits,
    full: Arc<AtomicBool>,
}

impl<D: Disk> Space<D> {
    /// `full` is kept up to date for others to look at.
    pub(super) fn new(disk: D, limits: Limits, full: Arc<AtomicBool>) -> Space<D> {
        let space = Space { disk, limits, full };
        if !space.disk.has_ballast() {
            let room = space.disk.available();
            if !room.is_ok_and(|available| available >= limits.recovered() && space.inflate()) {
                // As a store that was full when it stopped.
                space.full.store(true, Ordering::SeqCst);
            }
        }
        space
    }

    fn inflate(&self) -> bool {
        match self.disk.inflate(self.limits.ballast) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "metadata store: the ballast file cannot be allocated");
                false
            }
        }
    }

    /// What may be written now. Gives up the ballast, or takes it again.
    pub(super) fn room(&self) -> Room {
        let available = match self.disk.available() {
            Ok(available) => available,
            Err(error) => {
                tracing::warn!(%error, "metadata store: cannot tell how much space is free");
                // Refusing everything on a failed look would turn it into an outage.
                return self.kept();
            }
        };
        if self.full.load(Ordering::SeqCst) {
            self.room_when_full(available)
        } else if available < self.limits.low_water {
            self.become_full(available)
        } else {
            Room::Plenty
        }
    }

    fn kept(&self) -> Room {
        if self.full.load(Ordering::SeqCst) {
            Room::FreeingOnly
        } else {
            Room::Plenty
        }
    }

    fn become_full(&self, available: u64) -> Room {
        tracing::error!(
            available,
            "metadata store: its file system is nearly full; until space is freed nothing can be \
             created and volumes cannot allocate"
        );
        self.full.store(true, Ordering::SeqCst);
        if let Err(error) = self.disk.release() {
            tracing::error!(%error, "metadata store: the ballast file cannot be removed");
        }
        // The file system may give the room back later; what there is counts.
        self.above_floor(self.disk.available().unwrap_or(available))
    }

    fn room_when_full(&self, available: u64) -> Room {
        let held = if self.disk.has_ballast() {
            self.limits.ballast
        } else {
            0
        };
        let recovered = available.saturating_add(held) >= self.limits.recovered();
        if recovered && (held > 0 || self.inflate()) {
            tracing::info!(available, "metadata store: there is space again");
            self.full.store(false, Ordering::SeqCst);
            return Room::Plenty;
        }
        if held > 0 && available < self.limits.low_water {
            // It was kept because removing it failed.
            return self.become_full(available);
        }
        self.above_floor(available)
    }

    fn above_floor(&self, available: u64) -> Room {
        if available >= self.limits.floor() {
            Room::FreeingOnly
        } else {
            Room::None
        }
    }
}

/// A real file system, by a directory on it.
pub(super) struct FileSystem {
    directory: PathBuf,
    ballast: PathBuf,
    growing: PathBuf,
}

impl FileSystem {
    pub(super) fn new(directory: &Path) -> FileSystem {
        FileSystem {
            directory: directory.to_owned(),
            ballast: directory.join("ballast"),
            growing: directory.join("ballast.new"),
        }
    }
}

/// Bytes free on the file system of this directory.
pub(super) fn available(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Disk for FileSystem {
    fn available(&self) -> io::Result<u64> {
        available(&self.directory)
    }

    fn has_ballast(&self) -> bool {
        self.ballast.exists()
    }

    fn inflate(&self, bytes: u64) -> io::Result<()> {
        // Under another name first: half a ballast must not be taken for one.
        let made = allocate(&self.growing, bytes)
            .and_then(|()| std::fs::rename(&self.growing, &self.ballast));
        if made.is_err() {
            remove(&self.growing)?;
        }
        made
    }

    fn release(&self) -> io::Result<()> {
        // What a crash left of a new one goes too.
        remove(&self.growing)?;
        remove(&self.ballast)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(&file, flags, 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    // Bytes that no file system compresses away or stores as a hole.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = bytes;
    while left > 0 {
        let piece: Vec<u8> = (0..left.min(PIECE))
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                (noise >> 32) as u8
            })
            .collect();
        file.write_all(&piece)?;
        left -= piece.len() as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LIMITS: Limits = Limits {
        ballast: 100,
        low_water: 40,
    };

    struct Fake {
        available: Cell<u64>,
        ballast: Cell<bool>,
    }

    impl Disk for &Fake {
        fn available(&self) -> io::Result<u64> {
            Ok(self.available.get())
        }

        fn has_ballast(&self) -> bool {
            self.ballast.get()
        }

        fn inflate(&self, bytes: u64) -> io::Result<()> {
            let left = self.available.get().checked_sub(bytes);
            self.available.set(left.ok_or(io::ErrorKind::StorageFull)?);
            self.ballast.set(true);
            Ok(())
        }

        fn release(&self) -> io::Result<()> {
            if self.ballast.replace(false) {
                self.available.set(self.available.get() + LIMITS.ballast);
            }
            Ok(())
        }
    }

    fn fake(available: u64, ballast: bool) -> Fake {
        Fake {
            available: Cell::new(available),
            ballast: Cell::new(ballast),
        }
    }

    #[test]
    fn the_ballast_is_given_up_at_the_watermark_and_taken_again_when_there_is_space() {
        let disk = fake(1000, false);
        let full = Arc::new(AtomicBool::new(false));
        let space = Space::new(&disk, LIMITS, full.clone());
        assert!(disk.ballast.get());
        assert_eq!(space.room(), Room::Plenty);
        disk.available.set(39);
        assert_eq!(space.room(), Room::FreeingOnly);
        assert!(full.load(Ordering::SeqCst) && !disk.ballast.get());
        assert_eq!(disk.available.get(), 139);
        disk.available.set(159);
        assert_eq!(space.room(), Room::FreeingOnly);
        disk.available.set(160);
        assert_eq!(space.room(), Room::Plenty);
        assert!(!full.load(Ordering::SeqCst) && disk.ballast.get());
        assert_eq!(disk.available.get(), 60);
    }

    #[test]
    fn nothing_is_written_below_the_floor() {
        let disk = fake(10, false);
        let space = Space::new(&disk, LIMITS, Arc::default());
        assert_eq!(space.room(), Room::FreeingOnly);
        disk.available.set(9);
        assert_eq!(space.room(), Room::None);
    }

    #[test]
    fn a_store_that_stopped_full_starts_full() {
        let disk = fake(150, false);
        let full = Arc::new(AtomicBool::new(false));
        let space = Space::new(&disk, LIMITS, full.clone());
        assert!(full.load(Ordering::SeqCst));
        assert_eq!(space.room(), Room::FreeingOnly);
    }

    #[test]
    fn a_ballast_on_a_real_file_system_takes_its_room_and_gives_it_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = FileSystem::new(directory.path());
        assert!(!disk.has_ballast());
        disk.inflate(3 << 20).expect("3 MiB");
        assert!(disk.has_ballast());
        let file = std::fs::metadata(directory.path().join("ballast")).expect("the ballast");
        assert_eq!(file.len(), 3 << 20);
        assert!(std::os::unix::fs::MetadataExt::blocks(&file) * 512 >= 3 << 20);
        disk.release().expect("removed");
        disk.release().expect("removing it again is no error");
        assert!(!disk.has_ballast());
    }
}

//! A file system that forgets at a power loss what was not synced: file data until `fsync` of the file, names until
//! `fsync` of their directory. It lives in memory and is mounted through FUSE. It models the weakest medium that
//! POSIX allows, not a particular file system: what survives of the unsynced is a seeded random part.
//!
//! `syncfs` never reaches a FUSE server (the kernel answers it itself), so here it syncs nothing.

mod content;
mod disk;
mod mount;
mod names;

pub use disk::Disk;
pub use mount::PowerFs;
pub(crate) use mount::detach_lazily;

/// Number of a file or directory, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ino(pub(crate) u64);

pub(crate) const ROOT: Ino = Ino(1);

/// How much of what was not synced is on the medium after a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    Everything,
    /// The oldest changes, the last of them torn.
    Prefix,
    /// Any part, torn at sectors and in any order.
    Scatter,
}

impl Survival {
    pub const ALL: [Survival; 4] = [
        Survival::Nothing,
        Survival::Everything,
        Survival::Prefix,
        Survival::Scatter,
    ];
}

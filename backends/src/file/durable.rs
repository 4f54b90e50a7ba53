//! What all cores know together about durability: which directories have new entries, and which
//! syncs have failed for good. Atomics and append-only lists; no lock.

use super::place::{FANOUT, Leaf};
use crate::{Error, ErrorKind, ObjectId, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Failed syncs that are told apart; with more of them everything counts as failed.
const MAX_FAILURES: usize = 1024;

/// A list that only grows.
pub(crate) struct Chain<T> {
    first: OnceLock<Box<Link<T>>>,
    len: AtomicUsize,
}

struct Link<T> {
    value: T,
    next: OnceLock<Box<Link<T>>>,
}

impl<T> Chain<T> {
    pub(crate) fn new() -> Chain<T> {
        Chain {
            first: OnceLock::new(),
            len: AtomicUsize::new(0),
        }
    }

    /// Appends; the value's position.
    pub(crate) fn push(&self, value: T) -> usize {
        let mut position = 0;
        let mut link = Box::new(Link {
            value,
            next: OnceLock::new(),
        });
        let mut place = &self.first;
        loop {
            if let Some(taken) = place.get() {
                place = &taken.next;
                position += 1;
                continue;
            }
            match place.set(link) {
                Ok(()) => break,
                Err(back) => link = back,
            }
        }
        self.len.fetch_add(1, Ordering::AcqRel);
        position
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let first = self.first.get();
        std::iter::successors(first, |link| link.next.get()).map(|link| &link.value)
    }
}

/// The new entries of one directory. An entry counts from before it is made until after it is
/// there, so that no sync takes a directory for clean while one is being made.
#[derive(Default)]
pub(crate) struct Entries {
    begun: AtomicU64,
    ended: AtomicU64,
    synced: AtomicU64,
}

/// An entry is being made.
pub(crate) struct Making<'a>(&'a Entries);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// A directory sync that covers the entries made before.
pub(crate) struct Covered {
    ended: u64,
    quiet: bool,
}

impl Entries {
    pub(crate) fn making(&self) -> Making<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Making(self)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.synced.load(Ordering::SeqCst) < self.begun.load(Ordering::SeqCst)
    }

    /// Of a directory that another process may have made entries in: they may be not durable.
    fn unknown() -> Entries {
        let entries = Entries::default();
        drop(entries.making());
        entries
    }

    /// Called before the directory is synced.
    pub(crate) fn cover(&self) -> Covered {
        let ended = self.ended.load(Ordering::SeqCst);
        let quiet = ended == self.begun.load(Ordering::SeqCst);
        Covered { ended, quiet }
    }

    /// Called after it was synced. With an entry being made meanwhile nothing is noted: it may be
    /// any of them that the sync missed.
    pub(crate) fn covered(&self, covered: &Covered) {
        if covered.quiet {
            self.synced.fetch_max(covered.ended, Ordering::SeqCst);
        }
    }
}

/// The directories of a pool: `objects`, its 256, and their 65536.
pub(crate) struct Directories {
    pub(crate) top: Entries,
    pub(crate) first: Vec<Entries>,
    pub(crate) leaves: Vec<Entries>,
}

impl Directories {
    pub(crate) fn new() -> Directories {
        let many = |count: usize| (0..count).map(|_| Entries::unknown()).collect();
        Directories {
            top: Entries::unknown(),
            first: many(FANOUT),
            leaves: many(FANOUT * FANOUT),
        }
    }

    pub(crate) fn leaf(&self, leaf: Leaf) -> &Entries {
        &self.leaves[leaf.index()]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Entries> {
        std::iter::once(&self.top)
            .chain(&self.first)
            .chain(&self.leaves)
    }
}

/// What a failed sync may have lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    Object(ObjectId),
    Leaf(Leaf),
    Everything,
}

impl Lost {
    fn covers(self, id: ObjectId) -> bool {
        match self {
            Lost::Object(lost) => lost == id,
            Lost::Leaf(leaf) => leaf == Leaf::of(id),
            Lost::Everything => true,
        }
    }
}

/// Syncs that failed since the pool was opened. The kernel reports a lost page once and then calls
/// it clean, so that a second sync would succeed over a hole: here it does not.
pub(crate) struct Failures {
    lost: Chain<(Lost, String)>,
}

impl Failures {
    pub(crate) fn new() -> Failures {
        Failures { lost: Chain::new() }
    }

    pub(crate) fn add(&self, lost: Lost, error: &Error) {
        let known = self.lost.len();
        let lost = match known {
            0..MAX_FAILURES => lost,
            MAX_FAILURES => Lost::Everything,
            _ => return,
        };
        tracing::error!(?lost, %error, "a sync failed; the data may be lost");
        self.lost.push((lost, error.to_string()));
    }

    /// Fails when any sync has failed.
    pub(crate) fn check_all(&self) -> Result<()> {
        match self.lost.iter().next() {
            None => Ok(()),
            Some((_, why)) => Err(Error::new(
                ErrorKind::Io,
                format!("an earlier sync failed and its data may be lost: {why}"),
            )),
        }
    }

    pub(crate) fn check(&self, ids: &[ObjectId]) -> Result<()> {
        if self.lost.len() == 0 {
            return Ok(());
        }
        for (lost, why) in self.lost.iter() {
            if let Some(id) = ids.iter().find(|id| lost.covers(**id)) {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("object {id}: an earlier sync failed and its data may be lost: {why}"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_dirty_while_an_entry_is_being_made() {
        let entries = Entries::default();
        assert!(!entries.is_dirty());
        let making = entries.making();
        let covered = entries.cover();
        entries.covered(&covered);
        assert!(entries.is_dirty(), "the entry may be there or not");
        let before = entries.cover();
        drop(making);
        entries.covered(&before);
        assert!(entries.is_dirty(), "covered before it was there");
        let after = entries.cover();
        entries.covered(&after);
        assert!(!entries.is_dirty());
    }

    #[test]
    fn an_entry_begun_earlier_and_ended_later_is_not_forgotten() {
        let entries = Entries::default();
        let slow = entries.making();
        drop(entries.making());
        let covered = entries.cover();
        entries.covered(&covered);
        drop(slow);
        assert!(entries.is_dirty());
    }
}

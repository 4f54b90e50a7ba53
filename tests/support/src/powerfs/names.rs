//! Directories of the power-loss file system: names as programs see them, as the medium has them, and the changes
//! between the two. A rename is one change: it is on the medium whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rand::Rng;

use super::{Ino, ROOT, Survival};

/// A place a name is looked up in.
pub(super) type Slot = (Ino, OsString);

/// One change of names; what it moves is named by inode.
#[derive(Clone)]
enum Change {
    Link {
        at: Slot,
        ino: Ino,
    },
    Unlink {
        at: Slot,
        ino: Ino,
    },
    Rename {
        from: Slot,
        to: Slot,
        ino: Ino,
    },
    Exchange {
        a: Slot,
        ino_a: Ino,
        b: Slot,
        ino_b: Ino,
    },
}

impl Change {
    fn slots(&self) -> Vec<&Slot> {
        match self {
            Change::Link { at, .. } | Change::Unlink { at, .. } => vec![at],
            Change::Rename { from, to, .. } => vec![from, to],
            Change::Exchange { a, b, .. } => vec![a, b],
        }
    }

    fn touches(&self, dir: Ino) -> bool {
        self.slots().iter().any(|slot| slot.0 == dir)
    }

    /// Whether this later change makes no sense on the medium without the `earlier` one.
    fn needs(&self, earlier: &Change) -> bool {
        let same_name = self
            .slots()
            .iter()
            .any(|slot| earlier.slots().contains(slot));
        let removes_its_directory =
            matches!(self, Change::Unlink { ino, .. } if earlier.touches(*ino));
        same_name || removes_its_directory
    }

    /// Whether this change is in a directory that the `earlier` one brought to its place.
    fn is_inside(&self, earlier: &Change) -> bool {
        match earlier {
            Change::Link { ino, .. } | Change::Rename { ino, .. } => self.touches(*ino),
            Change::Exchange { ino_a, ino_b, .. } => self.touches(*ino_a) || self.touches(*ino_b),
            Change::Unlink { .. } => false,
        }
    }

    /// Whether it takes something out of one directory and into another, which then must not be lost with it.
    fn moves_between_directories(&self) -> bool {
        match self {
            Change::Rename { from, to, .. } => from.0 != to.0,
            Change::Exchange { a, b, .. } => a.0 != b.0,
            Change::Link { .. } | Change::Unlink { .. } => false,
        }
    }

    fn apply(&self, tree: &mut Tree) {
        match self {
            Change::Link { at, ino } => tree.put(at, *ino),
            Change::Unlink { at, .. } => tree.take(at),
            Change::Rename { from, to, ino } => {
                tree.take(from);
                tree.put(to, *ino);
            }
            Change::Exchange { a, ino_a, b, ino_b } => {
                tree.put(a, *ino_b);
                tree.put(b, *ino_a);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Tree(BTreeMap<Ino, BTreeMap<OsString, Ino>>);

impl Tree {
    fn put(&mut self, at: &Slot, ino: Ino) {
        self.0.entry(at.0).or_default().insert(at.1.clone(), ino);
    }

    fn take(&mut self, at: &Slot) {
        if let Some(dir) = self.0.get_mut(&at.0) {
            dir.remove(&at.1);
        }
    }

    /// Drops directories that nothing leads to, and returns every inode that something does.
    fn prune(&mut self) -> BTreeSet<Ino> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            for &ino in self.0.get(&dir).into_iter().flat_map(BTreeMap::values) {
                if reached.insert(ino) {
                    todo.push(ino);
                }
            }
        }
        self.0.retain(|dir, _| reached.contains(dir));
        reached
    }
}

/// All names, with the changes that no directory's `fsync` has made durable yet, oldest first.
#[derive(Default)]
pub(super) struct Names {
    now: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.now.0.get(&dir)?.get(name).copied()
    }

    pub(super) fn entries(&self, dir: Ino) -> impl Iterator<Item = (&OsString, Ino)> {
        self.now
            .0
            .get(&dir)
            .into_iter()
            .flatten()
            .map(|(name, &ino)| (name, ino))
    }

    pub(super) fn link(&mut self, at: Slot, ino: Ino) {
        self.change(Change::Link { at, ino });
    }

    pub(super) fn unlink(&mut self, at: Slot, ino: Ino) {
        self.change(Change::Unlink { at, ino });
    }

    pub(super) fn rename(&mut self, from: Slot, to: Slot, ino: Ino) {
        self.change(Change::Rename { from, to, ino });
    }

    pub(super) fn exchange(&mut self, a: (Slot, Ino), b: (Slot, Ino)) {
        self.change(Change::Exchange {
            a: a.0,
            ino_a: a.1,
            b: b.0,
            ino_b: b.1,
        });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// What `fsync` of a directory promises: its names are on the medium. Only those: a file system that happens to
    /// make more durable must not hide a missing `fsync`.
    pub(super) fn sync(&mut self, dir: Ino) {
        self.commit(|change| change.touches(dir));
    }

    pub(super) fn sync_all(&mut self) {
        self.commit(|_| true);
    }

    /// Makes the wanted changes durable, and with them what they need; `anchored` ones need their directory, too.
    fn commit(&mut self, wanted: impl Fn(&Change) -> bool) {
        let count = self.pending.len();
        let (mut chosen, mut anchored) = (vec![false; count], vec![false; count]);
        for at in (0..count).rev() {
            let earlier = &self.pending[at];
            let later: Vec<usize> = (at + 1..count).filter(|&other| chosen[other]).collect();
            let needed = later
                .iter()
                .any(|&other| self.pending[other].needs(earlier));
            let holds_a_move = later
                .iter()
                .any(|&other| anchored[other] && self.pending[other].is_inside(earlier));
            chosen[at] = needed || holds_a_move || wanted(earlier);
            anchored[at] = holds_a_move || chosen[at] && earlier.moves_between_directories();
        }
        let mut position = 0;
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            position += 1;
            if chosen[position - 1] {
                change.apply(durable);
            }
            !chosen[position - 1]
        });
    }

    /// Power is lost: of the changes that were not synced some survive, and that is all there is from now on.
    /// Returns the inodes that still have a name.
    pub(super) fn lose_power(&mut self, survival: Survival, rng: &mut impl Rng) -> BTreeSet<Ino> {
        let pending = std::mem::take(&mut self.pending);
        let prefix = rng.random_range(0..=pending.len());
        let mut lost: Vec<&Change> = Vec::new();
        for (position, change) in pending.iter().enumerate() {
            let wanted = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Prefix => position < prefix,
                Survival::Scatter => rng.random(),
            };
            if wanted
                && !lost
                    .iter()
                    .any(|earlier| change.needs(earlier) || change.is_inside(earlier))
            {
                change.apply(&mut self.durable);
            } else {
                lost.push(change);
            }
        }
        let reached = self.durable.prune();
        self.now = self.durable.clone();
        reached
    }
}

//! The simulated directory tree: names as processes see them, and a log of the changes that are
//! not on the medium yet. A crash keeps some of the log, never half of a change, and never a
//! change without those that it builds on.

use super::content::{Content, Survival};
use super::inode::{Body, Directory, Inode};
use super::space::Space;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path};
use std::rc::{Rc, Weak};

/// Longest name in bytes.
const NAME_MAX: usize = 255;
/// Changes kept in the log; more and the older half becomes durable, as a kernel does in time.
const LOG_MAX: usize = 256;

/// A name in a directory from now on leads there, or nowhere.
struct Change {
    dir: Rc<Inode>,
    name: String,
    to: Option<Rc<Inode>>,
}

/// Changes that become durable together.
struct Step {
    id: u64,
    changes: Vec<Change>,
    /// Earlier steps that it builds on.
    needs: Vec<u64>,
    moves_dir: bool,
}

pub(in crate::sim) struct Tree {
    root: Rc<Inode>,
    log: Vec<Step>,
    next: u64,
    pub(super) space: Rc<Space>,
}

/// Where a path leads: a directory and the name in it.
pub(super) struct Place {
    pub(super) dir: Rc<Inode>,
    pub(super) name: String,
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn components(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                let name = name.to_str().ok_or_else(|| os(libc::EILSEQ))?;
                if name.len() > NAME_MAX {
                    return Err(os(libc::ENAMETOOLONG));
                }
                names.push(name);
            }
            Component::ParentDir | Component::Prefix(_) => return Err(os(libc::EINVAL)),
        }
    }
    Ok(names)
}

impl Tree {
    pub(super) fn new(capacity: u64) -> Tree {
        let space = Rc::new(Space::new(capacity));
        Tree {
            root: Inode::dir(Directory::default(), &space),
            log: Vec::new(),
            next: 1,
            space,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn walk(&self, names: &[&str]) -> io::Result<Rc<Inode>> {
        let mut at = self.root.clone();
        for name in names {
            let next = at.directory()?.borrow().entries.get(*name).cloned();
            at = next.ok_or_else(|| os(libc::ENOENT))?;
        }
        Ok(at)
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Rc<Inode>> {
        self.walk(&components(path)?)
    }

    /// The place of a name that may or may not exist; `EEXIST` for the root itself.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let names = components(path)?;
        let (name, dirs) = names.split_last().ok_or_else(|| os(libc::EEXIST))?;
        let dir = self.walk(dirs)?;
        dir.directory()?;
        Ok(Place {
            dir,
            name: (*name).to_owned(),
        })
    }

    pub(super) fn entry(&self, place: &Place) -> io::Result<Option<Rc<Inode>>> {
        let dir = place.dir.directory()?.borrow();
        Ok(dir.entries.get(&place.name).cloned())
    }

    pub(super) fn create_file(&mut self, place: Place) -> Rc<Inode> {
        let inode = Inode::file(Content::default(), &self.space);
        self.record(vec![change(place, Some(&inode))], Vec::new(), None, false);
        inode
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        if self.entry(&place)?.is_some() {
            return Err(os(libc::EEXIST));
        }
        let dir = Directory {
            parent: Rc::downgrade(&place.dir),
            made_by: self.next,
            ..Directory::default()
        };
        let inode = Inode::dir(dir, &self.space);
        self.record(vec![change(place, Some(&inode))], Vec::new(), None, false);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, want_dir: bool) -> io::Result<()> {
        let place = self.place(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => os(libc::EBUSY),
            _ => error,
        })?;
        let gone = self.entry(&place)?.ok_or_else(|| os(libc::ENOENT))?;
        match (&gone.body, want_dir) {
            (Body::Dir(_), false) => return Err(os(libc::EISDIR)),
            (Body::File(_), true) => return Err(os(libc::ENOTDIR)),
            (Body::Dir(dir), true) if !dir.borrow().entries.is_empty() => {
                return Err(os(libc::ENOTEMPTY));
            }
            _ => {}
        }
        self.record(vec![change(place, None)], Vec::new(), Some(&gone), false);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        let moved = self.entry(&source)?.ok_or_else(|| os(libc::ENOENT))?;
        let replaced = self.entry(&target)?;
        if replaced.as_ref().is_some_and(|old| Rc::ptr_eq(old, &moved)) {
            return Ok(());
        }
        if let Some(old) = &replaced {
            may_replace(&moved, old)?;
        }
        if moved.is_dir() && self.is_within(&target.dir, &moved)? {
            return Err(os(libc::EINVAL));
        }
        let crosses = !Rc::ptr_eq(&source.dir, &target.dir);
        let mut needs = Vec::new();
        if crosses {
            needs = self.makers(&target.dir)?;
        }
        if let Body::Dir(dir) = &moved.body {
            dir.borrow_mut().parent = Rc::downgrade(&target.dir);
        }
        let changes = vec![change(source, None), change(target, Some(&moved))];
        let moves_dir = crosses && moved.is_dir();
        self.record(changes, needs, replaced.as_ref(), moves_dir);
        Ok(())
    }

    fn is_within(&self, dir: &Rc<Inode>, of: &Rc<Inode>) -> io::Result<bool> {
        let mut at = Some(dir.clone());
        while let Some(inode) = at {
            if Rc::ptr_eq(&inode, of) {
                return Ok(true);
            }
            at = inode.directory()?.borrow().parent.upgrade();
        }
        Ok(false)
    }

    /// The steps in the log that made the directory and those above it.
    fn makers(&self, dir: &Rc<Inode>) -> io::Result<Vec<u64>> {
        let mut steps = Vec::new();
        let mut at = Some(dir.clone());
        while let Some(inode) = at {
            let dir = inode.directory()?.borrow();
            steps.push(dir.made_by);
            at = dir.parent.upgrade();
        }
        Ok(steps)
    }

    /// Makes the changes visible and logs them.
    fn record(
        &mut self,
        changes: Vec<Change>,
        mut needs: Vec<u64>,
        gone: Option<&Rc<Inode>>,
        moves_dir: bool,
    ) {
        for change in &changes {
            let Ok(dir) = change.dir.directory() else {
                continue;
            };
            let entries = &mut dir.borrow_mut().entries;
            match &change.to {
                Some(inode) => entries.insert(change.name.clone(), inode.clone()),
                None => entries.remove(&change.name),
            };
        }
        if let Some(gone) = gone {
            gone.unlink();
        }
        for step in &self.log {
            let builds_on = step.changes.iter().any(|old| {
                gone.is_some_and(|gone| Rc::ptr_eq(gone, &old.dir))
                    || changes
                        .iter()
                        .any(|new| Rc::ptr_eq(&new.dir, &old.dir) && new.name == old.name)
            });
            if builds_on || (moves_dir && step.moves_dir) {
                needs.push(step.id);
            }
        }
        let id = self.next;
        self.next += 1;
        self.log.push(Step {
            id,
            changes,
            needs,
            moves_dir,
        });
        if self.log.len() > LOG_MAX {
            self.commit(|position, _| position < LOG_MAX / 2);
        }
    }

    /// Makes the chosen steps durable, and those that they build on.
    fn commit(&mut self, mut choose: impl FnMut(usize, &Step) -> bool) {
        let mut chosen: BTreeSet<u64> = BTreeSet::new();
        for (position, step) in self.log.iter().enumerate().rev() {
            if chosen.contains(&step.id) || choose(position, step) {
                chosen.insert(step.id);
                chosen.extend(&step.needs);
            }
        }
        let log = std::mem::take(&mut self.log);
        for step in log {
            if !chosen.contains(&step.id) {
                self.log.push(step);
                continue;
            }
            for change in step.changes {
                let Ok(dir) = change.dir.directory() else {
                    continue;
                };
                let durable = &mut dir.borrow_mut().durable;
                match change.to {
                    Some(inode) => durable.insert(change.name, inode),
                    None => durable.remove(&change.name),
                };
            }
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Rc<Inode>) {
        self.commit(|_, step| step.changes.iter().any(|c| Rc::ptr_eq(&c.dir, dir)));
    }

    pub(super) fn sync_all(&mut self) {
        self.commit(|_, _| true);
        sync_below(&self.root);
    }

    /// Power loss: what the medium holds becomes what is there.
    pub(super) fn crash(&mut self, unit: usize, rng: &mut ChaCha8Rng) {
        let survival = Survival::draw(rng);
        let until = rng.random_range(0..=self.log.len());
        match (survival, rng.random_range(0..3)) {
            (Survival::Everything, _) => self.commit(|_, _| true),
            (Survival::Nothing, _) => {}
            (Survival::Random, 0) => self.commit(|position, _| position < until),
            (Survival::Random, 1) => self.commit_prefixes(rng),
            (Survival::Random, _) => self.commit(|_, _| rng.random_bool(0.5)),
        }
        self.log.clear();
        let space = Rc::new(Space::new(self.space.capacity()));
        let durable = self.root.clone();
        let mut copy = Copy {
            survival,
            unit,
            space: &space,
        };
        self.root = copy.dir(&durable, &Weak::new(), rng);
        self.space = space;
    }

    /// Of each directory's changes, those up to some point.
    fn commit_prefixes(&mut self, rng: &mut ChaCha8Rng) {
        let mut dirs: Vec<Rc<Inode>> = Vec::new();
        for change in self.log.iter().flat_map(|step| &step.changes) {
            if !dirs.iter().any(|dir| Rc::ptr_eq(dir, &change.dir)) {
                dirs.push(change.dir.clone());
            }
        }
        for dir in dirs {
            let until = rng.random_range(0..=self.log.len());
            self.commit(|position, step| {
                position < until && step.changes.iter().any(|c| Rc::ptr_eq(&c.dir, &dir))
            });
        }
    }
}

fn change(place: Place, to: Option<&Rc<Inode>>) -> Change {
    Change {
        dir: place.dir,
        name: place.name,
        to: to.cloned(),
    }
}

fn may_replace(moved: &Inode, old: &Inode) -> io::Result<()> {
    match (&moved.body, &old.body) {
        (Body::File(_), Body::Dir(_)) => Err(os(libc::EISDIR)),
        (Body::Dir(_), Body::File(_)) => Err(os(libc::ENOTDIR)),
        (Body::Dir(_), Body::Dir(dir)) if !dir.borrow().entries.is_empty() => {
            Err(os(libc::ENOTEMPTY))
        }
        _ => Ok(()),
    }
}

fn sync_below(inode: &Inode) {
    match &inode.body {
        Body::File(content) => content.borrow_mut().sync(),
        Body::Dir(dir) => dir.borrow().entries.values().for_each(|i| sync_below(i)),
    }
}

/// Rebuilds the tree from what is durable.
struct Copy<'a> {
    survival: Survival,
    unit: usize,
    space: &'a Rc<Space>,
}

impl Copy<'_> {
    fn dir(&mut self, old: &Inode, parent: &Weak<Inode>, rng: &mut ChaCha8Rng) -> Rc<Inode> {
        let new = Inode::dir(
            Directory {
                parent: parent.clone(),
                ..Directory::default()
            },
            self.space,
        );
        let (Body::Dir(from), Body::Dir(to)) = (&old.body, &new.body) else {
            return new;
        };
        for (name, inode) in &from.borrow().durable {
            let copy = match &inode.body {
                Body::Dir(_) => self.dir(inode, &Rc::downgrade(&new), rng),
                Body::File(content) => {
                    let content = content.borrow().after_crash(self.survival, self.unit, rng);
                    self.space.take_anyway(content.allocated());
                    Inode::file(content, self.space)
                }
            };
            let mut to = to.borrow_mut();
            to.entries.insert(name.clone(), copy.clone());
            to.durable.insert(name.clone(), copy);
        }
        new
    }
}

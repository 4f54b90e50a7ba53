//! Simulated inodes and open files: who counts as their users, and what ends with the last one.

use super::content::Content;
use super::space::Space;
use crate::fs::OpenOptions;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

pub(super) struct Inode {
    pub(super) body: Body,
    /// Whether a name leads here, as processes see it.
    pub(super) linked: Cell<bool>,
    opens: Cell<u32>,
    /// The open file that holds the exclusive lock.
    lock: Cell<Option<u64>>,
    space: Rc<Space>,
}

pub(super) enum Body {
    File(RefCell<Content>),
    Dir(RefCell<Directory>),
}

/// Names as processes see them, and as the medium has them.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<String, Rc<Inode>>,
    pub(super) durable: BTreeMap<String, Rc<Inode>>,
    pub(super) parent: Weak<Inode>,
    /// The change that created it.
    pub(super) made_by: u64,
}

impl Inode {
    pub(super) fn file(content: Content, space: &Rc<Space>) -> Rc<Inode> {
        Inode::new(Body::File(RefCell::new(content)), space)
    }

    pub(super) fn dir(dir: Directory, space: &Rc<Space>) -> Rc<Inode> {
        Inode::new(Body::Dir(RefCell::new(dir)), space)
    }

    fn new(body: Body, space: &Rc<Space>) -> Rc<Inode> {
        Rc::new(Inode {
            body,
            linked: Cell::new(true),
            opens: Cell::new(0),
            lock: Cell::new(None),
            space: space.clone(),
        })
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    pub(super) fn space(&self) -> &Rc<Space> {
        &self.space
    }

    pub(super) fn content(&self) -> io::Result<&RefCell<Content>> {
        match &self.body {
            Body::File(content) => Ok(content),
            Body::Dir(_) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        }
    }

    pub(super) fn directory(&self) -> io::Result<&RefCell<Directory>> {
        match &self.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
    }

    /// The last name is gone; the space follows when nobody has it open.
    pub(super) fn unlink(&self) {
        self.linked.set(false);
        self.give_space_back();
    }

    fn give_space_back(&self) {
        if let Body::File(content) = &self.body
            && !self.linked.get()
            && self.opens.get() == 0
        {
            self.space.give(content.borrow().allocated());
        }
    }
}

/// An open file description; handles and running operations share it.
pub(in crate::sim) struct OpenFile {
    pub(super) inode: Rc<Inode>,
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) options: OpenOptions,
}

impl OpenFile {
    pub(super) fn new(
        inode: Rc<Inode>,
        id: u64,
        path: &Path,
        options: OpenOptions,
    ) -> Rc<OpenFile> {
        inode.opens.set(inode.opens.get() + 1);
        Rc::new(OpenFile {
            inode,
            id,
            path: path.to_path_buf(),
            options,
        })
    }

    /// As `flock(LOCK_EX | LOCK_NB)`.
    pub(super) fn try_lock(&self) -> bool {
        let free = self.inode.lock.get().is_none_or(|owner| owner == self.id);
        if free {
            self.inode.lock.set(Some(self.id));
        }
        free
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.inode.lock.get() == Some(self.id) {
            self.inode.lock.set(None);
        }
        self.inode.opens.set(self.inode.opens.get() - 1);
        self.inode.give_space_back();
    }
}

//! The power-loss file system itself: inodes, names and POSIX's rules for them, over which power can be lost.
//! Knows nothing of FUSE; errors are errno values.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use libc::{EEXIST, EINVAL, EIO, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, ENXIO, EOPNOTSUPP};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::content::Content;
use super::names::Names;
use super::{Ino, ROOT, Survival};

/// An errno value.
pub(super) type Result<T> = std::result::Result<T, i32>;

/// Permission bits, without the type.
#[derive(Clone, Copy)]
pub(super) struct Mode(pub(super) u16);

pub(super) enum Kind {
    Directory,
    File(Content),
}

pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) mode: Mode,
    pub(super) modified: SystemTime,
}

impl Inode {
    fn new(kind: Kind, mode: Mode) -> Self {
        Inode {
            kind,
            mode,
            modified: SystemTime::now(),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// The state of the file system, mounted or not. What it loses is a function of its seed and of the calls made.
pub struct Disk {
    inodes: BTreeMap<Ino, Inode>,
    names: Names,
    next: Ino,
    powered: bool,
    rng: ChaCha8Rng,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Disk {
            inodes: BTreeMap::from([(ROOT, Inode::new(Kind::Directory, Mode(0o755)))]),
            names: Names::default(),
            next: Ino(ROOT.0 + 1),
            powered: true,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// From now on every call fails with `EIO` and nothing is synced any more; a seeded part of what was not synced
    /// is lost. Returns which.
    pub fn lose_power(&mut self) -> Survival {
        let survival = *Survival::ALL.choose(&mut self.rng).expect("not empty");
        self.lose_power_as(survival);
        survival
    }

    pub fn lose_power_as(&mut self, survival: Survival) {
        if !self.powered {
            return;
        }
        self.powered = false;
        let reached = self.names.lose_power(survival, &mut self.rng);
        self.inodes.retain(|ino, _| reached.contains(ino));
        for inode in self.inodes.values_mut() {
            if let Kind::File(content) = &mut inode.kind {
                content.lose_power(survival, &mut self.rng);
            }
        }
    }

    pub fn restore_power(&mut self) {
        self.powered = true;
    }

    pub(super) fn inode(&self, ino: Ino) -> Result<&Inode> {
        self.check_power()?;
        self.inodes.get(&ino).ok_or(ENOENT)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode> {
        self.check_power()?;
        self.inodes.get_mut(&ino).ok_or(ENOENT)
    }

    fn content(&self, ino: Ino) -> Result<&Content> {
        match &self.inode(ino)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory => Err(EISDIR),
        }
    }

    fn changed_content(&mut self, ino: Ino) -> Result<&mut Content> {
        let inode = self.inode_mut(ino)?;
        inode.modified = SystemTime::now();
        match &mut inode.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory => Err(EISDIR),
        }
    }

    fn check_power(&self) -> Result<()> {
        if self.powered { Ok(()) } else { Err(EIO) }
    }

    fn check_directory(&self, dir: Ino) -> Result<()> {
        if self.inode(dir)?.is_directory() {
            Ok(())
        } else {
            Err(ENOTDIR)
        }
    }

    pub(super) fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino> {
        self.check_directory(dir)?;
        self.names.get(dir, name).ok_or(ENOENT)
    }

    pub(super) fn entries(&self, dir: Ino) -> Result<Vec<(OsString, Ino)>> {
        self.check_directory(dir)?;
        Ok(self
            .names
            .entries(dir)
            .map(|(name, ino)| (name.clone(), ino))
            .collect())
    }

    pub(super) fn create(&mut self, dir: Ino, name: &OsStr, mode: Mode) -> Result<Ino> {
        self.add(dir, name, Inode::new(Kind::File(Content::default()), mode))
    }

    pub(super) fn mkdir(&mut self, dir: Ino, name: &OsStr, mode: Mode) -> Result<Ino> {
        self.add(dir, name, Inode::new(Kind::Directory, mode))
    }

    fn add(&mut self, dir: Ino, name: &OsStr, inode: Inode) -> Result<Ino> {
        match self.lookup(dir, name) {
            Err(ENOENT) => {}
            Ok(_) => return Err(EEXIST),
            Err(error) => return Err(error),
        }
        let ino = self.next;
        self.next = Ino(ino.0 + 1);
        self.inodes.insert(ino, inode);
        self.names.link((dir, name.into()), ino);
        Ok(ino)
    }

    pub(super) fn unlink(&mut self, dir: Ino, name: &OsStr) -> Result<()> {
        let ino = self.lookup(dir, name)?;
        if self.inode(ino)?.is_directory() {
            return Err(EISDIR);
        }
        self.names.unlink((dir, name.into()), ino);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, dir: Ino, name: &OsStr) -> Result<()> {
        let ino = self.lookup(dir, name)?;
        self.check_directory(ino)?;
        self.check_empty(ino)?;
        self.names.unlink((dir, name.into()), ino);
        Ok(())
    }

    fn check_empty(&self, dir: Ino) -> Result<()> {
        if self.names.entries(dir).next().is_none() {
            Ok(())
        } else {
            Err(ENOTEMPTY)
        }
    }

    /// `renameat2`: replaces what stands at the target unless told not to.
    pub(super) fn rename(
        &mut self,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        no_replace: bool,
    ) -> Result<()> {
        let ino = self.lookup(from.0, from.1)?;
        let replaced = match self.lookup(to.0, to.1) {
            Ok(replaced) => Some(replaced),
            Err(ENOENT) => None,
            Err(error) => return Err(error),
        };
        if let Some(replaced) = replaced {
            if replaced == ino {
                return Ok(());
            }
            if no_replace {
                return Err(EEXIST);
            }
            match (
                self.inode(ino)?.is_directory(),
                self.inode(replaced)?.is_directory(),
            ) {
                (true, false) => return Err(ENOTDIR),
                (false, true) => return Err(EISDIR),
                (true, true) => self.check_empty(replaced)?,
                (false, false) => {}
            }
        }
        self.names
            .rename((from.0, from.1.into()), (to.0, to.1.into()), ino);
        Ok(())
    }

    pub(super) fn exchange(&mut self, a: (Ino, &OsStr), b: (Ino, &OsStr)) -> Result<()> {
        let (ino_a, ino_b) = (self.lookup(a.0, a.1)?, self.lookup(b.0, b.1)?);
        self.names
            .exchange(((a.0, a.1.into()), ino_a), ((b.0, b.1.into()), ino_b));
        Ok(())
    }

    pub(super) fn set_mode(&mut self, ino: Ino, mode: Mode) -> Result<()> {
        self.inode_mut(ino)?.mode = mode;
        Ok(())
    }

    pub(super) fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>> {
        Ok(self.content(ino)?.read(offset, len))
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.changed_content(ino)?.write(offset, data);
        Ok(())
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> Result<()> {
        self.changed_content(ino)?.set_len(len);
        Ok(())
    }

    /// `fallocate(2)` with any of the flags KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE.
    pub(super) fn fallocate(&mut self, ino: Ino, offset: u64, len: u64, mode: i32) -> Result<()> {
        const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
        const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(EOPNOTSUPP);
        }
        if mode & PUNCH_HOLE != 0 && mode & KEEP_SIZE == 0 {
            return Err(EINVAL);
        }
        let content = self.changed_content(ino)?;
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            content.zero(offset, len);
        }
        if mode & KEEP_SIZE == 0 {
            content.extend(end);
        }
        Ok(())
    }

    /// `lseek(2)` with SEEK_DATA or SEEK_HOLE.
    pub(super) fn seek(&self, ino: Ino, offset: u64, whence: i32) -> Result<u64> {
        let content = self.content(ino)?;
        if offset >= content.len() {
            return Err(ENXIO);
        }
        match whence {
            libc::SEEK_DATA => content.next_data(offset).ok_or(ENXIO),
            libc::SEEK_HOLE => Ok(content.next_hole(offset)),
            _ => Err(EINVAL),
        }
    }

    /// `fsync` of a file or of a directory.
    pub(super) fn sync(&mut self, ino: Ino) -> Result<()> {
        match &mut self.inode_mut(ino)?.kind {
            Kind::File(content) => content.sync(),
            Kind::Directory => self.names.sync(ino),
        }
        Ok(())
    }

    /// As if everything had been synced one by one.
    pub fn sync_everything(&mut self) {
        self.names.sync_all();
        for inode in self.inodes.values_mut() {
            if let Kind::File(content) = &mut inode.kind {
                content.sync();
            }
        }
    }

    /// Number of files with data or a length that is not on the medium.
    pub fn unsynced_files(&self) -> usize {
        let unsynced =
            |inode: &&Inode| matches!(&inode.kind, Kind::File(content) if !content.is_synced());
        self.inodes.values().filter(unsynced).count()
    }
}

//! Mounts the power-loss file system through FUSE and cuts its power. Every open file bypasses the page cache, so that
//! what a program wrote has arrived here when its call returns, and nothing is hidden in the kernel at a power loss.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Kind, Mode};
use super::{Disk, Ino, Survival};

/// The kernel may keep names and attributes: all changes go through it, and it forgets them at unmount.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK: u32 = 4096;
/// What `statfs` reports: 64 GiB, nearly all free. It is memory; tests use a small part.
const BLOCKS: u64 = 16 << 20;

/// A mounted power-loss file system. Unmounted when dropped.
pub struct PowerFs {
    mountpoint: PathBuf,
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
}

impl PowerFs {
    /// Mounts an empty file system. `mountpoint` is an existing empty directory.
    ///
    /// # Errors
    /// Where FUSE cannot be used: no `/dev/fuse`, or neither root nor `fusermount3`.
    pub fn mount(mountpoint: &Path, seed: u64) -> io::Result<Self> {
        let disk = Arc::new(Mutex::new(Disk::new(seed)));
        let mut fs = PowerFs {
            mountpoint: mountpoint.to_owned(),
            disk,
            session: None,
        };
        fs.attach()?;
        Ok(fs)
    }

    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Power is lost at this instant: programs get `EIO` from now on.
    pub fn lose_power(&self) -> Survival {
        self.disk().lose_power()
    }

    pub fn lose_power_as(&self, survival: Survival) {
        self.disk().lose_power_as(survival);
    }

    /// Mounts what survived. No program may have a file open.
    ///
    /// # Errors
    /// When it cannot be unmounted (a program still uses it) or mounted.
    pub fn restore_power(&mut self) -> io::Result<()> {
        self.detach()?;
        self.disk().restore_power();
        self.attach()
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("powerfs".into()),
            MountOption::DefaultPermissions,
        ];
        let adapter = Adapter {
            disk: self.disk.clone(),
        };
        self.session = Some(fuser::spawn_mount(adapter, &self.mountpoint, &config)?);
        Ok(())
    }

    fn detach(&mut self) -> io::Result<()> {
        match self.session.take() {
            Some(session) => session.umount_and_join(),
            None => Ok(()),
        }
    }
}

impl Drop for PowerFs {
    fn drop(&mut self) {
        self.disk().lose_power_as(Survival::Nothing);
        if self.detach().is_err() {
            detach_lazily(&self.mountpoint);
        }
    }
}

/// Takes a mount away even where programs still use it, or where its server died.
pub(crate) fn detach_lazily(mountpoint: &Path) {
    for (program, args) in [
        ("umount", &["-f", "-l"][..]),
        ("fusermount3", &["-u", "-z", "-q"][..]),
    ] {
        let ran = Command::new(program).args(args).arg(mountpoint).output();
        if ran.is_ok_and(|output| output.status.success()) {
            return;
        }
    }
}

struct Adapter {
    disk: Arc<Mutex<Disk>>,
}

impl Adapter {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attr(disk: &Disk, req: &Request, ino: Ino) -> Result<FileAttr, i32> {
        let inode = disk.inode(ino)?;
        let (kind, size, blocks) = match &inode.kind {
            Kind::Directory => (FileType::Directory, 0, 0),
            Kind::File(content) => (FileType::RegularFile, content.len(), content.blocks_512()),
        };
        Ok(FileAttr {
            ino: INodeNo(ino.0),
            size,
            blocks,
            atime: inode.modified,
            mtime: inode.modified,
            ctime: inode.modified,
            crtime: inode.modified,
            kind,
            perm: inode.mode.0,
            nlink: if inode.is_directory() { 2 } else { 1 },
            uid: req.uid(),
            gid: req.gid(),
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), i32>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, i32>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

fn permissions(mode: u32, umask: u32) -> Mode {
    Mode((mode & !umask & 0o7777) as u16)
}

fn open_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
}

impl Filesystem for Adapter {
    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        entry(
            reply,
            disk.lookup(Ino(parent.0), name)
                .and_then(|ino| Self::attr(&disk, req, ino)),
        );
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attr(&self.disk(), req, Ino(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (mut disk, ino) = (self.disk(), Ino(ino.0));
        let changed = mode
            .map_or(Ok(()), |mode| disk.set_mode(ino, permissions(mode, 0)))
            .and_then(|()| size.map_or(Ok(()), |size| disk.set_len(ino, size)));
        match changed.and_then(|()| Self::attr(&disk, req, ino)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mut disk = self.disk();
        let made = disk.mkdir(Ino(parent.0), name, permissions(mode, umask));
        entry(reply, made.and_then(|ino| Self::attr(&disk, req, ino)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().unlink(Ino(parent.0), name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().rmdir(Ino(parent.0), name));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((Ino(parent.0), name), (Ino(newparent.0), newname));
        let mut disk = self.disk();
        empty(
            reply,
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                disk.exchange(from, to)
            } else {
                disk.rename(from, to, flags.contains(RenameFlags::RENAME_NOREPLACE))
            },
        );
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let made = disk.create(Ino(parent.0), name, permissions(mode, umask));
        match made.and_then(|ino| Self::attr(&disk, req, ino)) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), open_flags()),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let mut disk = self.disk();
        let made = disk.create(Ino(parent.0), name, permissions(mode, umask));
        entry(reply, made.and_then(|ino| Self::attr(&disk, req, ino)));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut disk = self.disk();
        let truncated = match flags.0 & libc::O_TRUNC {
            0 => disk.inode(Ino(ino.0)).map(|_| ()),
            _ => disk.set_len(Ino(ino.0), 0),
        };
        match truncated {
            Ok(()) => reply.opened(FileHandle(0), open_flags()),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(Ino(ino.0), offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (mut disk, ino) = (self.disk(), Ino(ino.0));
        let written = disk
            .write(ino, offset, data)
            .and_then(|()| match flags.0 & libc::O_DSYNC {
                0 => Ok(()),
                _ => disk.sync(ino),
            });
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.disk().sync(Ino(ino.0)));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.disk().sync(Ino(ino.0)));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = self.disk();
        let entries = match disk.entries(Ino(ino.0)) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(Errno::from_i32(errno)),
        };
        // The position is the inode number, which never changes under a reader that deletes as it goes.
        let mut sorted: Vec<_> = entries
            .iter()
            .map(|(name, ino)| (*ino, name.as_os_str()))
            .collect();
        sorted.sort();
        for (child, name) in sorted.into_iter().filter(|(child, _)| child.0 > offset) {
            let kind = match disk.inode(child) {
                Ok(inode) if inode.is_directory() => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(child.0), child.0, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            BLOCKS,
            BLOCKS - BLOCKS / 64,
            BLOCKS - BLOCKS / 64,
            1 << 24,
            1 << 23,
            BLOCK,
            255,
            BLOCK,
        );
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(
            reply,
            self.disk().fallocate(Ino(ino.0), offset, length, mode),
        );
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::EINVAL);
        };
        match self.disk().seek(Ino(ino.0), offset, whence) {
            Ok(found) => reply.offset(found as i64),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }
}

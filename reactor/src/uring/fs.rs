//! Files by the ring. Each operation owns its buffer, its path and a reference to its file until
//! it has ended. What the ring cannot do (listings, `syncfs`, `statfs`) runs on helper threads.

use super::op::{Payload, run, with_uring};
use super::setup::MAX_FIXED;
use crate::blocking;
use crate::buf::{ALIGNMENT, Buf, SharedBuf};
use crate::core::{Core, with_core};
use crate::fs::{Allocate, DirEntry, FsCapacity, Metadata, OpenOptions};
use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

/// Bytes that one read or write moves at most; the kernel's own limit is just below 2 GiB.
const MAX_TRANSFER: usize = 1 << 30;
/// Permissions of new files and directories, before the umask.
const FILE_MODE: libc::mode_t = 0o600;
const DIR_MODE: libc::mode_t = 0o700;
/// `f_type` of the file systems whose `syncfs` writes back all that is dirty and tells what failed:
/// ext2 to ext4, XFS, btrfs, F2FS, and tmpfs, which has nothing to write.
const SYNCFS_TYPES: [u32; 5] = [
    0x0000_ef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x0102_1994,
];
/// The first Linux whose `syncfs` returns what the file system's own part of it returned.
const SYNCFS_LINUX: (u32, u32) = (5, 17);

/// A descriptor that is closed by the ring when its last user is gone.
struct FileFd {
    fd: RawFd,
    direct: bool,
}

impl Drop for FileFd {
    fn drop(&mut self) {
        super::close(self.fd);
    }
}

impl FileFd {
    fn target(&self) -> types::Fd {
        types::Fd(self.fd)
    }
}

#[derive(Clone)]
pub(crate) struct File {
    file: Rc<FileFd>,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

fn checked(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Runs an operation that may simply be begun again, until the kernel does not ask for that.
async fn run_again<P: Payload>(mut payload: P) -> (io::Result<usize>, P) {
    loop {
        let (result, back) = run(payload).await;
        if result != -libc::EINTR && result != -libc::EAGAIN {
            return (checked(result), back);
        }
        payload = back;
        crate::yield_now().await;
    }
}

struct Open {
    path: CString,
    flags: i32,
}

// SAFETY: a CString's bytes are on the heap and stay.
unsafe impl Payload for Open {
    fn entry(&mut self) -> Entry {
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), self.path.as_ptr())
            .flags(self.flags)
            .mode(FILE_MODE)
            .build()
    }

    fn abandoned(self, result: i32) {
        if result >= 0 {
            super::close(result);
        }
    }
}

fn open_flags(options: OpenOptions) -> io::Result<i32> {
    let access = match (options.read, options.write) {
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (true, true) => libc::O_RDWR,
        (false, false) => {
            let text = "a file is opened for reading, writing or both";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    let mut flags = access | libc::O_CLOEXEC;
    for (on, flag) in [
        (options.create, libc::O_CREAT),
        (options.create_new, libc::O_CREAT | libc::O_EXCL),
        (options.truncate, libc::O_TRUNC),
        (options.direct, libc::O_DIRECT),
        (options.directory, libc::O_DIRECTORY),
    ] {
        if on {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// Index of the registered buffer that `offset` of the pool's region lies in.
fn fixed_index(core: &Core, offset: Option<usize>) -> Option<u16> {
    let registered = match &core.driver {
        crate::core::Driver::Uring(driver) => driver.fixed_buffers,
        crate::core::Driver::Sim(_) => false,
    };
    offset
        .filter(|_| registered)
        .and_then(|offset| u16::try_from(offset / MAX_FIXED).ok())
}

struct Read {
    file: Rc<FileFd>,
    buf: Buf,
    done: usize,
    offset: u64,
}

// SAFETY: the buffer's bytes are in its block, which stays until the buffer is dropped.
unsafe impl Payload for Read {
    fn entry(&mut self) -> Entry {
        let fixed = with_core(|core| fixed_index(core, self.buf.offset_in(&core.pool)));
        let fd = self.file.target();
        let offset = self.offset + self.done as u64;
        let place = &mut self.buf[self.done..];
        let len = place.len().min(MAX_TRANSFER) as u32;
        let data = place.as_mut_ptr();
        match fixed {
            Some(index) => opcode::ReadFixed::new(fd, data, len, index)
                .offset(offset)
                .build(),
            None => opcode::Read::new(fd, data, len).offset(offset).build(),
        }
    }
}

struct Write {
    file: Rc<FileFd>,
    data: SharedBuf,
    done: usize,
    offset: u64,
}

// SAFETY: the buffer's bytes are in its block, which stays until the buffer is dropped.
unsafe impl Payload for Write {
    fn entry(&mut self) -> Entry {
        let fixed = with_core(|core| fixed_index(core, self.data.offset_in(&core.pool)));
        let fd = self.file.target();
        let offset = self.offset + self.done as u64;
        let rest = &self.data[self.done..];
        let (data, len) = (rest.as_ptr(), rest.len().min(MAX_TRANSFER) as u32);
        match fixed {
            Some(index) => opcode::WriteFixed::new(fd, data, len, index)
                .offset(offset)
                .build(),
            None => opcode::Write::new(fd, data, len).offset(offset).build(),
        }
    }
}

struct Fsync {
    file: Rc<FileFd>,
    data_only: bool,
}

// SAFETY: no memory is named.
unsafe impl Payload for Fsync {
    fn entry(&mut self) -> Entry {
        let flags = if self.data_only {
            types::FsyncFlags::DATASYNC
        } else {
            types::FsyncFlags::empty()
        };
        opcode::Fsync::new(self.file.target()).flags(flags).build()
    }
}

struct Fallocate {
    file: Rc<FileFd>,
    mode: i32,
    offset: u64,
    len: u64,
}

// SAFETY: no memory is named.
unsafe impl Payload for Fallocate {
    fn entry(&mut self) -> Entry {
        opcode::Fallocate::new(self.file.target(), self.len)
            .offset(self.offset)
            .mode(self.mode)
            .build()
    }
}

struct Ftruncate {
    file: Rc<FileFd>,
    len: u64,
}

// SAFETY: no memory is named.
unsafe impl Payload for Ftruncate {
    fn entry(&mut self) -> Entry {
        opcode::Ftruncate::new(self.file.target(), self.len).build()
    }
}

struct Statx {
    /// None: the current directory, for the path alone.
    file: Option<Rc<FileFd>>,
    path: CString,
    found: Box<libc::statx>,
}

impl Statx {
    fn new(file: Option<Rc<FileFd>>, path: CString) -> Statx {
        // SAFETY: statx is plain numbers, for which zeros are valid.
        let found = Box::new(unsafe { std::mem::zeroed::<libc::statx>() });
        Statx { file, path, found }
    }
}

// SAFETY: path and result are on the heap and stay.
unsafe impl Payload for Statx {
    fn entry(&mut self) -> Entry {
        let (fd, flags) = match &self.file {
            Some(file) => (file.fd, libc::AT_EMPTY_PATH),
            None => (libc::AT_FDCWD, 0),
        };
        let found = std::ptr::from_mut(self.found.as_mut()).cast();
        opcode::Statx::new(types::Fd(fd), self.path.as_ptr(), found)
            .flags(flags)
            .mask(libc::STATX_BASIC_STATS)
            .build()
    }
}

/// What changes a name.
enum NameChange {
    MakeDir(CString),
    RemoveFile(CString),
    RemoveDir(CString),
    Rename(CString, CString),
}

// SAFETY: the paths are on the heap and stay.
unsafe impl Payload for NameChange {
    fn entry(&mut self) -> Entry {
        let here = types::Fd(libc::AT_FDCWD);
        match self {
            NameChange::MakeDir(path) => opcode::MkDirAt::new(here, path.as_ptr())
                .mode(DIR_MODE)
                .build(),
            NameChange::RemoveFile(path) => opcode::UnlinkAt::new(here, path.as_ptr()).build(),
            NameChange::RemoveDir(path) => opcode::UnlinkAt::new(here, path.as_ptr())
                .flags(libc::AT_REMOVEDIR)
                .build(),
            NameChange::Rename(from, to) => {
                opcode::RenameAt::new(here, from.as_ptr(), here, to.as_ptr()).build()
            }
        }
    }
}

/// Offsets beyond `i64::MAX` mean something else to the kernel.
fn check_range(offset: u64, len: usize) -> io::Result<()> {
    let end = offset.checked_add(len as u64);
    if end.is_some_and(|end| i64::try_from(end).is_ok()) {
        return Ok(());
    }
    let text = format!("{len} bytes at offset {offset} end beyond the largest file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn metadata_of(found: &libc::statx) -> Metadata {
    Metadata {
        len: found.stx_size,
        allocated: found.stx_blocks * 512,
        is_dir: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR,
    }
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let open = Open {
            path: c_path(path)?,
            flags: open_flags(options)?,
        };
        let (result, _) = run_again(open).await;
        let fd = RawFd::try_from(result?).expect("a descriptor is small");
        let direct = options.direct;
        let file = Rc::new(FileFd { fd, direct });
        Ok(File { file })
    }

    pub(crate) async fn read_at(&self, buf: Buf, offset: u64) -> (io::Result<usize>, Buf) {
        if let Err(error) = check_range(offset, buf.len()) {
            return (Err(error), buf);
        }
        let mut read = Read {
            file: self.file.clone(),
            buf,
            done: 0,
            offset,
        };
        while read.done < read.buf.len() {
            let (result, back) = run_again(read).await;
            read = back;
            match result {
                Ok(0) => break,
                Ok(count) => read.done += count,
                Err(error) => return (Err(error), read.buf),
            }
            // The rest could not be asked for with O_DIRECT; there is none: this is the file's end.
            if self.file.direct && !read.done.is_multiple_of(ALIGNMENT) {
                break;
            }
        }
        (Ok(read.done), read.buf)
    }

    pub(crate) async fn write_all_at(&self, data: SharedBuf, offset: u64) -> io::Result<()> {
        check_range(offset, data.len())?;
        let mut write = Write {
            file: self.file.clone(),
            data,
            done: 0,
            offset,
        };
        while write.done < write.data.len() {
            let (result, back) = run_again(write).await;
            write = back;
            match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => write.done += count,
            }
        }
        Ok(())
    }

    pub(crate) async fn sync(&self, data_only: bool) -> io::Result<()> {
        let file = self.file.clone();
        let (result, _) = run_again(Fsync { file, data_only }).await;
        result.map(drop)
    }

    /// A descriptor of its own for a helper thread: ours may be closed before it is done.
    fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: our descriptor is open; the new one is nobody else's.
        unsafe {
            match libc::fcntl(self.file.fd, libc::F_DUPFD_CLOEXEC, 0) {
                fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    pub(crate) async fn sync_filesystem(&self) -> io::Result<()> {
        let own = self.duplicate()?;
        blocking::run(move || {
            // SAFETY: an open descriptor.
            match unsafe { libc::syncfs(own.as_raw_fd()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
        .await
    }

    pub(crate) async fn allocate(&self, what: Allocate, offset: u64, len: u64) -> io::Result<()> {
        let mode = match what {
            Allocate::Extend => 0,
            Allocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Allocate::ZeroRange => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        };
        let (result, _) = run_again(Fallocate {
            file: self.file.clone(),
            mode,
            offset,
            len,
        })
        .await;
        result.map(drop)
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        let signed = i64::try_from(len).map_err(|_| {
            let text = format!("a file of {len} bytes is too large");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        if with_uring(|driver| driver.has_ftruncate) {
            let file = self.file.clone();
            let (result, _) = run_again(Ftruncate { file, len }).await;
            return result.map(drop);
        }
        let own = self.duplicate()?;
        blocking::run(move || {
            // SAFETY: an open descriptor.
            match unsafe { libc::ftruncate(own.as_raw_fd(), signed) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
        .await
    }

    pub(crate) async fn metadata(&self) -> io::Result<Metadata> {
        stat(Some(self.file.clone()), CString::default()).await
    }

    /// `flock`: the lock belongs to the open file description, which operations in flight hold.
    pub(crate) async fn try_lock(&self) -> io::Result<bool> {
        // SAFETY: an open descriptor; with LOCK_NB the call does not wait.
        if unsafe { libc::flock(self.file.fd, libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock {
            return Ok(false);
        }
        Err(error)
    }
}

async fn stat(file: Option<Rc<FileFd>>, path: CString) -> io::Result<Metadata> {
    let (result, stat) = run_again(Statx::new(file, path)).await;
    result.map(|_| metadata_of(&stat.found))
}

async fn change_name(change: NameChange) -> io::Result<()> {
    run_again(change).await.0.map(drop)
}

pub(crate) async fn create_dir(path: &Path) -> io::Result<()> {
    change_name(NameChange::MakeDir(c_path(path)?)).await
}

pub(crate) async fn remove_file(path: &Path) -> io::Result<()> {
    change_name(NameChange::RemoveFile(c_path(path)?)).await
}

pub(crate) async fn remove_dir(path: &Path) -> io::Result<()> {
    change_name(NameChange::RemoveDir(c_path(path)?)).await
}

pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    change_name(NameChange::Rename(c_path(from)?, c_path(to)?)).await
}

pub(crate) async fn metadata(path: &Path) -> io::Result<Metadata> {
    stat(None, c_path(path)?).await
}

pub(crate) async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let path = path.to_path_buf();
    blocking::run(move || list(&path)).await
}

#[allow(clippy::disallowed_methods, reason = "runs on a helper thread")]
fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        let name = entry.file_name().into_string().map_err(|name| {
            let text = format!("{}: {name:?} is not UTF-8", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        entries.push(DirEntry { name, is_dir });
    }
    entries.sort();
    Ok(entries)
}

pub(crate) async fn capacity(path: &Path) -> io::Result<FsCapacity> {
    let path = c_path(path)?;
    blocking::run(move || capacity_now(&path)).await
}

fn capacity_now(path: &CStr) -> io::Result<FsCapacity> {
    // SAFETY: statvfs is plain numbers, for which zeros are valid; the path ends with a NUL.
    let found = unsafe {
        let mut found = std::mem::zeroed::<libc::statvfs>();
        if libc::statvfs(path.as_ptr(), &mut found) != 0 {
            return Err(io::Error::last_os_error());
        }
        found
    };
    Ok(FsCapacity {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

pub(crate) async fn honours_syncfs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    blocking::run(move || {
        let kind = type_now(&path)?;
        Ok(SYNCFS_TYPES.contains(&kind) && linux_release() >= Some(SYNCFS_LINUX))
    })
    .await
}

/// `f_type` of `statfs`; its 32 bits come in a field of another width and sign on each platform.
fn type_now(path: &CStr) -> io::Result<u32> {
    // SAFETY: statfs is plain numbers, for which zeros are valid; the path ends with a NUL.
    let found = unsafe {
        let mut found = std::mem::zeroed::<libc::statfs>();
        if libc::statfs(path.as_ptr(), &mut found) != 0 {
            return Err(io::Error::last_os_error());
        }
        found
    };
    Ok(found.f_type as u32)
}

/// The running kernel's version and patch level; `None` if it does not tell.
fn linux_release() -> Option<(u32, u32)> {
    // SAFETY: utsname is plain bytes, for which zeros are valid; the kernel ends each with a NUL.
    let release = unsafe {
        let mut names = std::mem::zeroed::<libc::utsname>();
        if libc::uname(&mut names) != 0 {
            return None;
        }
        CStr::from_ptr(names.release.as_ptr()).to_owned()
    };
    parse_release(release.to_str().ok()?)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number_and_an_unknown_one_is_older_than_all() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.17-rc1"), Some((5, 17)));
        assert!(parse_release("5.4.0") < Some(SYNCFS_LINUX));
        assert!(parse_release("6.1.0") > Some(SYNCFS_LINUX));
        assert!(parse_release("next") < Some(SYNCFS_LINUX));
        assert!(linux_release().is_some(), "this kernel tells its release");
    }
}

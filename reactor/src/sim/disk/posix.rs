//! The system calls of the simulated file system: what each checks, and what it does to the tree.

use super::inode::{Body, Inode, OpenFile};
use super::ops::{Call, Effect, Failing, Slot, Write};
use super::tree::Tree;
use super::{DiskCall, DiskOp, SimDisk};
use crate::buf::{Buf, SharedBuf};
use crate::fs::{Allocate, DirEntry, FsCapacity, Metadata, OpenOptions};
use crate::sim::world::World;
use rand_chacha::ChaCha8Rng;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Largest offset of a file, as the kernel's `loff_t`.
const MAX_OFFSET: u64 = i64::MAX as u64;

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn check_range(offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_OFFSET => Ok(()),
        _ => Err(os(libc::EFBIG)),
    }
}

fn describe(inode: &Inode) -> Metadata {
    match &inode.body {
        Body::File(content) => {
            let content = content.borrow();
            Metadata {
                len: content.len(),
                allocated: content.allocated(),
                is_dir: false,
            }
        }
        Body::Dir(_) => Metadata {
            len: 0,
            allocated: 0,
            is_dir: true,
        },
    }
}

fn whole(op: DiskOp, path: &Path) -> DiskCall<'_> {
    DiskCall {
        op,
        path,
        offset: 0,
        len: 0,
    }
}

/// Whether a crash may still apply a call that had no effect yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Looks,
    Changes,
}

impl OpenFile {
    pub(in crate::sim) fn is_direct(&self) -> bool {
        self.options.direct
    }

    fn needs(&self, allowed: bool) -> io::Result<()> {
        if allowed {
            Ok(())
        } else {
            Err(os(libc::EBADF))
        }
    }
}

/// Opens as `openat` does.
fn open_now(
    tree: &mut Tree,
    rng: &mut ChaCha8Rng,
    path: &Path,
    options: OpenOptions,
    takes_direct: bool,
) -> io::Result<Rc<OpenFile>> {
    let found = tree.find(path);
    let creates = options.create || options.create_new;
    let inode = match found {
        Ok(_) if options.create_new => return Err(os(libc::EEXIST)),
        Ok(inode) => inode,
        Err(error) if error.kind() == io::ErrorKind::NotFound && creates => {
            let place = tree.place(path)?;
            tree.create_file(place)
        }
        Err(error) => return Err(error),
    };
    if inode.is_dir() && (options.write || options.truncate || creates) {
        return Err(os(libc::EISDIR));
    }
    if options.directory && !inode.is_dir() {
        return Err(os(libc::ENOTDIR));
    }
    if options.direct && !takes_direct {
        return Err(os(libc::EINVAL));
    }
    if options.truncate {
        let mut content = inode.content()?.borrow_mut();
        content.set_len(0, inode.space(), rng);
    }
    let id = tree.next_id();
    Ok(OpenFile::new(inode, id, path, options))
}

impl SimDisk {
    async fn run<T: 'static>(
        &self,
        world: &Rc<World>,
        call: DiskCall<'_>,
        kind: Kind,
        effect: Effect<T>,
        on_failure: Option<Failing>,
    ) -> io::Result<T> {
        if world.is_halted() {
            return std::future::pending().await;
        }
        let slot = Slot::new();
        let work = Call {
            effect: Some(effect),
            on_failure,
            changes: kind == Kind::Changes,
            done: None,
            failure: None,
            slot: slot.clone(),
        };
        self.begin(world, &call, Box::new(work));
        std::future::poll_fn(|cx| slot.poll(cx)).await
    }

    pub(in crate::sim) async fn open(
        &self,
        world: &Rc<World>,
        path: &Path,
        options: OpenOptions,
    ) -> io::Result<Rc<OpenFile>> {
        let (name, takes_direct) = (path.to_path_buf(), self.config().direct);
        let effect =
            move |tree: &mut Tree, rng: &mut _| open_now(tree, rng, &name, options, takes_direct);
        let call = whole(DiskOp::Open, path);
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn read(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
        buf: Buf,
        offset: u64,
    ) -> (io::Result<usize>, Buf) {
        if let Err(error) = open.needs(open.options.read) {
            return (Err(error), buf);
        }
        let (file, len) = (open.clone(), buf.len() as u64);
        // The buffer is the disk's until the operation has ended, and comes back with the answer.
        let place = Rc::new(std::cell::Cell::new(Some(buf)));
        let target = place.clone();
        let effect = move |_: &mut Tree, _: &mut _| {
            let mut buf = target.take().expect("a read takes effect once");
            let done = file
                .inode
                .content()
                .map(|content| content.borrow().read(offset, &mut buf));
            target.set(Some(buf));
            done
        };
        let call = DiskCall {
            offset,
            len,
            ..whole(DiskOp::Read, &open.path)
        };
        let done = self
            .run(world, call, Kind::Looks, Box::new(effect), None)
            .await;
        (done, place.take().expect("a read gives its buffer back"))
    }

    pub(in crate::sim) async fn write(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
        data: SharedBuf,
        offset: u64,
    ) -> io::Result<()> {
        open.needs(open.options.write)?;
        check_range(offset, data.len() as u64)?;
        if world.is_halted() {
            return std::future::pending().await;
        }
        let slot = Slot::new();
        let call = DiskCall {
            offset,
            len: data.len() as u64,
            ..whole(DiskOp::Write, &open.path)
        };
        let work = Write {
            file: open.clone(),
            data,
            offset,
            slot: slot.clone(),
            failure: None,
        };
        self.begin(world, &call, Box::new(work));
        std::future::poll_fn(|cx| slot.poll(cx)).await
    }

    pub(in crate::sim) async fn sync(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
        op: DiskOp,
    ) -> io::Result<()> {
        let (file, failing) = (open.clone(), open.clone());
        let effect = move |tree: &mut Tree, _: &mut _| {
            match (&file.inode.body, op) {
                (_, DiskOp::SyncFilesystem) => tree.sync_all(),
                (Body::File(content), _) => content.borrow_mut().sync(),
                (Body::Dir(_), _) => tree.sync_dir(&file.inode),
            }
            Ok(())
        };
        let on_failure = move |_: &mut Tree, rng: &mut _| {
            if let Body::File(content) = &failing.inode.body {
                content.borrow_mut().fail_sync(failing.inode.space(), rng);
            }
        };
        let call = whole(op, &open.path);
        let (effect, on_failure) = (Box::new(effect), Box::new(on_failure));
        self.run(world, call, Kind::Changes, effect, Some(on_failure))
            .await
    }

    pub(in crate::sim) async fn allocate(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
        what: Allocate,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        open.needs(open.options.write)?;
        check_range(offset, len)?;
        if len == 0 {
            return Err(os(libc::EINVAL));
        }
        let (file, range) = (open.clone(), offset..offset + len);
        let effect = move |_: &mut Tree, rng: &mut _| {
            let mut content = file.inode.content()?.borrow_mut();
            let space = file.inode.space();
            match what {
                Allocate::Extend => content.extend(&range, space, rng),
                Allocate::PunchHole => {
                    content.punch(&range, space, rng);
                    Ok(())
                }
                Allocate::ZeroRange => content.zero(&range, space, rng),
            }
        };
        let call = DiskCall {
            offset,
            len,
            ..whole(DiskOp::Allocate, &open.path)
        };
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn set_len(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
        len: u64,
    ) -> io::Result<()> {
        if !open.options.write || len > MAX_OFFSET {
            return Err(os(libc::EINVAL));
        }
        let file = open.clone();
        let effect = move |_: &mut Tree, rng: &mut _| {
            let mut content = file.inode.content()?.borrow_mut();
            content.set_len(len, file.inode.space(), rng);
            Ok(())
        };
        let call = DiskCall {
            len,
            ..whole(DiskOp::SetLen, &open.path)
        };
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn file_metadata(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
    ) -> io::Result<Metadata> {
        let file = open.clone();
        let effect = move |_: &mut Tree, _: &mut _| Ok(describe(&file.inode));
        let call = whole(DiskOp::Metadata, &open.path);
        self.run(world, call, Kind::Looks, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn try_lock(
        &self,
        world: &Rc<World>,
        open: &Rc<OpenFile>,
    ) -> io::Result<bool> {
        let file = open.clone();
        let effect = move |_: &mut Tree, _: &mut _| Ok(file.try_lock());
        let call = whole(DiskOp::Lock, &open.path);
        self.run(world, call, Kind::Looks, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn create_dir(
        &self,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<()> {
        let name = path.to_path_buf();
        let effect = move |tree: &mut Tree, _: &mut _| tree.create_dir(&name);
        let call = whole(DiskOp::CreateDir, path);
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn remove(
        &self,
        world: &Rc<World>,
        path: &Path,
        is_dir: bool,
    ) -> io::Result<()> {
        let name = path.to_path_buf();
        let effect = move |tree: &mut Tree, _: &mut _| tree.remove(&name, is_dir);
        let call = whole(DiskOp::Remove, path);
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn rename(
        &self,
        world: &Rc<World>,
        from: &Path,
        to: &Path,
    ) -> io::Result<()> {
        let (source, target) = (from.to_path_buf(), to.to_path_buf());
        let effect = move |tree: &mut Tree, _: &mut _| tree.rename(&source, &target);
        let call = whole(DiskOp::Rename, from);
        self.run(world, call, Kind::Changes, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn metadata(
        &self,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<Metadata> {
        let name = path.to_path_buf();
        let effect = move |tree: &mut Tree, _: &mut _| Ok(describe(&*tree.find(&name)?));
        let call = whole(DiskOp::Metadata, path);
        self.run(world, call, Kind::Looks, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn read_dir(
        &self,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<Vec<DirEntry>> {
        let name = path.to_path_buf();
        let effect = move |tree: &mut Tree, _: &mut _| {
            let inode = tree.find(&name)?;
            let dir = inode.directory()?.borrow();
            let entry = |(name, inode): (&String, &Rc<Inode>)| DirEntry {
                name: name.clone(),
                is_dir: inode.is_dir(),
            };
            Ok(dir.entries.iter().map(entry).collect())
        };
        let call = whole(DiskOp::ReadDir, path);
        self.run(world, call, Kind::Looks, Box::new(effect), None)
            .await
    }

    pub(in crate::sim) async fn capacity(
        &self,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<FsCapacity> {
        let name = path.to_path_buf();
        let effect = move |tree: &mut Tree, _: &mut _| {
            tree.find(&name)?;
            Ok(FsCapacity {
                total: tree.space.capacity(),
                available: tree.space.available(),
            })
        };
        let call = whole(DiskOp::Capacity, path);
        self.run(world, call, Kind::Looks, Box::new(effect), None)
            .await
    }
}

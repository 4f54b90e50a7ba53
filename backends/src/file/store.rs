//! One core's access to a file pool. An object exists once its file has its full, sparse length:
//! a file of length 0 is a creation that has not got there.

use super::Shared;
use super::cache::{FdCache, Open};
use super::keeper::Request;
use super::list::list;
use super::place::Leaf;
use super::sync::open_objects;
use crate::check;
use crate::finish::to_the_end;
use crate::{
    BLOCK_SIZE, BlockRange, Capacity, Error, ErrorKind, Generation, ListCursor, ListPage, ObjectId,
    ObjectSize, ObjectStat, ObjectStore, Properties, ReadHint, Record, Result, WriteMode, ZeroMode,
};
use atoll_reactor::fs::{self, Allocate, File, OpenOptions};
use atoll_reactor::mailbox::{self, SendError};
use atoll_reactor::{Buf, LocalFuture, SharedBuf, oneshot, spawn_detached};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Deletions on other cores that this one has not heard of yet; a full mailbox slows deleting.
const DELETIONS_QUEUE: usize = 1024;
/// Bytes written at a time where zeros must be written: what `SharedBuf::zeros` has for nothing.
const ZEROS_STEP: usize = 1 << 20;

pub(super) struct FileStore {
    core: Rc<Core>,
}

/// The part that operations hold until they end.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) objects: File,
    cache: RefCell<FdCache>,
    /// The other stores' ears: of all stores but this.
    own_ear: usize,
}

impl FileStore {
    pub(super) async fn attach(shared: Arc<Shared>) -> Result<FileStore> {
        let objects = open_objects(shared.places.objects()).await?;
        let (ear, mut deleted) = mailbox::channel(DELETIONS_QUEUE);
        let own_ear = shared.deletions.push(ear);
        let cache = FdCache::new(shared.options.open_files, shared.direct);
        let core = Rc::new(Core {
            shared,
            objects,
            cache: RefCell::new(cache),
            own_ear,
        });
        let listener = Rc::downgrade(&core);
        spawn_detached(async move {
            // A descriptor of a deleted object would keep its space.
            while let Some(id) = deleted.recv().await {
                let Some(core) = listener.upgrade() else {
                    break;
                };
                core.cache.borrow_mut().remove(id);
            }
        });
        Ok(FileStore { core })
    }

    fn size(&self) -> ObjectSize {
        self.core.size()
    }
}

impl Core {
    fn size(&self) -> ObjectSize {
        self.shared.properties.object_size
    }

    fn full_len(&self) -> u64 {
        u64::from(self.size().bytes())
    }

    pub(super) fn object_error(&self, op: &str, id: ObjectId, error: io::Error) -> Error {
        let path = self.shared.places.object(id);
        Error::from_io(format!("{op} of object {id} in {}", path.display()), error)
    }

    fn wrong_length(&self, op: &str, id: ObjectId, len: u64) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{op} of object {id}: {} has {len} bytes instead of {}",
                self.shared.places.object(id).display(),
                self.full_len()
            ),
        )
    }

    /// The object's file, opened or made as the mode says.
    pub(super) async fn open(
        self: &Rc<Core>,
        op: &str,
        id: ObjectId,
        mode: WriteMode,
    ) -> Result<Rc<Open>> {
        if let Some(open) = self.cache.borrow_mut().get(id) {
            return Ok(open);
        }
        let path = self.shared.places.object(id);
        let options = OpenOptions {
            direct: self.shared.direct,
            ..OpenOptions::read_write()
        };
        let file = match mode {
            WriteMode::Existing => match File::open(&path, options).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(check::missing(op, id));
                }
                other => other,
            },
            WriteMode::Create => self.open_or_make(&path, id, options).await,
        };
        let file = file.map_err(|error| self.object_error(op, id, error))?;
        self.check_length(op, id, mode, &file).await?;
        let inserted = self.cache.borrow_mut().insert(id, file);
        if let Some((id, open)) = inserted.stuck {
            self.clone().sync_to_close(id, open);
        }
        Ok(inserted.open)
    }

    /// In buffered mode: after this the file may be closed.
    fn sync_to_close(self: Rc<Core>, id: ObjectId, open: Rc<Open>) {
        spawn_detached(async move {
            open.dirty.set(false);
            // A failure is remembered for the next sync.
            let _ = self.sync_open(id, &open.file).await;
        });
    }

    async fn open_or_make(
        &self,
        path: &Path,
        id: ObjectId,
        options: OpenOptions,
    ) -> io::Result<File> {
        let leaf = Leaf::of(id);
        let options = OpenOptions {
            create: true,
            ..options
        };
        let made = {
            let _making = self.shared.directories.leaf(leaf).making();
            File::open(path, options).await
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
        self.make_directories(leaf).await?;
        let _making = self.shared.directories.leaf(leaf).making();
        File::open(path, options).await
    }

    async fn make_directories(&self, leaf: Leaf) -> io::Result<()> {
        let (places, directories) = (&self.shared.places, &self.shared.directories);
        let unless_there = |made: io::Result<()>| match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        {
            let _making = directories.top.making();
            unless_there(fs::create_dir(&places.first(leaf.first())).await)?;
        }
        let _making = directories.first[leaf.first()].making();
        unless_there(fs::create_dir(&places.leaf(leaf)).await)
    }

    async fn check_length(
        &self,
        op: &str,
        id: ObjectId,
        mode: WriteMode,
        file: &File,
    ) -> Result<()> {
        let failed = |error| self.object_error(op, id, error);
        let len = file.metadata().await.map_err(failed)?.len;
        match (len, mode) {
            (len, _) if len == self.full_len() => Ok(()),
            (0, WriteMode::Existing) => Err(check::missing(op, id)),
            (0, WriteMode::Create) => file.set_len(self.full_len()).await.map_err(failed),
            (len, _) => Err(self.wrong_length(op, id, len)),
        }
    }

    async fn read(self: Rc<Core>, id: ObjectId, range: BlockRange) -> Result<SharedBuf> {
        let open = self.open("read", id, WriteMode::Existing).await?;
        let wanted = range.byte_len();
        let (read, buf) = open
            .file
            .read_at(Buf::alloc(wanted), range.byte_offset())
            .await;
        let read = read.map_err(|error| self.object_error("read", id, error))?;
        if read == wanted {
            return Ok(buf.freeze());
        }
        self.read_rest(id, &open, range, buf, read).await
    }

    /// A read that came back short: the rest, unless the file ends there.
    async fn read_rest(
        &self,
        id: ObjectId,
        open: &Open,
        range: BlockRange,
        mut whole: Buf,
        mut done: usize,
    ) -> Result<SharedBuf> {
        while done < whole.len() {
            // From a block's beginning, for O_DIRECT.
            done -= done % BLOCK_SIZE as usize;
            let offset = range.byte_offset() + done as u64;
            let (read, part) = open
                .file
                .read_at(Buf::alloc(whole.len() - done), offset)
                .await;
            let read = read.map_err(|error| self.object_error("read", id, error))?;
            if read < BLOCK_SIZE as usize {
                return Err(self.wrong_length("read", id, offset + read as u64));
            }
            whole[done..done + read].copy_from_slice(&part[..read]);
            done += read;
        }
        Ok(whole.freeze())
    }

    async fn write(
        self: Rc<Core>,
        id: ObjectId,
        range: BlockRange,
        data: SharedBuf,
        mode: WriteMode,
    ) -> Result<()> {
        let open = self.open("write", id, mode).await?;
        let data = if self.shared.direct && !data.is_aligned() {
            SharedBuf::copy_of(&data)
        } else {
            data
        };
        let done = open.file.write_all_at(data, range.byte_offset()).await;
        open.dirty.set(true);
        done.map_err(|error| self.object_error("write", id, error))
    }

    async fn write_zeroes(
        self: Rc<Core>,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> Result<()> {
        let open = self.open("write_zeroes", id, mode).await?;
        let (how, unsupported): (_, &AtomicBool) = match zero {
            ZeroMode::Punch => (Allocate::PunchHole, &self.shared.no_punch),
            ZeroMode::Keep => (Allocate::ZeroRange, &self.shared.no_zero_range),
        };
        let (offset, len) = (range.byte_offset(), range.byte_len());
        if !unsupported.load(Ordering::Relaxed) {
            let done = open.file.allocate(how, offset, len as u64).await;
            open.dirty.set(true);
            match done {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    unsupported.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(self.object_error("write_zeroes", id, error)),
            }
        }
        let mut done = 0;
        while done < len {
            let step = ZEROS_STEP.min(len - done);
            let zeros = SharedBuf::zeros(step);
            let written = open.file.write_all_at(zeros, offset + done as u64).await;
            open.dirty.set(true);
            written.map_err(|error| self.object_error("write_zeroes", id, error))?;
            done += step;
        }
        Ok(())
    }

    async fn delete(self: Rc<Core>, id: ObjectId) -> Result<()> {
        self.cache.borrow_mut().remove(id);
        match fs::remove_file(&self.shared.places.object(id)).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.object_error("delete", id, error)),
        }
        for (ear, sender) in self.shared.deletions.iter().enumerate() {
            if ear == self.own_ear {
                continue;
            }
            match sender.send(id).await {
                // A store that is gone has no descriptors.
                Ok(()) | Err(SendError::Closed(_) | SendError::Full(_)) => {}
            }
        }
        Ok(())
    }

    async fn reserve(self: Rc<Core>, below: Generation) -> Result<()> {
        if below <= self.shared.generation_mark() {
            return Ok(());
        }
        let stopped = || {
            Error::new(
                ErrorKind::Offline,
                "the core that opened the pool has stopped",
            )
        };
        let (answer, done) = oneshot::channel();
        self.shared
            .keeper
            .send(Request { below, answer })
            .await
            .map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }
}

impl ObjectStore for FileStore {
    fn properties(&self) -> &Properties {
        &self.core.shared.properties
    }

    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        _hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>> {
        if let Err(error) = check::range("read", id, self.size(), range) {
            return LocalFuture::ready(Err(error));
        }
        LocalFuture::new(self.core.clone().read(id, range))
    }

    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        match check::written("write", id, self.size(), first, data.len()) {
            Ok(range) => to_the_end(self.core.clone().write(id, range, data, mode)),
            Err(error) => LocalFuture::ready(Err(error)),
        }
    }

    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        if let Err(error) = check::range("write_zeroes", id, self.size(), range) {
            return LocalFuture::ready(Err(error));
        }
        to_the_end(self.core.clone().write_zeroes(id, range, zero, mode))
    }

    fn sync<'a>(&'a self, ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>> {
        let (core, ids) = (self.core.clone(), ids.to_vec());
        to_the_end(async move { core.sync(ids).await.map(|()| Vec::new()) })
    }

    fn sync_all(&self) -> LocalFuture<'_, Result<()>> {
        to_the_end(self.core.clone().sync_all())
    }

    fn delete(&self, id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>> {
        let core = self.core.clone();
        to_the_end(async move { core.delete(id).await.map(|()| Vec::new()) })
    }

    fn stat(&self, id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>> {
        LocalFuture::new(async move {
            let path = self.core.shared.places.object(id);
            match fs::metadata(&path).await {
                Ok(found) if found.len > 0 => Ok(ObjectStat {
                    allocated: found.allocated,
                }),
                Ok(_) => Err(check::missing("stat", id)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(check::missing("stat", id))
                }
                Err(error) => Err(self.core.object_error("stat", id, error)),
            }
        })
    }

    fn list(&self, from: Option<ListCursor>, limit: usize) -> LocalFuture<'_, Result<ListPage>> {
        LocalFuture::new(async move { list(&self.core.shared.places, from, limit).await })
    }

    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let size = self.size();
        let checked = check::range("copy", from, size, from_range)
            .and_then(|()| check::written("copy", to, size, to_first, from_range.byte_len()));
        let range = match checked {
            Ok(range) => range,
            Err(error) => return LocalFuture::ready(Err(error)),
        };
        let core = self.core.clone();
        to_the_end(async move {
            let data = core.clone().read(from, from_range).await?;
            core.write(to, range, data, mode).await
        })
    }

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>> {
        LocalFuture::new(async move {
            let root = self.core.shared.places.root();
            let found = fs::capacity(root).await.map_err(|error| {
                Error::from_io(format!("capacity of {}", root.display()), error)
            })?;
            Ok(Capacity {
                total: found.total,
                available: found.available,
            })
        })
    }

    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>> {
        LocalFuture::ready(Ok(self.core.shared.generation_mark()))
    }

    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>> {
        to_the_end(self.core.clone().reserve(below))
    }
}

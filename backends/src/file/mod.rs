//! Objects as files of any POSIX file system, one each, in hashed directories; `FORMAT.md` draws
//! what is kept. Exclusive: a lock file tells who has the pool. What objects mean is not known here.

mod cache;
mod durable;
mod format;
mod keeper;
mod list;
mod open;
mod place;
mod store;
mod sync;
mod sync_all;

pub use format::{FORMAT_VERSION, Label, OwnerPrefix, decode_mark, encode_mark};

use crate::{Generation, ObjectId, ObjectSize, ObjectStore, Pool, PoolId, Properties, Result};
use atoll_reactor::{LocalFuture, mailbox};
use durable::{Chain, Directories, Failures};
use place::Places;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::FileStore;

/// Open files kept per core unless told otherwise.
pub const DEFAULT_OPEN_FILES: usize = 1024;
/// Where [`WholeSync::FromDefault`] begins: objects in one `sync` from which one `syncfs` is asked
/// for instead of a call per file. A file's sync costs one journal commit at worst, and commits of
/// parallel ones are shared; from hundreds of files on, opening those that are not cached and the
/// calls themselves cost more than writing back what others have dirty on the file system.
pub const SYNCFS_FROM: usize = 256;

/// Whether `syncfs` may stand for the syncs of many files. It never does where it may succeed
/// without having written (FUSE, whose server is not even asked, network file systems, unknown
/// ones, any on an old kernel; see `fs::honours_syncfs`): there it is file by file, whatever is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WholeSync {
    /// File by file.
    Never,
    /// From [`SYNCFS_FROM`] objects on.
    #[default]
    FromDefault,
    /// From so many objects on.
    From(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// Open object files kept per core. More are open only while they are in use.
    pub open_files: usize,
    pub whole_sync: WholeSync,
    /// False: through the page cache even where `O_DIRECT` works.
    pub direct: bool,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions {
            open_files: DEFAULT_OPEN_FILES,
            whole_sync: WholeSync::default(),
            direct: true,
        }
    }
}

/// What the pool's stores on all cores share. Dropped with the last of them, which ends the
/// keeper and so frees the lock.
pub(crate) struct Shared {
    pub(crate) places: Places,
    pub(crate) options: FileOptions,
    pub(crate) properties: Properties,
    pub(crate) direct: bool,
    /// Of the file system that the objects are on.
    pub(crate) honours_syncfs: bool,
    pub(crate) mark: Arc<AtomicU64>,
    pub(crate) keeper: mailbox::Sender<keeper::Request>,
    pub(crate) directories: Directories,
    pub(crate) failures: Failures,
    /// Where each core hears of deletions.
    pub(crate) deletions: Chain<mailbox::Sender<ObjectId>>,
    pub(crate) no_punch: AtomicBool,
    pub(crate) no_zero_range: AtomicBool,
}

/// What a look at a pool without opening it tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileProbe {
    pub label: Label,
    /// Every generation below it may have been used.
    pub mark: Generation,
}

/// An open file pool. Clones are the same one.
#[derive(Clone)]
pub struct FilePool {
    shared: Arc<Shared>,
}

impl FilePool {
    /// Makes the directory a pool and opens it. The directory may be missing (its parent must be
    /// there), empty, or hold what an interrupted creation of the same pool left; a finished pool
    /// with the same id and object size is opened as it is.
    pub async fn create(
        path: &Path,
        pool: PoolId,
        size: ObjectSize,
        options: FileOptions,
    ) -> Result<FilePool> {
        open::create(path, pool, size, options).await
    }

    /// Opens a pool exclusively. `Invalid` where there is none or with another object size or a
    /// newer format, `NotOwner` for another pool or one in use, `Corrupt` for a damaged label.
    /// Runs on a core; that core must outlive the pool.
    pub async fn open(
        path: &Path,
        pool: PoolId,
        size: ObjectSize,
        options: FileOptions,
    ) -> Result<FilePool> {
        open::open(path, pool, size, options).await
    }

    /// Reads what the pool says of itself; changes and locks nothing.
    pub async fn probe(path: &Path) -> Result<FileProbe> {
        open::probe(path).await
    }

    /// False where the file system refuses `O_DIRECT` or it was not wanted.
    pub fn is_direct(&self) -> bool {
        self.shared.direct
    }

    pub fn path(&self) -> &Path {
        self.shared.places.root()
    }
}

impl Shared {
    pub(crate) fn generation_mark(&self) -> Generation {
        Generation::new(self.mark.load(Ordering::Acquire)).expect("a mark has 52 bits")
    }
}

impl Pool for FilePool {
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>> {
        LocalFuture::new(async move {
            let store: Rc<dyn ObjectStore> = Rc::new(FileStore::attach(self.shared.clone()).await?);
            Ok(store)
        })
    }
}

//! Creating, opening and probing file pools, with a clear refusal for each way it cannot be.

use super::durable::{Chain, Directories, Failures};
use super::format::{FILE_LEN, Label, decode_mark, encode_mark};
use super::keeper::{KEEPER_QUEUE, Keeper, replace};
use super::place::{LABEL, LABEL_TEMP, LOCK, MARK, MARK_TEMP, OBJECTS, Places};
use super::{FileOptions, FilePool, FileProbe, Shared};
use crate::{Error, ErrorKind, Generation, ObjectSize, PoolId, Properties, Result};
use atoll_reactor::fs::{self, File, OpenOptions};
use atoll_reactor::{Buf, SharedBuf, mailbox, sleep, spawn_detached};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// How often a lock that is taken is tried again: the kernel may still be ending the writes of a
/// daemon that was just killed, and a pool dropped just now gives its lock free a moment later.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// Longest content of the lock file that is looked at: a process id in decimal.
const PID_LEN: usize = 32;
/// A torn sector is the least that a disk promises; no file system promises more.
const ATOMIC_UNIT: u32 = 512;
/// What the directory of a new pool may hold: a file system's own, and what an interrupted
/// creation leaves.
const HARMLESS: [&str; 6] = ["lost+found", LOCK, LABEL_TEMP, MARK, MARK_TEMP, OBJECTS];

fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    Error::from_io(format!("{what} {}", path.display()), error)
}

fn refused(kind: ErrorKind, path: &Path, why: &str) -> Error {
    Error::new(kind, format!("{}: {why}", path.display()))
}

/// A small file whole; `None` if it is missing. A longer one comes with one byte too many.
async fn read_small(path: &Path, limit: usize) -> Result<Option<Buf>> {
    let file = match File::open(path, OpenOptions::read_only()).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("opening", path, error)),
    };
    // Its length first: FUSE answers an asynchronous read beyond the end of a file as if it were full.
    let failed = |error| io_error("reading", path, error);
    let len = file.metadata().await.map_err(failed)?.len;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(limit + 1);
    let (read, mut buf) = file.read_at(Buf::alloc(len), 0).await;
    let len = read.map_err(failed)?;
    buf.set_len(len);
    Ok(Some(buf))
}

/// The label of the pool in this directory, or why there is none.
async fn read_label(path: &Path) -> Result<Label> {
    let label = path.join(LABEL);
    if let Some(bytes) = read_small(&label, FILE_LEN).await? {
        return Label::decode(&bytes, &label.display().to_string());
    }
    let why = match fs::read_dir(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "the pool's directory is missing; is its file system mounted?"
        }
        Err(error) => return Err(io_error("listing", path, error)),
        Ok(found)
            if found
                .iter()
                .all(|entry| HARMLESS.contains(&entry.name.as_str())) =>
        {
            "the directory is empty, not a pool; is its file system mounted?"
        }
        Ok(_) => "the directory has files but no pool.label: not a pool",
    };
    Err(refused(ErrorKind::Invalid, path, why))
}

async fn read_mark(path: &Path, pool: PoolId) -> Result<Generation> {
    let mark = path.join(MARK);
    match read_small(&mark, FILE_LEN).await? {
        Some(bytes) => decode_mark(&bytes, pool, &mark.display().to_string()),
        None => Err(refused(
            ErrorKind::Corrupt,
            &mark,
            "missing: without it object names might be used twice",
        )),
    }
}

pub(super) async fn probe(path: &Path) -> Result<FileProbe> {
    let label = read_label(path).await?;
    let mark = read_mark(path, label.pool).await?;
    Ok(FileProbe { label, mark })
}

fn check_label(path: &Path, label: &Label, pool: PoolId, size: ObjectSize) -> Result<()> {
    if label.pool != pool {
        let why = format!("it belongs to pool {}, not to pool {pool}", label.pool);
        return Err(refused(ErrorKind::NotOwner, path, &why));
    }
    if label.object_size != size {
        let why = format!(
            "its objects have {} bytes, not the {} asked for",
            label.object_size.bytes(),
            size.bytes()
        );
        return Err(refused(ErrorKind::Invalid, path, &why));
    }
    Ok(())
}

/// Takes the pool's lock and notes this process in it.
async fn lock(path: &Path) -> Result<File> {
    let path = path.join(LOCK);
    let options = OpenOptions {
        create: true,
        ..OpenOptions::read_write()
    };
    let failed = |error| io_error("locking", &path, error);
    let file = File::open(&path, options).await.map_err(failed)?;
    let mut tries = 1;
    while !file.try_lock().await.map_err(failed)? {
        if tries == LOCK_TRIES {
            return Err(in_use(&path).await);
        }
        tries += 1;
        sleep(LOCK_PAUSE).await;
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).await.map_err(failed)?;
    file.write_all_at(SharedBuf::copy_of(pid.as_bytes()), 0)
        .await
        .map_err(failed)?;
    Ok(file)
}

async fn in_use(path: &Path) -> Error {
    let known = read_small(path, PID_LEN).await.ok().flatten();
    let pid: Option<u32> =
        known.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
    let by = match pid {
        Some(pid) => format!("the pool is in use by a running daemon, process {pid}"),
        None => "the pool is in use by a running daemon".to_string(),
    };
    refused(ErrorKind::NotOwner, path, &by)
}

/// Whether aligned transfers past the page cache work here, tried on the label.
async fn direct_works(path: &Path) -> Result<bool> {
    let label = path.join(LABEL);
    let options = OpenOptions {
        direct: true,
        ..OpenOptions::read_only()
    };
    let refuses = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
        )
    };
    let file = match File::open(&label, options).await {
        Ok(file) => file,
        Err(error) if refuses(&error) => return Ok(false),
        Err(error) => return Err(io_error("opening", &label, error)),
    };
    match file.read_at(Buf::alloc(FILE_LEN), 0).await.0 {
        Ok(_) => Ok(true),
        Err(error) if refuses(&error) => Ok(false),
        Err(error) => Err(io_error("reading", &label, error)),
    }
}

async fn remove_temps(path: &Path) -> Result<()> {
    for temp in [LABEL_TEMP, MARK_TEMP] {
        let temp = path.join(temp);
        match fs::remove_file(&temp).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("removing", &temp, error));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn open(
    path: &Path,
    pool: PoolId,
    size: ObjectSize,
    options: FileOptions,
) -> Result<FilePool> {
    let label = read_label(path).await?;
    check_label(path, &label, pool, size)?;
    let lock = lock(path).await?;
    open_locked(path, &label, options, lock).await
}

async fn open_locked(
    path: &Path,
    label: &Label,
    options: FileOptions,
    lock: File,
) -> Result<FilePool> {
    // A daemon that was killed may have renamed label or mark and not synced that.
    sync_dir(path).await?;
    let mark = read_mark(path, label.pool).await?;
    remove_temps(path).await?;
    let objects = path.join(OBJECTS);
    let honours_syncfs = fs::honours_syncfs(&objects)
        .await
        .map_err(|error| io_error("looking at the file system of", &objects, error))?;
    let direct = options.direct && direct_works(path).await?;
    if options.direct && !direct {
        tracing::warn!(path = %path.display(), "no O_DIRECT here: the pool uses the page cache");
    }
    let (keeper, requests) = mailbox::channel(KEEPER_QUEUE);
    let mark = Arc::new(AtomicU64::new(mark.get()));
    let task = Keeper {
        root: path.to_path_buf(),
        pool: label.pool,
        mark: mark.clone(),
        lock,
    };
    spawn_detached(task.run(requests));
    let shared = Shared {
        places: Places::new(path, label.owner),
        options,
        properties: Properties {
            object_size: label.object_size,
            atomic_unit: ATOMIC_UNIT,
            zeroes_new: true,
            write_once: false,
            cacheable: false,
            kind: "file",
        },
        direct,
        honours_syncfs,
        mark,
        keeper,
        directories: Directories::new(),
        failures: Failures::new(),
        deletions: Chain::new(),
        no_punch: AtomicBool::new(false),
        no_zero_range: AtomicBool::new(false),
    };
    Ok(FilePool {
        shared: Arc::new(shared),
    })
}

pub(super) async fn create(
    path: &Path,
    pool: PoolId,
    size: ObjectSize,
    options: FileOptions,
) -> Result<FilePool> {
    make_root(path).await?;
    let found = fs::read_dir(path)
        .await
        .map_err(|error| io_error("listing", path, error))?;
    if found.iter().any(|entry| entry.name == LABEL) {
        return open(path, pool, size, options).await;
    }
    let foreign = found
        .iter()
        .find(|entry| !HARMLESS.contains(&entry.name.as_str()));
    if let Some(entry) = foreign {
        let why = format!(
            "a new pool needs an empty directory; this one has {:?}",
            entry.name
        );
        return Err(refused(ErrorKind::Invalid, path, &why));
    }
    let lock = lock(path).await?;
    // Another creation may have finished while the lock was waited for.
    if read_small(&path.join(LABEL), FILE_LEN).await?.is_some() {
        let label = read_label(path).await?;
        check_label(path, &label, pool, size)?;
        return open_locked(path, &label, options, lock).await;
    }
    match fs::create_dir(&path.join(OBJECTS)).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("creating", &path.join(OBJECTS), error));
        }
        _ => {}
    }
    replace(path, MARK, MARK_TEMP, encode_mark(pool, Generation::ZERO)).await?;
    // Last: with its label the pool is complete.
    let label = Label::new(pool, size);
    replace(path, LABEL, LABEL_TEMP, label.encode()).await?;
    open_locked(path, &label, options, lock).await
}

async fn sync_dir(path: &Path) -> Result<()> {
    fs::sync_dir(path)
        .await
        .map_err(|error| io_error("syncing", path, error))
}

/// The pool's own directory, durable. One that is there already may be left by a creation that was
/// killed before it synced; where its parent may not be read it is another's work.
async fn make_root(path: &Path) -> Result<()> {
    let made = match fs::create_dir(path).await {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(io_error("creating", path, error)),
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Ok(()),
    };
    match fs::sync_dir(parent).await {
        Err(error) if !made && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done.map_err(|error| io_error("syncing", parent, error)),
    }
}

//! Imports that have begun and not ended, kept over restarts: one small file each in the data
//! directory, named by the volume's id. Who may write into which volume, and how far it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use uuid::Uuid;

use crate::error::{Error, Result};

use super::lock;

/// The directory of the files, inside the data directory.
const DIR: &str = "imports";
const SUFFIX: &str = ".json";
/// Of a file that is being written.
const NEW_SUFFIX: &str = ".new";

/// What is kept of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub source: Uuid,
    pub base: Option<Uuid>,
    /// Everything before this offset is in the volume, durably.
    pub done: u64,
}

/// An import as it is now.
#[derive(Debug)]
pub struct Import {
    /// None once it has ended.
    pub record: Option<Record>,
    /// Who began or resumed it last: the only one that may write.
    pub session: Uuid,
}

/// Held while something is written.
pub type Writing = OwnedRwLockReadGuard<Import>;

/// All unfinished imports, by their volume's id.
#[derive(Debug)]
pub struct Imports {
    dir: PathBuf,
    unfinished: Mutex<BTreeMap<Uuid, Arc<RwLock<Import>>>>,
}

impl Imports {
    /// Those that an earlier run left. Blocks.
    pub fn load(data: &Path) -> Result<Self> {
        let dir = data.join(DIR);
        let failed = |e: io::Error| Error::internal(format!("directory {}: {e}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        let mut unfinished = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_suffix(SUFFIX)?.parse::<Uuid>().ok());
            let Some(id) = id else { continue };
            let import = Import {
                record: Some(read(&path)?),
                session: Uuid::nil(),
            };
            unfinished.insert(id, Arc::new(RwLock::new(import)));
        }
        Ok(Self {
            dir,
            unfinished: Mutex::new(unfinished),
        })
    }

    /// Forgets those whose volume was deleted just before the daemon was killed. Blocks.
    pub fn retain(&self, there: impl Fn(Uuid) -> bool) {
        lock(&self.unfinished).retain(|volume, _| {
            let keep = there(*volume);
            if !keep {
                // Found again at the next start, if it is still there then.
                let _ = fs::remove_file(self.path(*volume));
            }
            keep
        });
    }

    pub fn is_unfinished(&self, volume: Uuid) -> bool {
        lock(&self.unfinished).contains_key(&volume)
    }

    fn get(&self, volume: Uuid) -> Result<Arc<RwLock<Import>>> {
        let unfinished = lock(&self.unfinished);
        unfinished.get(&volume).cloned().ok_or_else(|| {
            Error::refused("no import into this volume has begun")
                .hint("content is written by `atoll volume import-file` only")
        })
    }

    /// The right to write; the import stays as it is until it is dropped.
    pub async fn writing(&self, volume: Uuid, session: Uuid) -> Result<Writing> {
        let import = self.get(volume)?.read_owned().await;
        if import.record.is_some() && import.session == session {
            return Ok(import);
        }
        Err(taken_over())
    }

    /// Waits for what is being written, and holds back more.
    pub async fn held(&self, volume: Uuid) -> Result<OwnedRwLockWriteGuard<Import>> {
        Ok(self.get(volume)?.write_owned().await)
    }

    /// Begins one; it is kept before the answer.
    pub async fn begin(&self, volume: Uuid, record: Record) -> Result<Uuid> {
        self.keep(volume, record).await?;
        let session = Uuid::new_v4();
        let import = Import {
            record: Some(record),
            session,
        };
        lock(&self.unfinished).insert(volume, Arc::new(RwLock::new(import)));
        Ok(session)
    }

    /// Writes the record where a crash finds it whole, old or new.
    pub async fn keep(&self, volume: Uuid, record: Record) -> Result<()> {
        let path = self.path(volume);
        blocking(move || write(&path, &record)).await
    }

    /// It has ended, or its volume has gone.
    pub async fn end(&self, volume: Uuid) -> Result<()> {
        let path = self.path(volume);
        blocking(move || match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => sync_parent(&path),
        })
        .await?;
        let ended = lock(&self.unfinished).remove(&volume);
        if let Some(import) = ended
            && let Ok(mut import) = import.try_write()
        {
            import.record = None;
        }
        Ok(())
    }

    /// The content is about to change otherwise: whoever goes on begins from the start. Images always do.
    pub async fn restart(&self, volume: Uuid) -> Result<()> {
        let Ok(import) = self.get(volume) else {
            return Ok(());
        };
        let mut import = import.write().await;
        if let Some(record) = import.record.as_mut().filter(|r| !r.source.is_nil()) {
            record.done = 0;
            self.keep(volume, *record).await?;
            import.session = Uuid::new_v4();
        }
        Ok(())
    }

    fn path(&self, volume: Uuid) -> PathBuf {
        self.dir.join(format!("{volume}{SUFFIX}"))
    }
}

pub fn taken_over() -> Error {
    Error::refused("this import has ended, or something else goes on with the volume")
        .hint("`--resume` begins where it can be gone on with")
}

/// What cannot be read is an import all the same: of nothing that could be gone on with.
fn read(path: &Path) -> Result<Record> {
    let text =
        fs::read(path).map_err(|e| Error::internal(format!("import {}: {e}", path.display())))?;
    Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "an unfinished import is not understood");
        Record {
            source: Uuid::max(),
            base: None,
            done: 0,
        }
    }))
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    let mut new = path.as_os_str().to_owned();
    new.push(NEW_SUFFIX);
    let mut file = File::create(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| Error::internal(format!("the record of the import: {e}")))?;
    done.map_err(|e| match e.kind() {
        io::ErrorKind::StorageFull => Error::new(
            crate::error::ErrorKind::NoSpace,
            format!("the record of the import: {e}"),
        ),
        _ => Error::internal(format!("the record of the import: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    const RECORD: Record = Record {
        source: Uuid::from_u128(7),
        base: Some(Uuid::from_u128(6)),
        done: 1 << 30,
    };

    #[test]
    fn an_unfinished_import_is_there_after_a_restart_and_an_ended_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let imports = Imports::load(dir.path()).unwrap();
        wait(imports.begin(one, RECORD)).unwrap();
        wait(imports.begin(other, RECORD)).unwrap();
        wait(imports.end(other)).unwrap();

        let again = Imports::load(dir.path()).unwrap();
        assert!(again.is_unfinished(one) && !again.is_unfinished(other));
        assert_eq!(wait(again.held(one)).unwrap().record, Some(RECORD));
        // Nobody goes on writing without saying so.
        wait(again.writing(one, Uuid::new_v4())).unwrap_err();
        wait(again.restart(one)).unwrap();
        let again = Imports::load(dir.path()).unwrap();
        assert_eq!(wait(again.held(one)).unwrap().record.unwrap().done, 0);
        // Its volume has gone.
        again.retain(|volume| volume != one);
        assert!(!again.is_unfinished(one));
        assert!(!Imports::load(dir.path()).unwrap().is_unfinished(one));
    }

    #[test]
    fn a_record_that_is_not_understood_still_keeps_the_volume_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(1);
        let imports = Imports::load(dir.path()).unwrap();
        fs::write(imports.path(id), "{").unwrap();
        fs::write(imports.dir.join("other"), "").unwrap();
        let again = Imports::load(dir.path()).unwrap();
        assert!(again.is_unfinished(id));
    }

    #[test]
    fn only_who_came_last_writes_and_nobody_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(1);
        let imports = Imports::load(dir.path()).unwrap();
        let first = wait(imports.begin(id, RECORD)).unwrap();
        let writing = wait(imports.writing(id, first)).unwrap();
        // What is under way holds up whoever takes over.
        assert!(imports.get(id).unwrap().try_write().is_err());
        drop(writing);
        wait(imports.held(id)).unwrap().session = Uuid::from_u128(9);
        wait(imports.writing(id, first)).unwrap_err();
        wait(imports.writing(id, Uuid::from_u128(9))).unwrap();
        wait(imports.end(id)).unwrap();
        wait(imports.writing(id, Uuid::from_u128(9))).unwrap_err();
    }
}

//! Making objects durable: each file, and the directories that have new entries on the way to it.
//! A failure stays: see `durable::Failures`.

use super::WholeSync;
use super::durable::{Entries, Lost};
use super::place::Leaf;
use super::store::Core;
use crate::{Error, ErrorKind, ObjectId, Result, WriteMode};
use atoll_reactor::fs::{File, OpenOptions, sync_dir};
use atoll_reactor::spawn;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Syncs that one call has at the kernel at the same time: enough to share journal commits.
const PARALLEL: usize = 32;

/// Awaits all; the first error.
pub(super) async fn all<F>(work: impl Iterator<Item = F>) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    let mut work = work.peekable();
    let mut outcome = Ok(());
    while work.peek().is_some() {
        let batch: Vec<_> = work.by_ref().take(PARALLEL).map(spawn).collect();
        for task in batch {
            outcome = outcome.and(task.await);
        }
    }
    outcome
}

impl Core {
    pub(super) async fn sync(self: Rc<Core>, ids: Vec<ObjectId>) -> Result<()> {
        self.shared.failures.check(&ids)?;
        let leaves: BTreeSet<Leaf> = ids.iter().map(|id| Leaf::of(*id)).collect();
        let many = match self.shared.options.whole_sync {
            WholeSync::Never => false,
            WholeSync::FromDefault => ids.len() >= super::SYNCFS_FROM,
            WholeSync::From(count) => ids.len() >= count,
        };
        if many && self.shared.honours_syncfs {
            self.sync_whole(&leaves).await?;
        } else {
            self.sync_files(&ids).await?;
            self.clone().sync_directories(leaves).await?;
        }
        // A sync of the same object on another core may have failed meanwhile.
        self.shared.failures.check(&ids)
    }

    async fn sync_files(self: &Rc<Core>, ids: &[ObjectId]) -> Result<()> {
        if let [id] = ids {
            return self.clone().sync_file(*id).await;
        }
        all(ids.iter().map(|id| self.clone().sync_file(*id))).await
    }

    async fn sync_file(self: Rc<Core>, id: ObjectId) -> Result<()> {
        let open = match self.open("sync", id, WriteMode::Existing).await {
            Ok(open) => open,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        open.dirty.set(false);
        self.sync_open(id, &open.file).await
    }

    /// A failure is remembered.
    pub(super) async fn sync_open(&self, id: ObjectId, file: &File) -> Result<()> {
        let Err(error) = file.sync_data().await else {
            return Ok(());
        };
        let error = self.object_error("sync", id, error);
        self.shared.failures.add(Lost::Object(id), &error);
        Err(error)
    }

    pub(super) async fn sync_directories(self: Rc<Core>, leaves: BTreeSet<Leaf>) -> Result<()> {
        let places = &self.shared.places;
        let directories = &self.shared.directories;
        sync_entries(&directories.top, places.objects())
            .await
            .inspect_err(|error| self.shared.failures.add(Lost::Everything, error))?;
        let firsts: BTreeSet<usize> = leaves.iter().map(|leaf| leaf.first()).collect();
        for first in firsts {
            if directories.first[first].is_dirty() {
                sync_entries(&directories.first[first], &places.first(first))
                    .await
                    .inspect_err(|error| self.shared.failures.add(Lost::Everything, error))?;
            }
        }
        let dirty = leaves
            .into_iter()
            .filter(|leaf| directories.leaf(*leaf).is_dirty());
        all(dirty.map(|leaf| {
            let core = self.clone();
            async move {
                let path = core.shared.places.leaf(leaf);
                sync_entries(core.shared.directories.leaf(leaf), &path)
                    .await
                    .inspect_err(|error| core.shared.failures.add(Lost::Leaf(leaf), error))
            }
        }))
        .await
    }

    async fn sync_whole(&self, leaves: &BTreeSet<Leaf>) -> Result<()> {
        let directories = &self.shared.directories;
        let firsts: BTreeSet<usize> = leaves.iter().map(|leaf| leaf.first()).collect();
        let entries: Vec<&Entries> = std::iter::once(&directories.top)
            .chain(firsts.iter().map(|first| &directories.first[*first]))
            .chain(leaves.iter().map(|leaf| directories.leaf(*leaf)))
            .collect();
        self.sync_filesystem(&entries).await
    }

    /// `syncfs`, which covers every object and the entries of these directories.
    pub(super) async fn sync_filesystem(&self, entries: &[&Entries]) -> Result<()> {
        let covered: Vec<_> = entries.iter().map(|entries| entries.cover()).collect();
        if let Err(error) = self.objects.sync_filesystem().await {
            let path = self.shared.places.objects().display();
            let error = Error::from_io(format!("syncing the file system of {path}"), error);
            self.shared.failures.add(Lost::Everything, &error);
            return Err(error);
        }
        for (entries, covered) in entries.iter().zip(&covered) {
            entries.covered(covered);
        }
        Ok(())
    }
}

async fn sync_entries(entries: &Entries, path: &Path) -> Result<()> {
    if !entries.is_dirty() {
        return Ok(());
    }
    let covered = entries.cover();
    match sync_dir(path).await {
        Ok(()) => entries.covered(&covered),
        // Its creation was begun and failed: there is nothing in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let context = format!("syncing directory {}", path.display());
            return Err(Error::from_io(context, error));
        }
    }
    Ok(())
}

/// The directory of the objects, kept open for `syncfs`: errors are counted from its opening on.
/// Not the pool's own, which may be on another file system.
pub(super) async fn open_objects(path: &Path) -> Result<File> {
    let options = OpenOptions {
        directory: true,
        ..OpenOptions::read_only()
    };
    File::open(path, options)
        .await
        .map_err(|error| Error::from_io(format!("opening {}", path.display()), error))
}

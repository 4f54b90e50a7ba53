//! Making the whole pool durable, with what an earlier daemon wrote: by one `syncfs` where that can
//! be believed, else by every file and directory. Once per start; not on the path of a flush.

use super::WholeSync;
use super::list::{directories, entries};
use super::place::Leaf;
use super::store::Core;
use super::sync::all;
use crate::{ObjectId, Result};
use atoll_reactor::fs::{File, OpenOptions};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

/// Objects that are named in memory before they are synced; a pool may have millions.
const BATCH: usize = 4096;

impl Core {
    pub(super) async fn sync_all(self: Rc<Core>) -> Result<()> {
        let by_syncfs =
            self.shared.honours_syncfs && self.shared.options.whole_sync != WholeSync::Never;
        let pool = self.shared.places.root().display();
        if by_syncfs {
            let entries: Vec<_> = self.shared.directories.all().collect();
            self.sync_filesystem(&entries).await?;
            tracing::info!(%pool, "the pool's file system is synced");
        } else {
            tracing::info!(%pool, "syncing every file of the pool");
            let (objects, directories) = self.sync_each().await?;
            tracing::info!(%pool, objects, directories, "every file of the pool is synced");
        }
        self.shared.failures.check_all()
    }

    /// Syncs file by file; how many objects and directories of objects there were.
    async fn sync_each(self: &Rc<Core>) -> Result<(u64, usize)> {
        let places = &self.shared.places;
        let (mut leaves, mut pending, mut objects) = (BTreeSet::new(), Vec::new(), 0);
        for first in directories(places.objects()).await? {
            for second in directories(&places.first(usize::from(first))).await? {
                let leaf = Leaf::at(first, second);
                leaves.insert(leaf);
                let found = entries(&places.leaf(leaf)).await?;
                let ids = found.iter().filter(|entry| !entry.is_dir);
                pending.extend(ids.filter_map(|entry| places.parse(leaf, &entry.name)));
                if pending.len() >= BATCH {
                    objects += self.sync_found(&mut pending).await?;
                }
            }
        }
        objects += self.sync_found(&mut pending).await?;
        let count = leaves.len();
        self.clone().sync_directories(leaves).await?;
        Ok((objects, count))
    }

    async fn sync_found(self: &Rc<Core>, pending: &mut Vec<ObjectId>) -> Result<u64> {
        let count = pending.len() as u64;
        all(pending.drain(..).map(|id| self.clone().sync_stored(id))).await?;
        Ok(count)
    }

    /// Whatever its length: one of a wrong length is for whoever reads it to complain about. Past
    /// the open files that are kept, which are for objects in use.
    async fn sync_stored(self: Rc<Core>, id: ObjectId) -> Result<()> {
        let path = self.shared.places.object(id);
        match File::open(&path, OpenOptions::read_write()).await {
            Ok(file) => self.sync_open(id, &file).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.object_error("sync", id, error)),
        }
    }
}

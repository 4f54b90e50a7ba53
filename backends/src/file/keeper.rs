//! The one task that holds a file pool's lock and writes its generation mark. It ends, and frees
//! the lock, when nobody can ask it any more.

use super::format::encode_mark;
use super::place::{MARK, MARK_TEMP};
use crate::{Error, Generation, PoolId, Result};
use atoll_reactor::fs::{File, OpenOptions, rename, sync_dir};
use atoll_reactor::{SharedBuf, mailbox, oneshot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reservations that wait; they are one per chunk of generations.
pub(crate) const KEEPER_QUEUE: usize = 64;

/// Raise the mark to at least this.
pub(crate) struct Request {
    pub(crate) below: Generation,
    pub(crate) answer: oneshot::Sender<Result<()>>,
}

pub(crate) struct Keeper {
    pub(crate) root: PathBuf,
    pub(crate) pool: PoolId,
    /// What is durable.
    pub(crate) mark: Arc<AtomicU64>,
    pub(crate) lock: File,
}

impl Keeper {
    pub(crate) async fn run(self, mut requests: mailbox::Receiver<Request>) {
        let mut broken: Option<Error> = None;
        while let Some(request) = requests.recv().await {
            let done = match &broken {
                Some(error) => Err(error.duplicate()),
                None => self.raise(request.below).await,
            };
            if let (Err(error), None) = (&done, &broken) {
                // Whether the new mark is on the disk is not known: a retry that succeeds proves
                // nothing, the next opening reads what is there.
                broken = Some(Error::new(
                    error.kind(),
                    format!("the pool's mark could not be written: {error}"),
                ));
            }
            // Whoever gave up learns it from the mark.
            let _ = request.answer.send(done);
        }
        drop(self.lock);
    }

    async fn raise(&self, below: Generation) -> Result<()> {
        if below.get() <= self.mark.load(Ordering::Acquire) {
            return Ok(());
        }
        replace(&self.root, MARK, MARK_TEMP, encode_mark(self.pool, below)).await?;
        self.mark.fetch_max(below.get(), Ordering::AcqRel);
        Ok(())
    }
}

/// Replaces a file as a whole, durably: after a crash it is the old one or the new one.
pub(crate) async fn replace(root: &Path, name: &str, temp: &str, bytes: Vec<u8>) -> Result<()> {
    let (path, temp) = (root.join(name), root.join(temp));
    let written = async {
        let options = OpenOptions {
            create: true,
            truncate: true,
            ..OpenOptions::read_write()
        };
        let file = File::open(&temp, options).await?;
        file.write_all_at(SharedBuf::copy_of(&bytes), 0).await?;
        file.sync_all().await?;
        drop(file);
        rename(&temp, &path).await?;
        sync_dir(root).await
    };
    written
        .await
        .map_err(|error| Error::from_io(format!("writing {}", path.display()), error))
}

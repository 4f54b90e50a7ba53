//! The metadata store as the mapper sees it: ordered keys, atomic batches, snapshots. `rocks` is
//! the one of production, `sim` the one of tests. What rows mean is `format`'s business.

mod batch;
#[cfg(test)]
mod contract;
pub mod rocks;
pub mod sim;

pub use batch::{Batch, Op};
pub use rocks::{OpenMode, RocksMeta, RocksOptions};
pub use sim::SimMeta;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{KeyRange, Row, open_row};
use atoll_reactor::LocalFuture;
use std::sync::Arc;

/// A key and its sealed value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Reads one state of the store: the newest for a store itself, a fixed one for a snapshot.
/// Values are sealed; see [`crate::format::unseal`].
pub trait MetaReader {
    /// The sealed value under this key.
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>>;

    /// At most `limit` pairs, ascending, with `from` <= key < `to`. Fewer than `limit` means that
    /// there are no more.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize)
    -> LocalFuture<'static, Result<Vec<Pair>>>;
}

/// Whether a commit waits until it survives power loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// Answered when this batch, and every one before it, is durable.
    Synced,
    /// Answered when it can be read; the next synced commit makes it durable.
    Unsynced,
}

/// How a store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetaStatus {
    /// Bytes that the store occupies.
    pub bytes_used: u64,
    /// Bytes that are free on its file system; `None` if it has none.
    pub bytes_free: Option<u64>,
    /// Growing commits are refused with `NoSpace`; those that free are not.
    pub full: bool,
    /// A failure made the store unusable: every commit fails until it is opened again.
    pub failed: bool,
}

/// The store. All calls may be made on any core; their futures are awaited on that core.
///
/// **Order.** Batches take effect in the order of the calls of [`MetaStore::commit`], as far as one
/// call happened before the other, whether their futures are polled or dropped: a batch is never
/// durable, and never seen by a reader, without all those before it that were not refused.
pub trait MetaStore: MetaReader + Send + Sync {
    /// Applies the batch wholly or not at all. Once it is answered every read sees it.
    ///
    /// `NoSpace`: refused, the store goes on; a batch that [frees](Batch::frees) still passes.
    /// `Faulted`: an earlier failure, or this one, left it open what is durable: the batch
    /// may or may not be there after the store was opened again, and every later commit fails.
    fn commit(&self, batch: Batch, durability: Durability) -> LocalFuture<'static, Result<()>>;

    /// The state of now, for as long as it is held.
    fn snapshot(&self) -> LocalFuture<'static, Result<Arc<dyn MetaReader + Send + Sync>>>;

    /// Makes every commit durable and ends the store; later calls fail with `Closed`.
    fn close(&self) -> LocalFuture<'static, Result<()>>;

    fn status(&self) -> LocalFuture<'static, Result<MetaStatus>>;
}

/// The row under this key; `Corrupt`, naming it, if it cannot be read.
pub async fn get_row<R: Row>(reader: &dyn MetaReader, key: &[u8]) -> Result<Option<R>> {
    match reader.get(key).await? {
        Some(value) => open_row(key, &value).map(Some),
        None => Ok(None),
    }
}

/// The row under this key; `Corrupt` if there is none either.
pub async fn require_row<R: Row>(reader: &dyn MetaReader, key: &[u8]) -> Result<R> {
    get_row(reader, key).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "metadata row {} is missing",
                crate::format::key::describe(key)
            ),
        )
    })
}

/// Goes through a range part by part.
#[derive(Clone, Debug)]
pub struct Cursor {
    rest: Option<KeyRange>,
}

impl Cursor {
    pub fn new(range: KeyRange) -> Cursor {
        Cursor { rest: Some(range) }
    }

    /// The next pairs, at most `limit` (at least 1); none when the range has ended.
    pub async fn next(&mut self, reader: &dyn MetaReader, limit: usize) -> Result<Vec<Pair>> {
        let Some(range) = self.rest.take() else {
            return Ok(Vec::new());
        };
        let limit = limit.max(1);
        let pairs = reader.scan(&range.from, &range.to, limit).await;
        match &pairs {
            Ok(found) if found.len() < limit => {}
            Ok(found) => self.rest = found.last().map(|(key, _)| range.after(key)),
            Err(_) => self.rest = Some(range),
        }
        pairs
    }
}

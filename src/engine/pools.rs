//! Opens the stores of pools by their rows in the catalogue. The row's options are ours: JSON with
//! what the kind needs. How objects are kept is the backends' business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atoll_backends::file::{FileOptions, FilePool};
use atoll_backends::{MemoryOptions, MemoryPool, NullOptions, NullPool, Pool};
use atoll_mapper::format::{PoolKind, PoolRow};
use atoll_mapper::{Error, ErrorKind, PoolFactory};
use atoll_reactor::LocalFuture;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, UnixSeconds};

/// Most that a memory pool holds: it lives in the daemon's memory, next to everything else.
pub const MEMORY_POOL_CAPACITY: ByteSize = ByteSize::mib(1 << 10);

/// What a pool's row says besides the columns that all have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolOptions {
    /// Directory of a file pool. A relative one is meant from the data directory, so that both can
    /// be moved together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes that a memory pool holds at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ByteSize>,
    pub created: UnixSeconds,
}

impl PoolOptions {
    pub fn of(row: &PoolRow) -> Result<Self, Error> {
        serde_json::from_str(&row.options).map_err(|why| {
            Error::with_source(ErrorKind::Corrupt, "its options in the catalogue", why)
        })
    }

    pub fn to_text(&self) -> crate::error::Result<String> {
        serde_json::to_string(self)
            .map_err(|why| crate::error::Error::internal(format!("options of a pool: {why}")))
    }

    /// The directory of a file pool.
    pub fn directory(&self, data: &Path) -> Result<PathBuf, Error> {
        match &self.path {
            Some(path) => Ok(data.join(path)),
            None => Err(Error::new(
                ErrorKind::Corrupt,
                "its options in the catalogue name no directory",
            )),
        }
    }
}

/// The factory of this daemon.
pub struct Factory {
    /// The data directory, absolute.
    pub data: PathBuf,
}

impl PoolFactory for Factory {
    fn open(&self, row: &PoolRow, unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>, Error>> {
        let row = row.clone();
        LocalFuture::new(async move {
            let options = PoolOptions::of(&row)?;
            match row.kind {
                PoolKind::File => {
                    let directory = options.directory(&self.data)?;
                    let pool = open_directory(&directory, &row, unused).await?;
                    Ok(Arc::new(pool) as Arc<dyn Pool>)
                }
                PoolKind::Memory => Ok(Arc::new(MemoryPool::new(MemoryOptions {
                    object_size: row.object_size,
                    capacity: options.capacity.unwrap_or(MEMORY_POOL_CAPACITY).get(),
                    ..MemoryOptions::default()
                })) as _),
                PoolKind::Null => Ok(Arc::new(NullPool::new(NullOptions {
                    object_size: row.object_size,
                    ..NullOptions::default()
                })) as _),
                other => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("this version of Atoll does not open pools of the kind {other:?}"),
                )),
            }
        })
    }
}

/// Opens the directory of a file pool. Only one that was never used may be made: an empty place
/// where a pool should be is a file system that is not mounted.
pub async fn open_directory(
    directory: &Path,
    row: &PoolRow,
    unused: bool,
) -> Result<FilePool, Error> {
    let options = FileOptions::default();
    let opened = if unused {
        FilePool::create(directory, row.id, row.object_size, options).await
    } else {
        FilePool::open(directory, row.id, row.object_size, options).await
    };
    opened.map_err(|error| {
        let kind = Error::from(error.duplicate()).kind();
        Error::new(kind, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_directories_are_meant_from_the_data_directory() {
        let options = |path: &str| PoolOptions {
            path: Some(path.to_owned()),
            capacity: None,
            created: UnixSeconds(1),
        };
        let data = Path::new("/data");
        assert_eq!(
            options("pool").directory(data).unwrap(),
            Path::new("/data/pool")
        );
        assert_eq!(
            options("/mnt/a").directory(data).unwrap(),
            Path::new("/mnt/a")
        );
    }

    #[test]
    fn options_read_back_as_they_were_written() {
        let options = PoolOptions {
            path: None,
            capacity: Some(MEMORY_POOL_CAPACITY),
            created: UnixSeconds(7),
        };
        let text = options.to_text().unwrap();
        assert_eq!(text, r#"{"capacity":1073741824,"created":7}"#);
        assert_eq!(serde_json::from_str::<PoolOptions>(&text).unwrap(), options);
    }
}

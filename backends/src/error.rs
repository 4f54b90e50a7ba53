//! The one error type of object stores: a kind that callers match, and the context that people read.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What callers decide by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// No room in the pool; reads and deletes go on.
    NoSpace,
    /// Not answered in time. A write may still be applied later.
    Timeout,
    /// The store cannot be reached now; a later attempt may succeed.
    Offline,
    /// What is stored is not what was written.
    Corrupt,
    /// Somebody else owns the pool, or took it over.
    NotOwner,
    /// The pool or object cannot be written.
    ReadOnly,
    /// The request breaks the store's rules: a defect of the caller, or a wrong configuration.
    Invalid,
    /// The device or its file system reported an I/O error.
    Io,
}

/// A failed operation of an object store.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<std::io::Error>,
}

impl Error {
    /// `context` names the thing: the operation, object or path, and what to do about it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// From a failed system call; its number chooses the kind.
    pub fn from_io(context: impl Into<String>, source: std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::TimedOut => ErrorKind::Timeout,
            Io::ReadOnlyFilesystem | Io::PermissionDenied => ErrorKind::ReadOnly,
            Io::InvalidInput => ErrorKind::Invalid,
            Io::NotConnected | Io::HostUnreachable | Io::StaleNetworkFileHandle => {
                ErrorKind::Offline
            }
            _ => ErrorKind::Io,
        };
        Error {
            kind,
            context: context.into(),
            source: Some(source),
        }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same failure for another waiter: kind and text, the source as text.
    pub fn duplicate(&self) -> Error {
        Error::new(self.kind, self.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s as _)
    }
}

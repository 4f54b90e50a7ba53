//! The one error type of the mapper: a kind that callers match, and the context that people read.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What callers decide by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was named does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Something else still needs it: an export, a child, an open handle.
    InUse,
    /// The request is wrong in itself.
    Invalid,
    /// No room: in the pool, or on the metadata store's file system.
    NoSpace,
    /// It cannot be written.
    ReadOnly,
    /// Beyond the end of the resource.
    OutOfRange,
    /// Not answered in time. A write may still be applied later.
    Timeout,
    /// The store cannot be reached now; a later attempt may succeed.
    Offline,
    /// A device or its file system reported an I/O error.
    Io,
    /// What is stored is not what was written, or breaks the format's rules.
    Corrupt,
    /// An earlier failure made the volume or the store unusable until it is checked.
    Faulted,
    /// Another operation is under way; try again.
    Busy,
    /// Who asked for it does not want it any more ([`crate::Cancel`]). What had begun at the store is done.
    Cancelled,
    /// It was closed.
    Closed,
    /// Somebody else owns it.
    NotOwner,
    /// This pool, store or version cannot do it.
    Unsupported,
}

/// A failed operation of the mapper.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// `context` names the thing: what was being done to what, and what to do about it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// With the failure that caused it, whose text is shown after the context.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            kind,
            context: context.into(),
            source: Some(source.into()),
        }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same failure for another waiter: kind and text, the source as text.
    pub fn duplicate(&self) -> Error {
        Error::new(self.kind, self.to_string())
    }

    /// The same failure, said to have happened while doing `what`.
    pub fn during(self, what: impl fmt::Display) -> Error {
        Error {
            kind: self.kind,
            context: format!("{what}: {}", self.context),
            source: self.source,
        }
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
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<atoll_backends::Error> for Error {
    fn from(error: atoll_backends::Error) -> Error {
        use atoll_backends::ErrorKind as Store;
        let kind = match error.kind() {
            Store::NotFound => ErrorKind::NotFound,
            Store::NoSpace => ErrorKind::NoSpace,
            Store::Timeout => ErrorKind::Timeout,
            Store::Offline => ErrorKind::Offline,
            Store::Corrupt => ErrorKind::Corrupt,
            Store::NotOwner => ErrorKind::NotOwner,
            Store::ReadOnly => ErrorKind::ReadOnly,
            Store::Invalid => ErrorKind::Invalid,
            // Kinds that a store may learn later are failures of the device to us.
            _ => ErrorKind::Io,
        };
        Error::with_source(kind, "object store", error)
    }
}

impl From<crate::format::FormatError> for Error {
    /// Callers that know the row say which with [`Error::during`].
    fn from(error: crate::format::FormatError) -> Error {
        Error::with_source(ErrorKind::Corrupt, "metadata row", error)
    }
}

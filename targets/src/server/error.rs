//! The one error type of the servers' control side: a kind that callers match, and the context that people read.
//! What initiators are told of failures is `volume`'s and the cores' business.

use std::fmt;

/// The outcome of a control call.
pub type Result<T> = std::result::Result<T, Error>;

/// What callers decide by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No target of that name is served.
    NotFound,
    /// A target of that name is served already.
    AlreadyExists,
    /// The request is wrong in itself: a name, a size or a limit out of its range.
    Invalid,
    /// A target of that name is just being removed, or a core takes no more work: try again.
    Busy,
    /// The address cannot be listened on.
    Io,
    /// The server or the reactor has stopped.
    Closed,
}

/// A failed control call.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    pub(super) fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            source: Some(source.into()),
            ..Error::new(kind, context)
        }
    }

    /// What callers decide by.
    pub fn kind(&self) -> ErrorKind {
        self.kind
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

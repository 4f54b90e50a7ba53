//! The one error type of this package: a kind that callers match, what happened and, where
//! there is one, the way out. HTTP statuses and exit codes are derived from the kind here and
//! nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is; stable, for programs to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// What the request names does not exist.
    NotFound,
    /// The name is taken, by something that differs from what was asked for.
    AlreadyExists,
    /// It is used by something else: an export, a session, another daemon.
    InUse,
    /// The request itself is wrong: it cannot succeed whatever the state of the daemon.
    Invalid,
    /// The request is well-formed, and a rule or a limit of the daemon forbids it.
    Refused,
    /// No space left in the pool or on the metadata device.
    NoSpace,
    /// The daemon does not run, is starting or stopping, or a deadline has passed.
    Unavailable,
    /// A fault of the daemon or of what lies below it.
    Internal,
}

impl ErrorKind {
    #[cfg(test)]
    pub const ALL: [Self; 8] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::InUse,
        Self::Invalid,
        Self::Refused,
        Self::NoSpace,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Status of the HTTP response that carries the error.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Refused => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::InUse => 409,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::NoSpace => 507,
        }
    }

    /// Exit code of a command that ends with the error; [`EXIT_CODES`] tells users.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::AlreadyExists | Self::InUse | Self::Refused => 4,
            Self::Unavailable => 5,
            Self::NoSpace => 6,
        }
    }
}

/// The exit codes as the help text shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done (also when there was nothing left to do)
  1  failed: an internal error; of `fsck`: errors were found
  2  usage: a wrong option, name, size or configuration
  3  not found
  4  conflict: exists already, in use, or refused by a rule
  5  unavailable: no daemon listens, or it did not answer in time
  6  no space
  7  `fsck` could not look at everything";

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Error {
    pub kind: ErrorKind,
    /// What is wrong, naming the thing concerned; one line, no final full stop.
    pub message: String,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub fn in_use(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InUse, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what was being done: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_error_status_and_a_documented_exit_code() {
        for kind in ErrorKind::ALL {
            assert!((400..600).contains(&kind.http_status()), "{kind:?}");
            assert!(
                EXIT_CODES.contains(&format!("\n  {}  ", kind.exit_code())),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn the_json_form_is_kind_message_and_an_optional_hint() {
        let error = Error::not_found("no volume \"a\"");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"kind":"not_found","message":"no volume \"a\""}"#
        );
        let error = error.hint("list them").context("deleting");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"kind":"not_found","message":"deleting: no volume \"a\"","hint":"list them"}"#
        );
    }
}

//! The verbs that move content between resources and files: `diff`, `export-file`, `import-file`.
//! The bytes of the formats are in `crate::transfer`.

pub mod args;
mod cleanup;
mod detect;
mod diff;
mod export;
mod export_copy;
mod export_target;
mod import;
mod import_target;
mod pages;
mod qemu;
#[cfg(test)]
mod tests;

pub use diff::diff;
pub use export::export_file;
pub use import::import_file;

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// The file's name that stands for stdin or stdout.
fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What went wrong with a file, as the admin is told.
fn file_error(file: &Path, error: &io::Error) -> Error {
    let text = format!("{}: {error}", file.display());
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(text),
        io::ErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists, text),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::new(ErrorKind::NoSpace, text)
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => Error::refused(text),
        _ => Error::internal(text),
    }
}

//! What exports to files are made of, as bytes: the stream of a resource's content and the list of
//! changes, both drawn in `FORMAT.md`. Pure: no files, no sockets; who moves the bytes is in `cli`.

pub mod changes;
pub mod decode;
pub mod encode;
pub mod format;
pub mod zeros;

#[cfg(test)]
mod tests;

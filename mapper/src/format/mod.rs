//! The metadata format, byte by byte as `FORMAT.md` draws it: keys, sealed values, rows, pages and
//! merging. Pure: no store, no I/O, no state.

pub mod bitmap;
mod codec;
pub mod entry;
pub mod key;
pub mod merge;
pub mod page;
pub mod rows;
mod seal;
#[cfg(test)]
pub(crate) mod tests;

pub use bitmap::Bitmap;
pub use codec::FormatError;
pub use entry::{Entry, EntryKind};
pub use key::{CounterKind, Key, KeyRange, ParsedKey, Protocol, Table};
pub use merge::merge;
pub use page::{
    Slots, decode_delta, decode_page, decode_whole, encode_delta, encode_whole, uniform,
};
pub use rows::{
    Below, ChildRow, ContentHash, ContentRow, CountRow, CounterRow, DeadRow, ExportRow,
    LogicalBlock, MarkRow, NameRow, NodeRow, NodeState, ObjectRow, PartialRow, PoolKind, PoolRow,
    ResourceKind, ResourceRow, Row, RunState, Superblock,
};
pub use seal::{open_row, seal, unseal};

/// Of the store as a whole; a daemon refuses a newer one.
pub const FORMAT_VERSION: u32 = 1;

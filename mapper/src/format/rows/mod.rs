//! The rows of all tables but pages: one type each, with its body's bytes.

mod catalogue;
mod maps;

pub use catalogue::{
    CounterRow, ExportRow, LogicalBlock, MarkRow, NameRow, PoolKind, PoolRow, ResourceKind,
    ResourceRow, RunState, Superblock,
};
pub use maps::{
    Below, ChildRow, ContentHash, ContentRow, CountRow, DeadRow, NodeRow, NodeState, ObjectRow,
    PartialRow,
};

use super::codec::{FormatError, Reader, Result, Writer};

/// A row's body.
pub trait Row: Sized {
    fn encode(&self) -> Vec<u8>;

    /// Refuses what [`Row::encode`] does not make.
    fn decode(body: &[u8]) -> Result<Self>;
}

/// Decodes a body to its last byte.
fn whole<'a, T>(body: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Result<T>) -> Result<T> {
    let mut reader = Reader::new(body);
    let row = read(&mut reader)?;
    reader.end()?;
    Ok(row)
}

fn body(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.into_bytes()
}

/// A byte of which only these bits may be set.
fn flags(reader: &mut Reader<'_>, known: u8) -> Result<u8> {
    match reader.u8()? {
        flags if flags & !known == 0 => Ok(flags),
        _ => Err(FormatError::new("a reserved flag is set")),
    }
}

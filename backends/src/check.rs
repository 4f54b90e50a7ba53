//! The rules of the face that every store checks in the same way: ranges and lengths.

use crate::{BLOCK_SIZE, BlockRange, Error, ErrorKind, ObjectId, ObjectSize, Result};

/// The range is not empty and inside of the object.
pub(crate) fn range(op: &str, id: ObjectId, size: ObjectSize, range: BlockRange) -> Result<()> {
    let inside = range
        .first
        .checked_add(range.count)
        .is_some_and(|end| end <= size.blocks());
    if range.count > 0 && inside {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "{op} of object {id}: {} blocks from block {} are not a range of its {}",
            range.count,
            range.first,
            size.blocks()
        ),
    ))
}

/// The blocks that a write of `len` bytes from block `first` covers.
pub(crate) fn written(
    op: &str,
    id: ObjectId,
    size: ObjectSize,
    first: u32,
    len: usize,
) -> Result<BlockRange> {
    let whole = len.is_multiple_of(BLOCK_SIZE as usize);
    let count = u32::try_from(len / BLOCK_SIZE as usize).ok();
    let (true, Some(count)) = (whole, count) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{op} of object {id}: {len} bytes are not whole blocks of {BLOCK_SIZE}"),
        ));
    };
    let blocks = BlockRange::new(first, count);
    range(op, id, size, blocks)?;
    Ok(blocks)
}

/// The error for an object that is not there.
pub(crate) fn missing(op: &str, id: ObjectId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("{op}: there is no object {id}"),
    )
}

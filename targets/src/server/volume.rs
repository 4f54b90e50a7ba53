//! What a SCSI command asks of the volume, run on the mapper: large commands in parts, and the one place where the
//! mapper's errors become the SCSI core's. It knows neither tasks nor connections.

use super::compare::{first_difference, pattern_difference};
use super::limits::{UNMAP_RANGES, VOLUME_CHUNK_BYTES, VOLUME_CHUNKS};
use super::wait::bounded;
use crate::scsi::{ByteCount, ByteRange, Extent, Fill, LbaStatus, LogRoom, Response, VolumeError};
use atoll_mapper::{Cancel, ErrorKind, Segments, VolumeHandle};
use atoll_reactor::{Buf, LocalFuture, SharedBuf};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;

/// An operation with its data.
pub(super) enum Work {
    Read {
        range: ByteRange,
        fua: bool,
    },
    /// Data of the initiator, and what becomes of it.
    Data {
        payload: Payload,
        sink: Sink,
    },
    Verify {
        range: ByteRange,
        pattern: Option<Box<[u8]>>,
    },
    Flush,
    Unmap(Vec<ByteRange>),
    Fill {
        range: ByteRange,
        fill: Fill,
    },
    LbaStatus(LbaStatus),
    LogRoom(LogRoom),
}

/// What becomes of gathered data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sink {
    Write { fua: bool },
    WriteAndVerify { compare: bool },
    Compare,
    CompareAndWrite { fua: bool },
    OrWrite { fua: bool },
}

/// What an operation came to.
pub(super) enum Output {
    /// Data that was read; empty for what reads none.
    Data(Segments),
    /// A response that the SCSI core made of it.
    Response(Response),
}

/// Whether a failure is one of reading or of writing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// The data of a write in parts, each of them written by one call: none crosses a multiple of
/// [`VOLUME_CHUNK_BYTES`] of the volume, so that the inner ones are aligned.
pub(super) struct Payload {
    start: u64,
    /// Nearly always one.
    parts: SmallVec<[Buf; 1]>,
}

/// The parts of a range, as positions in the volume.
fn chunks(range: ByteRange) -> impl Iterator<Item = Range<u64>> {
    let end = range.start.0 + range.length.0;
    let mut next = range.start.0;
    std::iter::from_fn(move || {
        if next == end {
            return None;
        }
        let start = next;
        next = (start / VOLUME_CHUNK_BYTES + 1)
            .saturating_mul(VOLUME_CHUNK_BYTES)
            .min(end);
        Some(start..next)
    })
}

fn length_of(part: &Range<u64>) -> usize {
    usize::try_from(part.end - part.start).unwrap_or(usize::MAX)
}

impl Payload {
    /// Room for the data of a write to `range`.
    pub(super) fn new(range: ByteRange) -> Payload {
        Payload {
            start: range.start.0,
            parts: chunks(range)
                .map(|part| Buf::alloc(length_of(&part)))
                .collect(),
        }
    }

    /// Room for what COMPARE AND WRITE takes: what is compared, and what is written, each in one part.
    pub(super) fn twice(range: ByteRange) -> Payload {
        let whole = || Buf::alloc(usize::try_from(range.length.0).unwrap_or(usize::MAX));
        Payload {
            start: range.start.0,
            parts: smallvec![whole(), whole()],
        }
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// The parts with their positions in the volume.
    fn freeze(self) -> Parts {
        let mut at = self.start;
        let parts = self.parts.into_iter().map(|part| {
            let start = at;
            at += part.len() as u64;
            (start, part.freeze())
        });
        parts.collect()
    }

    /// Puts bytes to their place; what lies beyond the end is left out.
    pub(super) fn put(&mut self, offset: usize, mut bytes: &[u8]) {
        let mut skip = offset;
        for part in &mut self.parts {
            if bytes.is_empty() {
                return;
            }
            if skip >= part.len() {
                skip -= part.len();
                continue;
            }
            let room = &mut part[skip..];
            let taken = bytes.len().min(room.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            skip = 0;
        }
    }
}

/// Data with its positions in the volume, nearly always in one part.
type Parts = SmallVec<[(u64, SharedBuf); 1]>;

/// Runs an operation to its end, or until it is cancelled: then what has begun at the store ends there, and nothing else
/// begins.
pub(super) async fn run(
    volume: &VolumeHandle,
    cancel: Cancel,
    work: Work,
) -> Result<Output, VolumeError> {
    let volume = &volume.with_cancel(cancel);
    let done = match work {
        Work::Read { range, fua } => return read(volume, range, fua).await.map(Output::Data),
        Work::Data { payload, sink } => take(volume, payload, sink).await,
        Work::Verify { range, pattern } => verify(volume, range, pattern).await,
        Work::Flush => flush(volume).await,
        Work::Unmap(ranges) => unmap(volume, ranges).await,
        Work::Fill { range, fill } => same(volume, range, fill).await,
        Work::LbaStatus(request) => {
            return lba_status(volume, request).await.map(Output::Response);
        }
        Work::LogRoom(request) => return log_room(volume, request).await.map(Output::Response),
    };
    done.map(|()| Output::Data(Segments::new()))
}

async fn take(volume: &VolumeHandle, payload: Payload, sink: Sink) -> Result<(), VolumeError> {
    let failed = |error| failure(&error, Direction::Write);
    let start = payload.start;
    let parts = payload.freeze();
    match sink {
        Sink::Write { fua } => write(volume, parts, fua).await,
        Sink::WriteAndVerify { compare } => {
            write(volume, parts.clone(), true).await?;
            read_back(volume, parts, compare).await
        }
        Sink::Compare => {
            flush(volume).await?;
            read_back(volume, parts, true).await
        }
        Sink::CompareAndWrite { fua } => {
            let mut halves = parts.into_iter().map(|(_, data)| data);
            let (Some(compare), Some(data)) = (halves.next(), halves.next()) else {
                return Ok(());
            };
            let done = volume.compare_and_write(start, compare, data, fua).await;
            miscompare(done.map_err(failed)?)
        }
        Sink::OrWrite { fua } => {
            let data = parts.into_iter().map(|(_, data)| data).collect();
            volume.or_write(start, data, fua).await.map_err(failed)
        }
    }
}

fn miscompare(difference: Option<u64>) -> Result<(), VolumeError> {
    difference.map_or(Ok(()), |offset| Err(VolumeError::Miscompare(offset)))
}

/// Reads what lies where the parts belong, and compares where that is asked for.
async fn read_back(volume: &VolumeHandle, parts: Parts, compare: bool) -> Result<(), VolumeError> {
    let start = parts.first().map_or(0, |(at, _)| *at);
    let looks = parts.into_iter().map(|(at, data)| {
        LocalFuture::new(async move {
            let stored = volume.read(at, data.len() as u64).await?;
            let difference = compare.then(|| first_difference(&stored, &data)).flatten();
            Ok(difference.map(|inside| at - start + inside))
        })
    });
    let looks = bounded(VOLUME_CHUNKS, looks).await;
    let differences = looks.map_err(|error| failure(&error, Direction::Read))?;
    miscompare(differences.into_iter().flatten().next())
}

/// Reads a range from stable storage, and compares each of its blocks with the pattern.
async fn verify(
    volume: &VolumeHandle,
    range: ByteRange,
    pattern: Option<Box<[u8]>>,
) -> Result<(), VolumeError> {
    flush(volume).await?;
    let pattern = pattern.as_deref();
    let looks = chunks(range).map(|part| {
        LocalFuture::new(async move {
            let stored = volume.read(part.start, part.end - part.start).await?;
            Ok(pattern.and_then(|pattern| pattern_difference(&stored, pattern)))
        })
    });
    let looks = bounded(VOLUME_CHUNKS, looks).await;
    let differences = looks.map_err(|error| failure(&error, Direction::Read))?;
    miscompare(differences.into_iter().flatten().next())
}

async fn lba_status(volume: &VolumeHandle, request: LbaStatus) -> Result<Response, VolumeError> {
    let status = volume.map_status(request.range.start.0, request.most());
    let extents = status.await.map_err(|e| failure(&e, Direction::Read))?;
    let extents = extents.iter().map(|extent| Extent {
        length: ByteCount(extent.len),
        mapped: extent.mapped,
    });
    Ok(request.answer(extents))
}

async fn log_room(volume: &VolumeHandle, request: LogRoom) -> Result<Response, VolumeError> {
    let room = volume.pool_capacity().await;
    let room = room.map_err(|error| failure(&error, Direction::Read))?;
    Ok(request.answer(ByteCount(room.total), ByteCount(room.available)))
}

/// With `fua` what is read is on stable storage (SBC-3 4.10): what was written before is flushed first.
async fn read(volume: &VolumeHandle, range: ByteRange, fua: bool) -> Result<Segments, VolumeError> {
    if fua {
        flush(volume).await?;
    }
    let failed = |error| failure(&error, Direction::Read);
    if range.length.0 <= VOLUME_CHUNK_BYTES {
        let data = volume.read(range.start.0, range.length.0).await;
        return data.map_err(failed);
    }
    let parts = chunks(range).map(|part| {
        LocalFuture::new(async move { volume.read(part.start, part.end - part.start).await })
    });
    let parts = bounded(VOLUME_CHUNKS, parts).await.map_err(failed)?;
    Ok(parts.into_iter().flatten().collect())
}

/// Several parts are made durable together, after all are written.
async fn write(volume: &VolumeHandle, parts: Parts, fua: bool) -> Result<(), VolumeError> {
    let failed = |error| failure(&error, Direction::Write);
    let single = parts.len() == 1;
    let mut parts = parts.into_iter();
    if single && let Some((start, data)) = parts.next() {
        return volume.write(start, data, fua).await.map_err(failed);
    }
    let writes = parts.map(|(start, data)| {
        LocalFuture::new(async move { volume.write(start, data, false).await })
    });
    bounded(VOLUME_CHUNKS, writes).await.map_err(failed)?;
    if fua {
        flush(volume).await?;
    }
    Ok(())
}

async fn flush(volume: &VolumeHandle) -> Result<(), VolumeError> {
    let done = volume.flush().await;
    done.map_err(|error| failure(&error, Direction::Write))
}

async fn unmap(volume: &VolumeHandle, ranges: Vec<ByteRange>) -> Result<(), VolumeError> {
    let ranges = ranges.into_iter().map(|range| {
        LocalFuture::new(async move { volume.unmap(range.start.0, range.length.0).await })
    });
    let done = bounded(UNMAP_RANGES, ranges).await;
    done.map(drop)
        .map_err(|error| failure(&error, Direction::Write))
}

async fn same(volume: &VolumeHandle, range: ByteRange, fill: Fill) -> Result<(), VolumeError> {
    let (start, length) = (range.start.0, range.length.0);
    let failed = |error| failure(&error, Direction::Write);
    let pattern = match fill {
        Fill::Unmap => {
            let done = volume.write_zeroes(start, length, true, false).await;
            return done.map_err(failed);
        }
        Fill::Zeros => {
            let done = volume.write_zeroes(start, length, false, false).await;
            return done.map_err(failed);
        }
        Fill::Pattern(block) => repeated(&block, length.min(VOLUME_CHUNK_BYTES)),
    };
    let writes = chunks(range).map(|part| {
        // Parts begin at whole blocks, and all blocks are alike.
        let data = pattern.slice(0..length_of(&part));
        LocalFuture::new(async move { volume.write(part.start, data, false).await })
    });
    let done = bounded(VOLUME_CHUNKS, writes).await;
    done.map(drop).map_err(failed)
}

/// As many copies of the block as fill `bytes`, a multiple of its length.
fn repeated(block: &[u8], bytes: u64) -> SharedBuf {
    let mut buffer = Buf::alloc(usize::try_from(bytes).unwrap_or(usize::MAX));
    for copy in buffer.chunks_mut(block.len()) {
        copy.copy_from_slice(&block[..copy.len()]);
    }
    buffer.freeze()
}

/// The mapper's failures as the SCSI core knows them.
fn failure(error: &atoll_mapper::Error, direction: Direction) -> VolumeError {
    tracing::debug!(%error, kind = ?error.kind(), "a volume operation failed");
    match error.kind() {
        ErrorKind::NoSpace => VolumeError::NoSpace,
        ErrorKind::ReadOnly => VolumeError::ReadOnly,
        ErrorKind::OutOfRange => VolumeError::OutOfRange,
        ErrorKind::Timeout => VolumeError::Timeout,
        // A volume that is closed while it is served is on its way away: initiators wait for their logout.
        ErrorKind::Offline | ErrorKind::Closed | ErrorKind::NotFound => VolumeError::Offline,
        ErrorKind::Busy | ErrorKind::InUse => VolumeError::Busy,
        ErrorKind::Corrupt => VolumeError::Corrupt(None),
        ErrorKind::Cancelled => VolumeError::Aborted,
        // What is left must not be tried again: a failed device, a volume that is not to be trusted, a lost pool.
        _ => match direction {
            Direction::Read => VolumeError::MediumRead(None),
            Direction::Write => VolumeError::MediumWrite(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::{ByteCount, ByteOffset};
    use atoll_reactor::sim::Sim;

    fn range(start: u64, length: u64) -> ByteRange {
        ByteRange {
            start: ByteOffset(start),
            length: ByteCount(length),
        }
    }

    #[test]
    fn chunks_cover_a_range_without_gaps_and_cross_no_boundary() {
        let unit = VOLUME_CHUNK_BYTES;
        for (start, length) in [
            (0, 512),
            (unit - 512, 1024),
            (512, 3 * unit),
            (unit, unit),
            (7 * unit - 4096, 16 << 20),
        ] {
            let mut next = start;
            for part in chunks(range(start, length)) {
                assert_eq!(part.start, next);
                assert_eq!(part.start / unit, (part.end - 1) / unit);
                next = part.end;
            }
            assert_eq!(next, start + length);
        }
    }

    #[test]
    fn a_payload_takes_its_bytes_in_any_pieces_and_never_more_than_its_length() {
        Sim::new(1, 1).block_on(async {
            let length = 2 * VOLUME_CHUNK_BYTES + 1024;
            let bytes: Vec<u8> = (0..length).map(|at| ((at * 31) >> 7) as u8).collect();
            for step in [1000, 65_536, length as usize] {
                let mut payload = Payload::new(range(VOLUME_CHUNK_BYTES - 512, length));
                for (number, piece) in bytes.chunks(step).enumerate() {
                    payload.put(number * step, piece);
                }
                payload.put(length as usize - 1, &[bytes[length as usize - 1], 1, 2]);
                assert_eq!(payload.parts.len(), 4);
                let joined: Vec<u8> = payload.parts.iter().flat_map(|p| p.to_vec()).collect();
                assert!(joined == bytes, "pieces of {step}");
            }
        });
    }

    #[test]
    fn a_pattern_is_repeated_to_the_length() {
        Sim::new(1, 1).block_on(async {
            let block: Vec<u8> = (0..512).map(|at| (at % 251) as u8).collect();
            let filled = repeated(&block, 512 * 5);
            assert!(filled.chunks(512).all(|copy| copy == block));
            assert_eq!(filled.len(), 512 * 5);
        });
    }
}

//! What the server is asked to do to the volume, and how its outcome becomes a status: the one place where
//! volume errors turn into sense data. Performs no I/O.

use super::config::Threshold;
use super::sense::{Sense, SenseKey, Status};
use super::units::{BlockSize, ByteCount, ByteRange, Lba};
use super::{log, report};

/// What a logical unit makes of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The command is complete.
    Done(Response),
    /// Run this against the volume, then answer [`Response::good`] (with the data read), what [`LbaStatus::answer`] or
    /// [`LogRoom::answer`] makes of it, or the [`VolumeError`]'s response.
    Volume(VolumeOp),
}

/// An operation on the volume. Ranges lie within the capacity and are multiples of the block size; they are not empty.
#[derive(Debug, PartialEq, Eq)]
pub enum VolumeOp {
    /// Read the range and return it as Data-In. `fua`: what was read must be on stable storage.
    Read {
        range: ByteRange,
        fua: bool,
        dpo: bool,
    },
    /// Write the first bytes of the Data-Out payload. `fua`: durable before the status.
    Write {
        range: ByteRange,
        fua: bool,
        dpo: bool,
    },
    /// Write the first bytes of the Data-Out payload, then read them from stable storage. `compare`: they must be what
    /// was written, else [`VolumeError::Miscompare`].
    WriteAndVerify { range: ByteRange, compare: bool },
    /// Compare what is on stable storage with the Data-Out payload.
    Compare { range: ByteRange },
    /// Read from stable storage, and compare each block with the pattern, where there is one.
    Verify {
        range: ByteRange,
        pattern: Option<Box<[u8]>>,
    },
    /// Compare with the first half of the Data-Out payload, which is twice as long as the range, and write the second
    /// where all is equal. No other write comes between.
    CompareAndWrite { range: ByteRange, fua: bool },
    /// Write the ones of the Data-Out payload and of what is stored. No other write comes between.
    OrWrite { range: ByteRange, fua: bool },
    /// Say what is stored of the range.
    LbaStatus(LbaStatus),
    /// Say what room the pool has.
    LogRoom(LogRoom),
    /// Make everything acknowledged durable before the status.
    Flush,
    /// Unmap the ranges; they read as zeros afterwards. They may overlap.
    Unmap(Vec<ByteRange>),
    /// Fill the range.
    WriteSame { range: ByteRange, fill: Fill },
}

/// What WRITE SAME fills with.
#[derive(Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros, by unmapping.
    Unmap,
    /// Zeros that stay allocated if the volume makes that difference.
    Zeros,
    /// Copies of this block, which is not all zeros.
    Pattern(Box<[u8]>),
}

/// Bytes of the volume that are alike in being stored or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// A multiple of the block size, not 0.
    pub length: ByteCount,
    /// False: nothing is stored, and zeros are read.
    pub mapped: bool,
}

/// GET LBA STATUS, to be answered with the volume's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    /// From the first block asked for to the end of the medium.
    pub range: ByteRange,
    pub(super) lba: Lba,
    pub(super) block_size: BlockSize,
    pub(super) allocation: u32,
}

impl LbaStatus {
    /// Extents that there is room for in the answer, at least one.
    pub fn most(&self) -> usize {
        report::lba_status_room(self.allocation)
    }

    /// The response for extents that follow each other from the range's start on; they may end before the range does.
    pub fn answer(&self, extents: impl Iterator<Item = Extent>) -> Response {
        let mut rest = self.range.length.0;
        // The volume may have grown since.
        let inside = extents.take(self.most()).map_while(|extent| {
            let length = extent.length.0.min(rest);
            rest -= length;
            (length > 0).then_some(Extent {
                length: ByteCount(length),
                ..extent
            })
        });
        let data = report::lba_status(self.lba, self.block_size, inside);
        Response::data(data, self.allocation)
    }
}

/// LOG SENSE of the Logical Block Provisioning page, to be answered with the pool's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRoom {
    pub(super) threshold: Threshold,
    pub(super) block_size: BlockSize,
    pub(super) pointer: u16,
    pub(super) allocation: u32,
}

impl LogRoom {
    /// The response for a pool with this much space altogether, and still to be had.
    pub fn answer(&self, total: ByteCount, available: ByteCount) -> Response {
        Response::data(log::provisioning(self, total, available), self.allocation)
    }
}

/// The end of a command: status, and Data-In or sense data.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    /// Data-In, already cut to the allocation length.
    pub data_in: Vec<u8>,
    /// Present exactly with CHECK CONDITION; encoded by [`super::LogicalUnit::encode_sense`].
    pub sense: Option<Sense>,
}

impl Response {
    /// GOOD without data.
    pub const fn good() -> Self {
        Response {
            status: Status::Good,
            data_in: Vec::new(),
            sense: None,
        }
    }

    /// GOOD with data, cut to `allocation` bytes.
    pub(super) fn data(mut data_in: Vec<u8>, allocation: u32) -> Self {
        data_in.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
        Response {
            data_in,
            ..Response::good()
        }
    }
}

/// CHECK CONDITION.
impl From<Sense> for Response {
    fn from(sense: Sense) -> Self {
        Response {
            status: Status::CheckCondition,
            data_in: Vec::new(),
            sense: Some(sense),
        }
    }
}

/// How a volume operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeError {
    /// The pool has no space for a first write.
    NoSpace,
    /// The volume refuses writes.
    ReadOnly,
    /// The range is no longer within the volume: it was shrunk meanwhile.
    OutOfRange,
    /// Data could not be read; the first block concerned, if known.
    MediumRead(Option<Lba>),
    /// Data could not be written; the first block concerned, if known.
    MediumWrite(Option<Lba>),
    /// What was compared differs, first at this byte of the Data-Out buffer.
    Miscompare(u64),
    /// Data or map are damaged: what was read is not what was written. The first block concerned, if known.
    Corrupt(Option<Lba>),
    /// Not begun for want of resources: to be tried again.
    Busy,
    /// Not finished in time; it may still take effect.
    Timeout,
    /// The pool cannot be reached now. It reconnects by itself.
    Offline,
    /// Ended by the server, a fence or a task management function.
    Aborted,
}

impl From<VolumeError> for Response {
    fn from(error: VolumeError) -> Self {
        let at = |sense: Sense, lba: Option<Lba>| lba.map_or(sense, |lba| sense.with_lba(lba));
        match error {
            VolumeError::Busy => Response {
                status: Status::Busy,
                ..Response::good()
            },
            // SPACE ALLOCATION FAILED WRITE PROTECT.
            VolumeError::NoSpace => Sense::new(SenseKey::DataProtect, 0x27, 0x07).into(),
            VolumeError::ReadOnly => Sense::WRITE_PROTECTED.into(),
            VolumeError::OutOfRange => Sense::LBA_OUT_OF_RANGE.into(),
            // UNRECOVERED READ ERROR: initiators must neither retry nor use what they got.
            VolumeError::MediumRead(lba) | VolumeError::Corrupt(lba) => {
                at(Sense::new(SenseKey::MediumError, 0x11, 0x00), lba).into()
            }
            // WRITE ERROR.
            VolumeError::MediumWrite(lba) => {
                at(Sense::new(SenseKey::MediumError, 0x0C, 0x00), lba).into()
            }
            // MISCOMPARE DURING VERIFY OPERATION, INFORMATION as SBC-3 5.2 wants it.
            VolumeError::Miscompare(offset) => Sense::new(SenseKey::Miscompare, 0x1D, 0x00)
                .with_information(offset)
                .into(),
            // COMMAND TIMEOUT DURING PROCESSING.
            VolumeError::Timeout => Sense::new(SenseKey::AbortedCommand, 0x2E, 0x02).into(),
            // IN PROCESS OF BECOMING READY: what makes initiators wait and retry instead of failing the file system.
            VolumeError::Offline => Sense::new(SenseKey::NotReady, 0x04, 0x01).into(),
            VolumeError::Aborted => Sense::new(SenseKey::AbortedCommand, 0x00, 0x00).into(),
        }
    }
}

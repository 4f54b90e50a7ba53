//! The SCSI protocol core (SPC-4, SBC-3): CDBs in, actions, data and sense out. Knows nothing of iSCSI.
//!
//! A server resolves the LUN ([`LunAddress`]), parses the CDB ([`parse`]), gathers what [`Command::data_out`] asks
//! for, calls [`LogicalUnit::start`] (or [`start_absent`]) and runs the volume operation it may get back. A failed
//! operation becomes a response through `From<VolumeError>`.
//!
//! **Invariant:** the table in `opcodes` is the only list of commands: what it does not name is refused, and what it
//! names is what REPORT SUPPORTED OPERATION CODES tells.

mod absent;
mod command;
mod config;
mod decode;
mod inquiry;
mod log;
mod lu;
mod lun;
mod medium;
mod mode;
mod nexus;
mod opcodes;
mod report;
mod sense;
mod units;
mod unmap;
mod volume;

#[cfg(test)]
mod tests;

pub use absent::start_absent;
pub use command::{
    ByteCheck, Command, DataOutNeed, ModeForm, ModeSense, OpcodeQuery, PageControl, ReadDefectData,
    SelectReport, Transfer, Verify, WriteSame, parse,
};
pub use config::{
    ConfigError, DEFAULT_MAX_TRANSFER, DEFAULT_MAX_UNMAP, DEFAULT_MAX_UNMAP_DESCRIPTORS,
    DEFAULT_MAX_WRITE_SAME, DEFAULT_OPTIMAL_TRANSFER, LuConfig, MAX_NAME_LENGTH, ResourceId,
    TargetPort, Threshold,
};
pub use lu::{LogicalUnit, Request};
pub use lun::{Lun, LunAddress, MAX_LUN};
pub use nexus::{Nexus, UnitAttention};
pub use opcodes::{COMMANDS, CommandSpec};
pub use sense::{
    FieldPointer, FieldSource, MAX_SENSE_LENGTH, Sense, SenseBytes, SenseFormat, SenseKey, Status,
};
pub use units::{BlockSize, Blocks, ByteCount, ByteOffset, ByteRange, Lba};
pub use volume::{Action, Extent, Fill, LbaStatus, LogRoom, Response, VolumeError, VolumeOp};

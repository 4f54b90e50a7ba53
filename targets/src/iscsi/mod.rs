//! The iSCSI protocol core (RFC 7143): bytes and a clock value in, bytes and actions out. Not the
//! server: no sockets, no clock, no SCSI; logical units, CDBs and sense data are opaque bytes here.
pub mod connection;
pub mod digest;
pub mod error;
pub mod limits;
pub mod login;
pub mod pdu;
pub mod serial;
pub mod text;

pub use connection::{
    Chunk, Command, Config, Connection, Event, Outcome, TargetRecord, TargetScope, TaskHandle,
    TaskManagementHandle, Timestamp,
};
pub use error::{CallError, CloseReason, Violation};
pub use login::{LoginAccept, LoginIdentity, LoginStatus, SessionKind};
pub use std::time::Duration;

#[cfg(test)]
mod tests;

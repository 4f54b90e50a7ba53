//! The iSCSI protocol core (RFC 7143): bytes and a clock value in, bytes and actions out. Not the
//! server: no sockets, no clock, no SCSI; logical units, CDBs and sense data are opaque bytes here.
pub mod digest;
pub mod limits;
pub mod pdu;
pub mod serial;

pub use std::time::Duration;

//! Protocol targets: pure cores (`scsi`, `iscsi`) and the thin servers that move their bytes.
#![forbid(unsafe_code)]
pub mod iscsi;
pub mod scsi;
pub mod server;

//! The iSCSI server in the simulator: real sockets' behaviour, the real mapper, memory below, any number of cores.
//! Every test runs with several seeds, which a failure prints.

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod hung;
mod initiator;
mod io;
mod management;
mod pressure;
mod scsi;
mod sessions;
mod world;

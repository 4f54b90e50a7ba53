//! Safe faces over libiscsi, a C library: all of the unsafe calls of the clients are in here.

pub mod initiator;
pub mod pipeline;

//! The admin API: HTTP and JSON over a Unix socket that only the daemon's user may use (A1).
//! `server` and `client` are its two ends, `service` has the rules between HTTP and the engine.

pub mod client;
mod data;
pub mod lanes;
mod routes;
pub mod server;
mod service;
pub mod socket;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
pub mod tests;

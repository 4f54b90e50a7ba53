//! The one binary: `atoll serve` is the daemon, every other verb talks to it. Composition and
//! control plane only; the I/O path is in the crates below.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "nothing in this package runs on a reactor: it is the command line and the admin threads"
)]

mod admin;
mod api;
mod cli;
mod config;
mod control;
mod daemon;
mod engine;
mod error;
mod log;
mod name;
mod transfer;
mod units;

use std::process::ExitCode;

/// What one thread allocates another gives back all the time: reactors hand each other work, and the metadata store's
/// threads their answers. Here that takes no lock (R1); the C library's allocator makes threads wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = cli::run(
        std::env::args_os(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    );
    ExitCode::from(code)
}

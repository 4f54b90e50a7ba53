//! What the end-to-end tests share: the daemon under test, clients that nobody here wrote, and a file system that
//! loses power. Nothing of it is part of the product.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

pub mod daemon;
mod ffi;
pub mod guest;
pub mod powerfs;
pub mod process;
pub mod raw;
pub mod scratch;
pub mod tools;
pub mod verify;

pub use daemon::{Daemon, Options};
pub use ffi::{initiator, pipeline};
pub use scratch::Scratch;

/// Whether the long form of a test was asked for (`make soak`).
pub fn soak() -> bool {
    std::env::var_os("ATOLL_SOAK").is_some_and(|value| value != "0" && !value.is_empty())
}

/// The seed of a randomised test: `$ATOLL_SEED`, which a failed test prints, else a fresh one.
pub fn seed() -> u64 {
    let given = std::env::var("ATOLL_SEED")
        .ok()
        .map(|text| text.parse().expect("ATOLL_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("ATOLL_SEED={seed}");
    seed
}

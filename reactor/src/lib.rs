//! The reactor: one executor per pinned core with `!Send` futures, io_uring, timers, an aligned
//! buffer pool, bounded mailboxes between cores, TCP and file handles. Two drivers have the same
//! face: `uring` for production and `sim`, deterministic from a seed, for tests.
//!
//! **Invariant:** a reactor thread never blocks and takes no lock (R1).
#![allow(
    unsafe_code,
    reason = "tasks, buffers and the ring need it; each block says why it is sound"
)]

pub mod alloc;
pub mod blocking;
pub mod buf;
mod core;
mod doze;
pub mod fs;
mod local;
pub mod mailbox;
pub mod net;
pub mod oneshot;
pub mod runtime;
pub mod sim;
mod stats;
pub mod sync;
mod task;
pub mod time;
mod timers;
mod uring;

pub use alloc::LocalFuture;
pub use buf::{Buf, SharedBuf};
pub use core::{
    CoreHandle, CoreId, JoinHandle, RemoteError, core_id, cores, spawn, spawn_detached, yield_now,
};
pub use doze::Doze;
pub use local::{local, set_local, take_local};
pub use runtime::{PollMode, Runtime, RuntimeConfig, block_on};
pub use stats::CoreStats;
pub use time::{Elapsed, Instant, now, sleep, sleep_until, timeout, timeout_at};

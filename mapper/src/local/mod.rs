//! Small waiting primitives of one core: no atomics, no locks, first come first served where it
//! matters. They know nothing of volumes.

mod detach;
mod epochs;
mod gate;
mod join;
mod range_locks;
mod wait;

pub(crate) use detach::run_to_end;
pub(crate) use epochs::Epochs;
pub(crate) use gate::{Gate, GateClosed};
pub(crate) use join::join_all;
pub(crate) use range_locks::{RangeGuard, RangeLocks};
pub(crate) use wait::WaitQueue;

//! A healthy store is clean; every corruption gives its own finding and no other; no bytes panic.

mod corruptions;
mod failures;
mod garbage;
mod healthy;
mod objects;
mod store;
mod trees;

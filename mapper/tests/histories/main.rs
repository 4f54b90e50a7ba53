//! Named histories: each is one order of events that once could go wrong, or that must never. They run on
//! the simulated reactor, metadata store and pool; where the order is a matter of chance, over many seeds.

mod atomic;
mod clones;
mod collecting;
mod copies;
mod cores;
mod faults;
mod flushing;
mod harness;
mod late;
mod leaks;
mod merging;
mod names;
mod objects;
mod resizing;
mod reviewed;
mod snapshots;
mod trees;
mod usage;

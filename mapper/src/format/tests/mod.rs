//! Tests of the format: golden bytes, round trips, canonical form, merging; and the values that
//! they draw.

mod merging;
mod pages;
mod roundtrip;
pub(crate) mod strategies;
mod vectors;

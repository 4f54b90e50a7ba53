//! Load generator and micro-benchmarks.
#![forbid(unsafe_code)]
fn main() {}

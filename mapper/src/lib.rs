//! Thin volumes.
#![forbid(unsafe_code)]

//! Object stores.
#![forbid(unsafe_code)]

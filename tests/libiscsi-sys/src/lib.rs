//! Raw bindings to Debian's libiscsi, an initiator that nobody here wrote. Generated at build time; the safe face
//! over it is `atoll_e2e::initiator`.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    reason = "C's names"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

//! The libFuzzer driver of all bodies: `ATOLL_FUZZ` names the one to run. Built by `scripts/fuzz.sh`, with coverage.
#![no_main]

use std::sync::OnceLock;

use atoll_fuzz::{Target, targets};

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("ATOLL_FUZZ").unwrap_or_default();
        let found = targets().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("ATOLL_FUZZ is {name:?}, which is no target"))
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (target().body)(input);
});

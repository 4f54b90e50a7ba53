//! Every parser of what peers send and disks hold, under bytes that nobody meant: one body per parser, which panics
//! where a promise is broken. Two drivers: the mutation tests in `tests/`, and libFuzzer (`src/bin/fuzz.rs`, run by
//! `scripts/fuzz.sh`). Nothing of it is part of the product.
#![forbid(unsafe_code)]

pub mod format;
pub mod iscsi;
pub mod mutate;
pub mod pool;
pub mod random;
pub mod scsi;
pub mod text;
pub mod vectors;

use iscsi::State;

/// One parser: its name, its body, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! states {
    ($($name:literal = $state:ident),* $(,)?) => {
        [$(Target {
            name: concat!("iscsi-", $name),
            body: |input| {
                iscsi::stream(State::$state, input);
            },
            seeds: || iscsi::mutator::Mutator::new(State::$state).corpus(),
        }),*]
    };
}

/// A connection, in each of its states.
const STREAMS: [Target; 12] = states![
    "security" = Security,
    "operational" = Operational,
    "idle" = Idle,
    "commands" = Commands,
    "transfers" = Transfers,
    "text-collected" = TextCollected,
    "text-answered" = TextAnswered,
    "discovery" = Discovery,
    "logout-asked" = LogoutAsked,
    "logout-begun" = LogoutBegun,
    "digests" = Digests,
    "closing" = Closing,
];

/// Everything else.
const PARSERS: [Target; 7] = [
    Target {
        name: "iscsi-pdu",
        body: iscsi::pdu::headers,
        seeds: vectors::pdus,
    },
    Target {
        name: "iscsi-text",
        body: text::keys,
        seeds: text::seeds,
    },
    Target {
        name: "scsi",
        body: scsi::command,
        seeds: scsi::seeds,
    },
    Target {
        name: "mapper-rows",
        body: format::rows,
        seeds: format::row_seeds,
    },
    Target {
        name: "mapper-pages",
        body: format::pages,
        seeds: format::page_seeds,
    },
    Target {
        name: "mapper-merge",
        body: format::merges,
        seeds: format::merge_seeds,
    },
    Target {
        name: "pool-label",
        body: pool::label,
        seeds: pool::seeds,
    },
];

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    STREAMS.iter().chain(&PARSERS)
}

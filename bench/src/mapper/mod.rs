//! What the mapper promises in figures: sizes of maps, times of verbs, look-ups, clones, the garbage collector, scale.
//! Each value is printed beside its limit. `bench/README.md` has the results.

mod clones;
mod collector;
mod counted;
mod cuts;
mod drive;
mod host;
mod lookups;
mod pebibyte;
mod report;
mod rows;
mod scale;
mod sizes;
mod stage;
mod verbs;

use atoll_mapper::Result;
use clap::Args;
use pebibyte::Pebibyte;
use report::{Check, Part};
use std::process::ExitCode;
use std::time::Instant;

/// Measures what the mapper promises, and says whether it is kept.
#[derive(Args)]
pub struct Arguments {
    /// Only this part.
    #[arg(long, value_name = "NAME", value_parser = PARTS.map(|(name, _)| name))]
    only: Option<String>,
}

type Measure = fn(&Pebibyte) -> Result<Vec<Check>>;

const PARTS: [(&str, Measure); 7] = [
    ("sizes", sizes::run),
    ("lookups", lookups::run),
    ("verbs", verbs::run),
    ("clones", clones::run),
    ("collector", collector::run),
    ("scale", scale::run),
    ("cuts", cuts::run),
];

pub fn run(arguments: &Arguments) -> ExitCode {
    let pebibyte = Pebibyte::default();
    let wanted = PARTS
        .iter()
        .filter(|(name, _)| arguments.only.as_deref().is_none_or(|only| only == *name));
    let mut parts = Vec::new();
    for (name, run) in wanted {
        eprintln!("{name} ...");
        let start = Instant::now();
        let checks = run(&pebibyte).unwrap_or_else(|error| vec![Check::failed(&error)]);
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        parts.push(Part { name, checks });
    }
    println!("{}", report::table(&parts));
    let missed = parts.iter().flat_map(|part| &part.checks);
    match missed.filter(|check| check.is_missed()).count() {
        0 => ExitCode::SUCCESS,
        missed => {
            println!("{missed} MISSED");
            ExitCode::FAILURE
        }
    }
}

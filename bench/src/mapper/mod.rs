//! What the mapper promises in figures: sizes of maps, times of verbs, look-ups, clones, the garbage collector, scale.
//! Each value is printed beside its limit. `bench/README.md` has the results.

mod disk;
mod report;
mod rows;
mod sizes;

use clap::Args;
use report::{Check, Part};
use std::process::ExitCode;

/// Measures what the mapper promises, and says whether it is kept.
#[derive(Args)]
pub struct Arguments {
    /// Only parts whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

const PARTS: [(&str, fn() -> Vec<Check>); 1] = [("sizes", sizes::run)];

pub fn run(arguments: &Arguments) -> ExitCode {
    let wanted = PARTS
        .iter()
        .filter(|(name, _)| name.contains(&arguments.only));
    let mut parts = Vec::new();
    for (name, run) in wanted {
        eprintln!("{name} ...");
        parts.push(Part {
            name,
            checks: run(),
        });
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

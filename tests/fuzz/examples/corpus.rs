//! Writes what libFuzzer begins with: `corpus DIRECTORY` makes a directory of seeds for every target in it, and
//! prints the targets' names. `scripts/fuzz.sh` runs it.
#![allow(clippy::disallowed_methods, reason = "no reactor is near")]

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.expect("usage: corpus DIRECTORY");
    for target in atoll_fuzz::targets() {
        let own = directory.join(target.name);
        std::fs::create_dir_all(&own)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(own.join(format!("seed-{number:03}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}

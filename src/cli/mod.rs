//! The command line: takes it apart, asks the daemon, and prints the answer for people or as JSON.
//! Errors go to stderr as `error: WHAT: WHY` and `hint: WAY OUT`; the exit code is their kind's.

mod args;
mod progress;
mod render;
mod snapshots;
#[cfg(test)]
mod tests;
mod transfer;
mod tree;
mod verbs;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::Parser;

use crate::admin::client::Client;
use crate::daemon;
use crate::error::{Error, ErrorKind, Result};
use args::{Cli, Verb, VolumeVerb};
use progress::{Shown, Stage};
use render::Output;

const EXIT_OK: u8 = 0;
/// `fsck` has found errors.
const EXIT_FINDINGS: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// `fsck` could not look at everything, for a reason that has no exit code of its own.
const EXIT_NOT_CHECKED: u8 = 7;

/// Runs one command line and gives its exit code. `err` is this process's stderr.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    run_on(args, out, err, io::stderr().is_terminal())
}

/// Runs one command line whose `err` is a terminal, or is none.
fn run_on(
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    terminal: bool,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => return print_usage(&usage, out, err),
    };
    let json = cli.global.json;
    let is_fsck = matches!(cli.verb, Verb::Fsck(_));
    let shown = match (json, terminal) {
        (true, _) => Shown::Nothing,
        (false, true) => Shown::Bar,
        (false, false) => Shown::Lines,
    };
    match perform(cli, out, &mut Stage::new(err, shown)) {
        Ok(code) => code,
        Err(Failure::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
        Err(Failure::Output(why)) => {
            let error = Error::internal(why.to_string()).context("cannot write the answer");
            print_error(&error, json, err)
        }
        Err(Failure::Verb(error)) => {
            let code = print_error(&error, json, err);
            if is_fsck && error.kind == ErrorKind::Internal {
                EXIT_NOT_CHECKED
            } else {
                code
            }
        }
    }
}

/// Why a command line did not end well.
enum Failure {
    Verb(Error),
    /// The answer could not be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Verb(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn perform(
    cli: Cli,
    out: &mut dyn Write,
    stage: &mut Stage<'_>,
) -> std::result::Result<u8, Failure> {
    let json = cli.global.json;
    let client = || Client::new(cli.global.admin_socket());
    let output = match cli.verb {
        Verb::Serve(serve) => return Ok(daemon::serve(&cli.global, serve, out)?),
        Verb::Fsck(fsck) => {
            let report = verbs::fsck(&cli.global, fsck)?;
            render::fsck(&report).print(cli.global.json, out)?;
            return Ok(if report.is_clean() {
                EXIT_OK
            } else if report.is_incomplete() {
                EXIT_NOT_CHECKED
            } else {
                EXIT_FINDINGS
            });
        }
        Verb::Diff(args) => {
            transfer::diff(&client(), &args, json, out)?;
            return Ok(EXIT_OK);
        }
        Verb::Volume(VolumeVerb::ExportFile(args)) => {
            transfer::export_file(&client(), &args, json, out, stage)?;
            return Ok(EXIT_OK);
        }
        Verb::Volume(VolumeVerb::ImportFile(args)) => {
            transfer::import_file(&client(), &args, json, out, stage)?;
            return Ok(EXIT_OK);
        }
        verb => ask(&client(), verb, stage)?,
    };
    output.print(cli.global.json, out)?;
    Ok(EXIT_OK)
}

fn ask(client: &Client, verb: Verb, stage: &mut Stage<'_>) -> Result<Output> {
    match verb {
        Verb::Volume(verb) => verbs::volume(client, verb, stage),
        Verb::Snapshot(verb) => snapshots::snapshot(client, verb),
        Verb::Export(verb) => verbs::export(client, verb),
        Verb::Pool(verb) => verbs::pool(client, verb),
        Verb::Gc(verb) => snapshots::gc(client, verb, stage),
        Verb::Stats => verbs::stats(client),
        Verb::Status | Verb::Serve(_) | Verb::Fsck(_) | Verb::Diff(_) => verbs::status(client),
    }
}

/// Help and version go to stdout, complaints to stderr.
fn print_usage(usage: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = usage.render();
    // Nothing is left to be told to somebody who has closed the stream.
    if usage.use_stderr() {
        let _ = write!(err, "{text}");
        EXIT_USAGE
    } else {
        let _ = write!(out, "{text}").and_then(|()| out.flush());
        EXIT_OK
    }
}

fn print_error(error: &Error, json: bool, err: &mut dyn Write) -> u8 {
    let text = if json {
        let error = serde_json::json!({ "error": error });
        format!("{error}\n")
    } else {
        let hint = error.hint.as_ref().map(|hint| format!("hint: {hint}\n"));
        format!("error: {}\n{}", error.message, hint.unwrap_or_default())
    };
    let _ = err.write_all(text.as_bytes());
    error.kind.exit_code()
}

pub use args::{Global, Serve};

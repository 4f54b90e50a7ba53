//! `atoll diff`: writes each range as soon as it is known.

use std::io::Write;

use crate::admin::client::Client;
use crate::api::{ChangedRange, Volume};
use crate::cli::Failure;
use crate::error::Result;
use crate::transfer::changes::Encoder;
use crate::units::ByteSize;

use super::args::Diff;
use super::pages::Changes;

/// Digits of the largest offset, 1 PiB.
const WIDTH: usize = 16;

pub fn diff(
    client: &Client,
    args: &Diff,
    json: bool,
    out: &mut dyn Write,
) -> std::result::Result<(), Failure> {
    let context = format!(
        "cannot compare {:?} and {:?}",
        args.from.as_str(),
        args.to.as_str()
    );
    let resource = |name| client.get::<Volume>(&format!("/v1/volumes/{name}"));
    let both = resource(&args.from).and_then(|from| Ok((from, resource(&args.to)?)));
    let (from, to) = both.map_err(|e| e.context(&context))?;
    // Asked for before anything is written: most errors come here.
    let mut changes = Changes::new(client, Some(&from), &to, 0).peekable();
    if let Some(Err(error)) = changes.next_if(Result::is_err) {
        return Err(error.context(context).into());
    }
    let changes = changes.map(|change| change.map_err(|e| e.context(&context)));
    let mut out = std::io::BufWriter::new(out);
    match (args.binary, json) {
        (true, _) => binary(&from, &to, changes, &mut out)?,
        (false, true) => as_json(changes, &mut out)?,
        (false, false) => table(changes, &mut out)?,
    }
    Ok(out.flush()?)
}

fn binary(
    from: &Volume,
    to: &Volume,
    changes: impl Iterator<Item = Result<ChangedRange>>,
    out: &mut dyn Write,
) -> std::result::Result<(), Failure> {
    let (mut encoder, start) = Encoder::new(to.size, from.id, to.id);
    out.write_all(&start)?;
    for change in changes {
        out.write_all(&encoder.change(&change?))?;
    }
    Ok(out.write_all(&encoder.end())?)
}

fn as_json(
    changes: impl Iterator<Item = Result<ChangedRange>>,
    out: &mut dyn Write,
) -> std::result::Result<(), Failure> {
    out.write_all(b"[")?;
    for (n, change) in changes.enumerate() {
        let line = serde_json::to_string(&change?).map_err(std::io::Error::from)?;
        let comma = if n == 0 { "" } else { "," };
        write!(out, "{comma}\n  {line}")?;
    }
    Ok(out.write_all(b"\n]\n")?)
}

fn table(
    changes: impl Iterator<Item = Result<ChangedRange>>,
    out: &mut dyn Write,
) -> std::result::Result<(), Failure> {
    let (mut ranges, mut data, mut zeros) = (0u64, 0, 0);
    for change in changes {
        let change = change?;
        if ranges == 0 {
            writeln!(out, "{:>WIDTH$}  {:>WIDTH$}  CONTENT", "OFFSET", "LENGTH")?;
        }
        let content = if change.zero { "zeros" } else { "data" };
        writeln!(
            out,
            "{:>WIDTH$}  {:>WIDTH$}  {content}",
            change.offset, change.length
        )?;
        ranges += 1;
        match change.zero {
            true => zeros += change.length,
            false => data += change.length,
        }
    }
    if ranges == 0 {
        return Ok(writeln!(out, "no differences")?);
    }
    let [data, zeros] = [data, zeros].map(ByteSize::bytes);
    Ok(writeln!(
        out,
        "{ranges} ranges: {data} of data, {zeros} of zeros"
    )?)
}

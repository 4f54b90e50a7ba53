//! What a part found: measured values beside their limits, as one table, and whether all were kept.

use comfy_table::{CellAlignment, Table, presets};

/// How a measured value stands to its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is no limit: the value is told.
    Told,
    Kept,
    Missed,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Verdict::Told => "",
            Verdict::Kept => "ok",
            Verdict::Missed => "MISSED",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Check {
    what: String,
    measured: String,
    limit: String,
    verdict: Verdict,
}

impl Check {
    pub fn told(what: impl Into<String>, measured: impl Into<String>) -> Check {
        Check {
            what: what.into(),
            measured: measured.into(),
            limit: String::new(),
            verdict: Verdict::Told,
        }
    }

    /// The part came to no end.
    pub fn failed(error: &atoll_mapper::Error) -> Check {
        Check {
            what: format!("failed: {error}"),
            measured: String::new(),
            limit: String::new(),
            verdict: Verdict::Missed,
        }
    }

    /// Kept while the value is not above the limit; `text` is how both are written.
    pub fn at_most(
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        text: impl Fn(f64) -> String,
    ) -> Check {
        Check {
            what: what.into(),
            measured: text(measured),
            limit: format!("at most {}", text(limit)),
            verdict: kept(measured <= limit),
        }
    }

    pub fn at_least(
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        text: impl Fn(f64) -> String,
    ) -> Check {
        Check {
            what: what.into(),
            measured: text(measured),
            limit: format!("at least {}", text(limit)),
            verdict: kept(measured >= limit),
        }
    }

    pub fn is_missed(&self) -> bool {
        self.verdict == Verdict::Missed
    }
}

fn kept(kept: bool) -> Verdict {
    match kept {
        true => Verdict::Kept,
        false => Verdict::Missed,
    }
}

/// The lines of a part under its name.
pub struct Part {
    pub name: &'static str,
    pub checks: Vec<Check>,
}

pub fn table(parts: &[Part]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["part", "what", "measured", "limit", ""]);
    for part in parts {
        for check in &part.checks {
            table.add_row([
                part.name,
                &check.what,
                &check.measured,
                &check.limit,
                check.verdict.as_str(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ => format!("{value:.2} {}", UNITS[unit]),
    }
}

pub fn millis(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

pub fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

pub fn per_second(rate: f64) -> String {
    match rate {
        1e6.. => format!("{:.1} M/s", rate / 1e6),
        1e4.. => format!("{:.1} k/s", rate / 1e3),
        _ => format!("{rate:.0} /s"),
    }
}

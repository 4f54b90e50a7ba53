//! Answers for people: tables and lists of properties. For programs there is the JSON of `api`,
//! which is printed as it came.

mod snapshots;

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::api::{
    CommandStats, Export, FsckReport, IoStats, Pool, PoolState, PoolType, Protocol, Severity,
    Stats, Status, Volume, VolumeKind, VolumeState,
};
use crate::name::ResourceName;
use crate::units::ByteSize;

pub use snapshots::*;

/// What a verb has to say, in both forms.
#[derive(Debug)]
pub struct Output {
    json: serde_json::Result<String>,
    text: String,
}

impl Output {
    pub fn new(value: &impl Serialize, text: impl Into<String>) -> Self {
        Self {
            json: serde_json::to_string_pretty(value),
            text: text.into(),
        }
    }

    pub fn print(self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            writeln!(out, "{}", self.json?)?;
        } else {
            out.write_all(self.text.as_bytes())?;
        }
        out.flush()
    }
}

/// A table without lines; the columns named in `right` are numbers.
fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .to_string()
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// `name  value` lines.
fn properties(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

fn exact(size: ByteSize) -> String {
    format!("{size} ({} bytes)", size.get())
}

fn size_or_dash(size: Option<ByteSize>) -> String {
    size.map_or_else(|| "-".to_owned(), |size| size.to_string())
}

fn or_none(rows: usize, nouns: &str, text: String) -> String {
    if rows == 0 {
        format!("no {nouns}\n")
    } else {
        text
    }
}

fn volume_state(volume: &Volume) -> &'static str {
    match volume.state {
        VolumeState::Ok => "ok",
        VolumeState::Faulted => "faulted",
    }
}

pub fn volume(volume: &Volume) -> Output {
    let mut rows = vec![
        ("name", volume.name.to_string()),
        ("id", volume.id.to_string()),
        ("kind", volume.kind.to_string()),
        ("size", exact(volume.size)),
    ];
    rows.extend(volume.used.map(|used| ("used", exact(used))));
    rows.extend([
        ("block size", u32::from(volume.block_size).to_string()),
        ("pool", volume.pool.to_string()),
    ]);
    let origin = volume.origin.as_ref().map(ResourceName::to_string);
    rows.extend(origin.map(|origin| ("origin", origin)));
    rows.extend([
        (
            "protected",
            if volume.protected { "yes" } else { "no" }.to_owned(),
        ),
        ("created", volume.created.to_string()),
        ("state", volume_state(volume).to_owned()),
    ]);
    rows.extend(volume.fault.clone().map(|fault| ("fault", fault)));
    Output::new(volume, properties(&rows))
}

fn pool_type(pool: &Pool) -> &'static str {
    match pool.pool_type {
        PoolType::File => "file",
        PoolType::Memory => "memory",
        PoolType::Null => "null",
    }
}

fn pool_state(pool: &Pool) -> &'static str {
    match pool.state {
        PoolState::Ok => "ok",
        PoolState::Faulted => "faulted",
    }
}

/// Type and directory.
pub fn pool_place(pool: &Pool) -> String {
    match &pool.path {
        Some(path) => format!("{} pool in {path}", pool_type(pool)),
        None => format!("{} pool", pool_type(pool)),
    }
}

pub fn pools(pools: &[Pool]) -> Output {
    let rows = pools.iter().map(|p| {
        vec![
            p.name.to_string(),
            pool_type(p).to_owned(),
            p.object_size.to_string(),
            size_or_dash(p.capacity),
            size_or_dash(p.free),
            p.volumes.to_string(),
            pool_state(p).to_owned(),
            p.path.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header = [
        "NAME", "TYPE", "OBJECT", "CAPACITY", "FREE", "VOLUMES", "STATE", "PATH",
    ];
    Output::new(
        &pools,
        or_none(pools.len(), "pools", table(&header, &[2, 3, 4, 5], rows)),
    )
}

pub fn pool(pool: &Pool) -> Output {
    let mut rows = vec![
        ("name", pool.name.to_string()),
        ("id", pool.id.to_string()),
        ("type", pool_type(pool).to_owned()),
    ];
    rows.extend(pool.path.clone().map(|path| ("path", path)));
    rows.push(("object size", exact(pool.object_size)));
    rows.extend(pool.capacity.map(|capacity| ("capacity", exact(capacity))));
    rows.extend(pool.free.map(|free| ("free", exact(free))));
    rows.push(("volumes", pool.volumes.to_string()));
    if let Some(usage) = &pool.usage {
        rows.extend([
            ("logical", exact(usage.logical)),
            ("mapped", exact(usage.mapped)),
            ("shared", exact(usage.shared)),
            ("unique", exact(usage.unique)),
            ("garbage", exact(usage.garbage)),
        ]);
    }
    rows.extend([
        ("created", pool.created.to_string()),
        ("state", pool_state(pool).to_owned()),
    ]);
    rows.extend(pool.fault.clone().map(|fault| ("fault", fault)));
    Output::new(pool, properties(&rows))
}

fn access(export: &Export) -> &'static str {
    if export.read_only {
        "read-only"
    } else {
        "read-write"
    }
}

fn protocol(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Iscsi => "iscsi",
    }
}

pub fn exports(exports: &[Export]) -> Output {
    let rows = exports.iter().map(|e| {
        vec![
            e.name.to_string(),
            e.target.clone(),
            e.lun.to_string(),
            access(e).to_owned(),
            e.protocols
                .iter()
                .map(protocol)
                .collect::<Vec<_>>()
                .join(","),
            e.portals.join(","),
            e.sessions.to_string(),
        ]
    });
    let header = [
        "VOLUME",
        "TARGET",
        "LUN",
        "ACCESS",
        "PROTOCOLS",
        "PORTALS",
        "SESSIONS",
    ];
    Output::new(
        &exports,
        or_none(exports.len(), "exports", table(&header, &[2, 6], rows)),
    )
}

pub fn export_added(export: &Export, created: bool) -> Output {
    let said = if created {
        "exported"
    } else {
        "unchanged, exported already:"
    };
    let why = match export.kind {
        VolumeKind::Volume => "",
        VolumeKind::Snapshot => ", as a snapshot never changes",
    };
    let mut text = format!(
        "{said} {} {}, {}{why}\n",
        export.kind,
        export.name,
        access(export)
    );
    for url in export.urls() {
        let _ = writeln!(text, "{url}");
    }
    Output::new(export, text)
}

pub fn status(status: &Status) -> Output {
    let listeners = status.listeners.iter().map(|listener| {
        let advertise = listener.advertise.as_ref();
        let advertise = advertise
            .map(|address| format!(", advertised as {address}"))
            .unwrap_or_default();
        (
            protocol(&listener.protocol),
            format!("{}{advertise}", listener.address),
        )
    });
    let metadata = &status.metadata;
    let mut rows = vec![
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("uptime", uptime(status.uptime_seconds)),
        ("data", status.data.clone()),
    ];
    rows.extend(listeners);
    rows.extend([
        ("pools", status.pools.to_string()),
        ("volumes", status.volumes.to_string()),
        ("snapshots", status.snapshots.to_string()),
        ("exports", status.exports.to_string()),
        ("sessions", status.sessions.to_string()),
        (
            "metadata",
            format!(
                "{} in {}: {}, {} free",
                metadata.store,
                metadata.path,
                metadata.used,
                size_or_dash(metadata.free)
            ),
        ),
        ("map pages", format!("at most {}", metadata.page_memory)),
    ]);
    rows.extend(metadata.fault.clone().map(|fault| ("fault", fault)));
    let cores = status.cores.iter().map(|core| {
        vec![
            core.id.to_string(),
            core.cpu.to_string(),
            core.poll.clone(),
            format!("{:.1} %", core.busy_share * 100.0),
            core.buffers.to_string(),
            core.sessions.to_string(),
        ]
    });
    let header = ["CORE", "CPU", "POLL", "BUSY", "BUFFERS", "SESSIONS"];
    let text = format!(
        "{}\n{}",
        properties(&rows),
        table(&header, &[0, 1, 3, 4, 5], cores)
    );
    Output::new(status, text)
}

/// `3d 4h 5m 6s`, from the first unit that is not zero.
fn uptime(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let first = parts
        .iter()
        .position(|(n, _)| *n > 0)
        .unwrap_or(parts.len() - 1);
    parts[first..]
        .iter()
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn stats(stats: &Stats) -> Output {
    let cores = stats.cores.iter().map(|core| {
        vec![
            core.id.to_string(),
            core.turns.to_string(),
            core.tasks.to_string(),
            core.submissions.to_string(),
            core.completions.to_string(),
            core.enters.to_string(),
            milliseconds(core.busy_ns),
            milliseconds(core.polling_ns),
            milliseconds(core.asleep_ns),
        ]
    });
    let header = [
        "CORE",
        "TURNS",
        "TASKS",
        "SUBMITTED",
        "COMPLETED",
        "ENTERS",
        "BUSY",
        "POLLING",
        "ASLEEP",
    ];
    let mut text = table(&header, &[1, 2, 3, 4, 5, 6, 7, 8], cores);
    if !stats.volumes.is_empty() {
        let volumes = stats
            .volumes
            .iter()
            .map(|volume| [vec![volume.name.to_string()], io_cells(&volume.io)].concat());
        let header = [
            "VOLUME", "READS", "BYTES", "WRITES", "BYTES", "FLUSHES", "UNMAPS", "BYTES", "ERRORS",
        ];
        let _ = write!(
            text,
            "\n{}",
            table(&header, &[1, 2, 3, 4, 5, 6, 7, 8], volumes)
        );
    }
    if !stats.exports.is_empty() {
        let exports = stats.exports.iter().map(|export| {
            [
                vec![export.name.to_string()],
                command_cells(&export.commands),
            ]
            .concat()
        });
        let header = [
            "EXPORT", "READS", "BYTES", "MEAN", "WRITES", "BYTES", "MEAN", "OTHERS", "ERRORS",
            "ABORTED",
        ];
        let _ = write!(
            text,
            "\n{}",
            table(&header, &[1, 2, 3, 4, 5, 6, 7, 8, 9], exports)
        );
    }
    Output::new(stats, text)
}

fn command_cells(commands: &CommandStats) -> Vec<String> {
    let bytes = |bytes| ByteSize::bytes(bytes).to_string();
    vec![
        commands.reads.to_string(),
        bytes(commands.read_bytes),
        mean(commands.read_ns, commands.reads),
        commands.writes.to_string(),
        bytes(commands.write_bytes),
        mean(commands.write_ns, commands.writes),
        commands.others.to_string(),
        commands.errors.to_string(),
        commands.aborted.to_string(),
    ]
}

/// Mean time of a command in microseconds.
fn mean(nanoseconds: u64, count: u64) -> String {
    match nanoseconds.checked_div(count) {
        None => "-".to_owned(),
        Some(mean) => format!("{}.{} us", mean / 1000, mean % 1000 / 100),
    }
}

fn io_cells(io: &IoStats) -> Vec<String> {
    let bytes = |bytes| ByteSize::bytes(bytes).to_string();
    vec![
        io.reads.to_string(),
        bytes(io.read_bytes),
        io.writes.to_string(),
        bytes(io.write_bytes),
        io.flushes.to_string(),
        io.unmaps.to_string(),
        bytes(io.unmap_bytes),
        io.errors.to_string(),
    ]
}

fn milliseconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds / 100_000;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub fn fsck(report: &FsckReport) -> Output {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(
            text,
            "{}: {}: {}: {}",
            severity(finding.severity),
            finding.kind,
            finding.place,
            finding.text
        );
    }
    for omitted in &report.omitted {
        let _ = writeln!(
            text,
            "{}: {}: and {} more",
            severity(omitted.severity),
            omitted.kind,
            omitted.count
        );
    }
    let read = match report.read {
        0 => String::new(),
        read => format!(", {read} of them read"),
    };
    let _ = writeln!(
        text,
        "checked {} pools, {} volumes, {} nodes, {} pages, {} objects{read}",
        report.pools, report.volumes, report.nodes, report.pages, report.objects
    );
    for name in &report.cleared {
        let _ = writeln!(text, "cleared: volume {name} is not faulted any more");
    }
    let count = |severity| report.count(severity);
    let verdict = if report.is_clean() {
        "clean"
    } else if report.is_incomplete() {
        "not checked in full"
    } else {
        "damaged"
    };
    let _ = writeln!(
        text,
        "{verdict}: {} errors, {} warnings, {} notes",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note)
    );
    Output::new(report, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Finding;

    #[test]
    fn times_print_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (3600, "1h 0m 0s"),
            (273_906, "3d 4h 5m 6s"),
        ] {
            assert_eq!(uptime(seconds), text);
        }
        assert_eq!(milliseconds(1_234_567_890), "1234.5 ms");
        assert_eq!(
            (mean(0, 0).as_str(), mean(123_456, 1).as_str()),
            ("-", "123.4 us")
        );
    }

    #[test]
    fn a_report_of_fsck_says_every_finding_and_the_verdict() {
        let finding = |severity| Finding {
            severity,
            kind: "object_missing".to_owned(),
            place: "volume a".to_owned(),
            text: "object 7 is not in the pool".to_owned(),
        };
        let mut report = FsckReport {
            pools: 1,
            volumes: 2,
            nodes: 3,
            pages: 4,
            objects: 5,
            findings: vec![finding(Severity::Note)],
            ..FsckReport::default()
        };
        assert!(report.is_clean());
        assert!(
            fsck(&report)
                .text
                .ends_with("clean: 0 errors, 0 warnings, 1 notes\n")
        );
        report.findings.push(finding(Severity::Error));
        assert!(!report.is_clean());
        let output = fsck(&report);
        assert!(
            output
                .text
                .contains("\nerror: object_missing: volume a: object 7 is not in the pool\n")
        );
        assert!(
            output
                .text
                .ends_with("damaged: 1 errors, 0 warnings, 1 notes\n")
        );
        assert!(output.json.unwrap().contains("\"where\": \"volume a\""));

        report.omitted.push(crate::api::Omitted {
            severity: Severity::Error,
            kind: "object_missing".to_owned(),
            count: 9,
        });
        let text = fsck(&report).text;
        assert!(text.contains("\nerror: object_missing: and 9 more\n"));
        assert!(text.ends_with("damaged: 10 errors, 0 warnings, 1 notes\n"));
    }
}

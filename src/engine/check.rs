//! `atoll fsck`: opens what a stopped daemon left, metadata for reading only and pools exclusively,
//! and has it checked; clears faulted volumes that were found whole, if asked to. What is looked at,
//! and how, is the mapper's `fsck`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use atoll_backends::{Generation, ObjectStore, Pool};
use atoll_mapper::format::{Key, KeyRange, MarkRow, ParsedKey, PoolKind, PoolRow, Table, open_row};
use atoll_mapper::fsck::{self as below, FindingKind, Progress, Step};
use atoll_mapper::meta::{
    Cursor, MetaReader, MetaStore, OpenMode, RocksMeta, RocksOptions, get_row,
};
use atoll_mapper::types::PoolNumber;
use atoll_mapper::{clear_faults, faulted_pools};
use atoll_reactor::{PollMode, Runtime, RuntimeConfig};

use crate::api::{Finding, FsckReport, Omitted, POOL_UNOPENED, Severity};
use crate::config::Config;
use crate::error::{Error, Result};

use super::pools::{PoolOptions, open_directory};
use super::{absolute, failure};

/// I/O buffers of a check.
const BUFFER_BYTES: usize = 8 << 20;
/// Rows of pools read at a time.
const SCAN_ROWS: usize = 64;

/// What a check tells while it runs: the step in words, and how much of it is done.
pub type Tell = Box<dyn FnMut(&'static str, u64) + Send>;

/// How thorough a check is, and what follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Metadata, and which objects there are.
    Names,
    /// Every object is read, too.
    Data,
    /// [`Depth::Data`]; where no error is found, faulted volumes are then cleared.
    DataAndClear,
}

/// Checks the stopped data directory that `config` names; the caller holds its lock. Blocks.
pub fn fsck(config: &Config, depth: Depth, tell: Tell) -> Result<FsckReport> {
    let data = absolute(&config.data)?;
    let path = absolute(&config.metadata_path())?;
    // The way out that damage comes with elsewhere is what is being done here.
    let below = |error: atoll_mapper::Error| {
        let mut error = failure::of_mapper(&error);
        error.hint.take_if(|hint| hint == failure::CHECK_IT);
        error
    };
    let ended = |error| Error::internal(format!("the check has ended: {error}"));
    let runtime = start_runtime()?;
    let meta = RocksMeta::open_read_only(&path).map_err(|e| below(e).context("metadata store"))?;
    let checked = runtime.run(move || async move {
        let checked = check(&meta, &data, depth, tell).await;
        meta.close().await?;
        checked
    });
    let (mut report, settled) = checked.map_err(ended)?.map_err(below)?;
    if !settled.is_empty() {
        let options = RocksOptions::default();
        let meta = RocksMeta::open(&path, OpenMode::Existing, &options)
            .map_err(|e| below(e).context("metadata store"))?;
        let cleared = runtime.run(move || async move {
            let cleared = clear_faults(&meta, &settled).await;
            meta.close().await?;
            cleared
        });
        let cleared = cleared.map_err(ended)?;
        let cleared = cleared.map_err(|e| below(e).context("cannot clear what is faulted"))?;
        report.cleared = cleared.iter().map(|name| name.to_string()).collect();
    }
    runtime.shutdown();
    Ok(report)
}

/// One core, on any CPU: a check is often run where the daemon does not.
fn start_runtime() -> Result<Runtime> {
    let cpus = atoll_reactor::runtime::available_cpus();
    Runtime::start(RuntimeConfig {
        cpus: cpus.into_iter().take(1).collect(),
        poll: PollMode::Never,
        buffer_bytes: BUFFER_BYTES,
        ..RuntimeConfig::default()
    })
    .map_err(|e| Error::internal(format!("cannot start a reactor: {e}")))
}

/// The report, and the pools whose faulted volumes may be cleared.
async fn check(
    meta: &dyn MetaReader,
    data: &Path,
    depth: Depth,
    mut tell: Tell,
) -> atoll_mapper::Result<(FsckReport, BTreeSet<PoolNumber>)> {
    let mut findings = Vec::new();
    let mut stores: Vec<(PoolNumber, Rc<dyn ObjectStore>)> = Vec::new();
    for (number, row) in file_pools(meta).await? {
        match open_pool(meta, number, &row, data).await {
            Ok(store) => stores.push((number, store)),
            Err(finding) => findings.push(finding),
        }
    }
    let mut progress = |progress: Progress| tell(step(progress.step), progress.done);
    let deep = depth != Depth::Names;
    let report = below::check(meta, &stores, below::Options { deep }, &mut progress).await?;
    let report = convert(report, findings);
    let mut settled = BTreeSet::new();
    if depth == Depth::DataAndClear && report.is_clean() {
        let faulted = faulted_pools(meta).await?;
        for (number, store) in stores.iter().filter(|(n, _)| faulted.contains(n)) {
            // What was read just now is to be what the medium has.
            store.sync_all().await?;
            settled.insert(*number);
        }
    }
    Ok((report, settled))
}

/// The rows that can be read; the others are what the check finds.
async fn file_pools(meta: &dyn MetaReader) -> atoll_mapper::Result<Vec<(PoolNumber, PoolRow)>> {
    let mut found = Vec::new();
    let mut rows = Cursor::new(KeyRange::prefix(Table::Pool));
    loop {
        let pairs = rows.next(meta, SCAN_ROWS).await?;
        if pairs.is_empty() {
            return Ok(found);
        }
        for (key, value) in pairs {
            if let (Some(ParsedKey::Pool(number)), Ok(row)) =
                (Key::parse(&key), open_row::<PoolRow>(&key, &value))
                && row.kind == PoolKind::File
            {
                found.push((number, row));
            }
        }
    }
}

async fn open_pool(
    meta: &dyn MetaReader,
    number: PoolNumber,
    row: &PoolRow,
    data: &Path,
) -> std::result::Result<Rc<dyn ObjectStore>, Finding> {
    let finding = |severity, kind: &str, text: String| Finding {
        severity,
        kind: kind.to_owned(),
        place: format!("pool {:?}", row.name.as_str()),
        text,
    };
    let opened = async {
        let directory: PathBuf = PoolOptions::of(row)?.directory(data)?;
        let pool = open_directory(&directory, row, false).await?;
        Ok::<_, atoll_mapper::Error>(pool.attach().await?)
    };
    let error = match opened.await {
        Ok(store) => return Ok(store),
        Err(error) => error,
    };
    let mark = get_row::<MarkRow>(meta, &Key::mark(number)).await;
    let unused =
        mark.is_ok_and(|mark| mark.is_none_or(|mark| mark.reserved_below == Generation::ZERO));
    Err(match unused {
        true => finding(
            Severity::Note,
            "pool_not_made",
            "the daemon ended while it was added; the next start makes it".to_owned(),
        ),
        false => finding(
            Severity::Error,
            POOL_UNOPENED,
            format!("its objects cannot be looked at: {error}"),
        ),
    })
}

fn step(step: Step) -> &'static str {
    match step {
        Step::Catalogue => "reading the catalogue",
        Step::Maps => "reading the maps",
        Step::Partials => "reading the partial records",
        Step::Refs => "counting the references",
        Step::Listing => "listing the objects",
        Step::Reading => "reading the objects",
    }
}

fn severity(severity: below::Severity) -> Severity {
    match severity {
        below::Severity::Info => Severity::Note,
        below::Severity::Warning => Severity::Warning,
        below::Severity::Error => Severity::Error,
    }
}

fn convert(report: below::Report, mut findings: Vec<Finding>) -> FsckReport {
    let omitted = |kind: &FindingKind| {
        let count = report.dropped(*kind);
        (count > 0).then(|| Omitted {
            severity: severity(kind.severity()),
            kind: kind.to_string(),
            count,
        })
    };
    let omitted = FindingKind::ALL.iter().filter_map(omitted).collect();
    let totals = &report.totals;
    findings.extend(report.findings.iter().map(|finding| Finding {
        severity: severity(finding.severity),
        kind: finding.kind.to_string(),
        place: finding.place.clone(),
        text: finding.text.clone(),
    }));
    FsckReport {
        pools: totals.pools,
        volumes: totals.resources,
        nodes: totals.nodes,
        pages: totals.rows.get(&(Table::Page as u8)).copied().unwrap_or(0),
        objects: totals.listed,
        read: totals.read,
        findings,
        omitted,
        cleared: Vec::new(),
    }
}

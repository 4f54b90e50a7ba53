//! `atoll fsck`: checks that the metadata store keeps what FORMAT.md says and that the pools have
//! what the maps name. It changes nothing, and reads every format with code of its own, from the
//! document alone: a mistake of the mapper's encoder, decoder or volume code is not shared.
//!
//! **Memory.** The catalogue (pools, resources, nodes) is kept whole. Objects are not: maps are
//! walked in their order and give runs (generation, first index, count), which a volume of any size
//! has few of as long as it is not fragmented; the comparison with the pool's list takes one bit per
//! object, 32 MiB for 1 PiB of 4 MiB objects. When runs and bits outgrow [`MEMORY_LIMIT`], the
//! check keeps a window of the names, and walks and lists again for the next one. Refs are
//! counted in windows too. Partial objects that are being dropped are kept as runs beside the window.

mod bytes;
mod catalogue;
mod garbage;
mod keys;
mod maps;
mod names;
mod objects;
mod partials;
mod refs;
mod relations;
mod report;
mod rows;
mod scan;
mod slots;
#[cfg(test)]
mod tests;
mod usage;

pub use garbage::{Fate, Garbage, garbage};
pub use report::{Finding, FindingKind, MAX_FINDINGS_PER_KIND, Report, Severity, Totals};

use crate::error::Result;
use crate::meta::MetaReader;
use crate::types::PoolNumber;
use atoll_backends::ObjectStore;
use catalogue::Catalogue;
use hashbrown::HashMap;
use keys::Key;
use maps::{Sink, Walk};
use names::Window;
use objects::{Carried, Current, ObjectCheck, Tally};
use partials::Ranges;
use refs::{RefCheck, RefKey, RefWindow};
use report::Log;
use std::rc::Rc;
use usage::{Counts, UsageCheck};

/// Bytes for runs and bits of objects in one pass, and as many again for refs.
pub const MEMORY_LIMIT: u64 = 512 << 20;
/// Rows between two reports of progress.
const PROGRESS_ROWS: u64 = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Reads every object that a map names, once.
    pub deep: bool,
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    Catalogue,
    Maps,
    Partials,
    Refs,
    /// The pools list their objects.
    Listing,
    /// Objects are read (deep check).
    Reading,
}

/// Told when a step begins and every so many rows, list pages or objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub step: Step,
    /// Rows, list pages or objects that the step has done so far.
    pub done: u64,
}

/// Counts what was done and tells it from time to time.
struct Ticker<'p> {
    tell: &'p mut dyn FnMut(Progress),
    done: HashMap<Step, u64>,
    last: Option<Step>,
}

impl Ticker<'_> {
    fn tick(&mut self, step: Step) {
        let done = self.done.entry(step).or_insert(0);
        *done += 1;
        if self.last != Some(step) || done.is_multiple_of(PROGRESS_ROWS) {
            self.last = Some(step);
            (self.tell)(Progress { step, done: *done });
        }
    }
}

/// Checks a store that nobody is writing to (a stopped one, or a snapshot of it and its pools
/// at rest). `pools` are those whose objects can be looked at; the objects of others are not checked,
/// which the report says.
///
/// Whatever is wrong with the store's content is in the report. Fails only if the store or a pool
/// cannot be read at all: with the kind of that failure.
pub async fn check(
    meta: &dyn MetaReader,
    pools: &[(PoolNumber, Rc<dyn ObjectStore>)],
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report> {
    check_within(meta, pools, options, progress, MEMORY_LIMIT).await
}

async fn check_within(
    meta: &dyn MetaReader,
    pools: &[(PoolNumber, Rc<dyn ObjectStore>)],
    options: Options,
    progress: &mut dyn FnMut(Progress),
    limit: u64,
) -> Result<Report> {
    let mut ticker = Ticker {
        tell: progress,
        done: HashMap::new(),
        last: None,
    };
    let mut log = Log::default();
    ticker.tick(Step::Catalogue);
    let mut catalogue = Catalogue::load(meta, &mut log).await?;
    if !catalogue.check_format(&mut log) {
        return Ok(log.report);
    }
    compare_pools(&mut catalogue, pools, &mut log).await?;
    relations::check(&mut catalogue, &mut log);
    let mut check = Check {
        meta,
        pools,
        options,
        limit,
        catalogue,
        log,
        ticker,
    };
    check.names().await?;
    Ok(check.log.report)
}

/// The pools as they are against the catalogue; takes their marks.
async fn compare_pools(
    catalogue: &mut Catalogue,
    pools: &[(PoolNumber, Rc<dyn ObjectStore>)],
    log: &mut Log,
) -> Result<()> {
    for (number, store) in pools {
        let number = number.get();
        let (object, place) = (
            u64::from(store.properties().object_size.bytes()),
            Key::Pool(number),
        );
        match catalogue.object_size(number) {
            Some(known) if known != object => log.find(FindingKind::PoolMismatch, place, || {
                format!("its objects have {object} bytes, and {known} in the catalogue")
            }),
            None if !catalogue.is_damaged(&Key::pool_row(number)) => {
                log.find(FindingKind::PoolMissing, place, || {
                    "the catalogue does not have this pool".into()
                });
            }
            _ => {}
        }
        // After a crash one of both marks may be the higher one.
        catalogue
            .own_marks
            .insert(number, store.reserved_generations().await?.get());
    }
    for number in catalogue.pools.keys() {
        if !pools.iter().any(|(pool, _)| pool.get() == *number) {
            log.find(FindingKind::NotChecked, Key::Pool(*number), || {
                "the pool is not open: whether it has its objects was not checked".into()
            });
        }
    }
    Ok(())
}

struct Check<'a, 't> {
    meta: &'a dyn MetaReader,
    pools: &'a [(PoolNumber, Rc<dyn ObjectStore>)],
    options: Options,
    limit: u64,
    catalogue: Catalogue,
    log: Log,
    ticker: Ticker<'t>,
}

impl<'t> Check<'_, 't> {
    /// Everything that names objects or refs, window by window.
    async fn names(&mut self) -> Result<()> {
        let mut carried = Carried::default();
        let first = Sink {
            objects: Some(Window::new(0, self.limit)),
            refs: Some(RefWindow::new((0, 0), self.limit)),
        };
        let mut sink = self.first_walk(first).await?;
        let refs = sink.refs.take();
        while let Some(window) = sink.objects.take() {
            if let Some(from) = self.objects(window, &mut carried).await? {
                let objects = Some(Window::new(from, self.limit));
                sink = self
                    .walk_again(Sink {
                        objects,
                        refs: None,
                    })
                    .await?;
            }
        }
        sink.refs = refs;
        while let Some(window) = sink.refs.take() {
            if let Some(from) = self.refs(window).await? {
                let refs = Some(RefWindow::new(from, self.limit));
                sink = self
                    .walk_again(Sink {
                        objects: None,
                        refs,
                    })
                    .await?;
            }
        }
        self.ref_check().other_tables().await?;
        self.summary(&carried);
        Ok(())
    }

    async fn first_walk(&mut self, sink: Sink) -> Result<Sink> {
        let (sink, counts) = self.walk(sink).await?;
        let mut check = UsageCheck {
            meta: self.meta,
            catalogue: &self.catalogue,
            log: &mut self.log,
            ticker: &mut self.ticker,
            counts: &counts,
        };
        check.run().await?;
        Ok(sink)
    }

    async fn walk(&mut self, sink: Sink) -> Result<(Sink, Counts)> {
        let (meta, catalogue) = (self.meta, &self.catalogue);
        let (log, ticker) = (&mut self.log, &mut self.ticker);
        let mut walk = Walk {
            meta,
            catalogue,
            log,
            ticker,
            sink,
            counts: Counts::new(),
            dropped: Ranges::default(),
        };
        walk.run().await?;
        Ok((walk.sink, walk.counts))
    }

    async fn walk_again(&mut self, sink: Sink) -> Result<Sink> {
        self.log.repeats = true;
        let walked = self.walk(sink).await;
        self.log.repeats = false;
        Ok(walked?.0)
    }

    async fn objects(&mut self, window: Window, carried: &mut Carried) -> Result<Option<u128>> {
        let currents = Current::of_heads(&self.catalogue);
        let mut check = ObjectCheck {
            meta: self.meta,
            pools: self.pools,
            deep: self.options.deep,
            log: &mut self.log,
            ticker: &mut self.ticker,
            carried,
            catalogue: &self.catalogue,
            currents: &currents,
        };
        check.window(window).await
    }

    async fn refs(&mut self, window: RefWindow) -> Result<Option<RefKey>> {
        let next = window.next();
        self.ref_check().window(window).await?;
        Ok(next)
    }

    fn ref_check(&mut self) -> RefCheck<'_, 't> {
        RefCheck {
            meta: self.meta,
            catalogue: &self.catalogue,
            log: &mut self.log,
            ticker: &mut self.ticker,
        }
    }

    fn summary(&mut self, carried: &Carried) {
        let log = &mut self.log;
        if log.names_lost {
            log.find(FindingKind::NotChecked, "maps", || {
                "rows that name objects cannot be read: which objects and partial records are left over, how often refs are named and what nodes hold was not checked".into()
            });
        }
        for (
            pool,
            Tally {
                count,
                bytes,
                first,
            },
        ) in &carried.leaked
        {
            if log.names_lost {
                break;
            }
            log.report.totals.leaked += count;
            log.report.totals.leaked_bytes += bytes;
            log.find(FindingKind::Leaked, Key::Pool(*pool), || {
                format!("{count} objects of {bytes} bytes that nothing names{}: made before a crash and never committed, unless a volume that named them is missing", of(first))
            });
        }
        for (pool, Tally { count, first, .. }) in &carried.pending {
            log.report.totals.pending += count;
            log.find(FindingKind::Pending, Key::Pool(*pool), || {
                format!("{count} objects wait to be deleted{}", of(first))
            });
        }
    }
}

fn of(first: &Option<atoll_backends::ObjectId>) -> String {
    first.map_or(String::new(), |id| format!(", {id} the first of them"))
}

//! The runs of a window against each other, against table 50 and against what the pools list.

use super::catalogue::Catalogue;
use super::keys::{Key, table};
use super::names::{Name, Role, Run, Window};
use super::report::{FindingKind, Log};
use super::rows::{Node, State};
use super::scan::Rows;
use super::{Step, Ticker};
use crate::error::Result;
use crate::meta::MetaReader;
use crate::types::PoolNumber;
use atoll_backends::{BlockRange, ErrorKind, ObjectId, ObjectStore, ReadHint};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Objects listed at a time.
const LIST_OBJECTS: usize = 1024;
/// Blocks read at a time by a deep check.
const READ_BLOCKS: u32 = 256;

/// Objects that were listed and are no map's.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) first: Option<ObjectId>,
}

/// A head that creates objects in a generation.
#[derive(Clone, Copy)]
pub(super) struct Current {
    node: u64,
    /// The next start goes on with it.
    goes_on: bool,
}

impl Current {
    /// By pool and generation.
    pub(super) fn of_heads(catalogue: &Catalogue) -> HashMap<(u32, u64), Current> {
        let clean = catalogue.run.filter(|run| run.clean);
        let heads = catalogue
            .nodes
            .iter()
            .filter(|(_, node)| node.state == State::Head && node.current != 0);
        let current = |(number, node): (&u64, &Node)| {
            let goes_on = clean.is_some_and(|run| node.run >= run.unclean);
            let current = Current {
                node: *number,
                goes_on,
            };
            ((node.pool, node.current), current)
        };
        heads.map(current).collect()
    }
}

/// What is carried from window to window.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) leaked: BTreeMap<u32, Tally>,
    pub(super) pending: BTreeMap<u32, Tally>,
    /// The head that used the last own generation: (pool, generation, node).
    last_own: Option<(u32, u64, u64)>,
}

pub(super) struct ObjectCheck<'a, 't> {
    pub(super) meta: &'a dyn MetaReader,
    pub(super) pools: &'a [(PoolNumber, Rc<dyn ObjectStore>)],
    pub(super) deep: bool,
    pub(super) log: &'a mut Log,
    pub(super) ticker: &'a mut Ticker<'t>,
    pub(super) carried: &'a mut Carried,
    pub(super) catalogue: &'a Catalogue,
    /// Heads by pool and current generation.
    pub(super) currents: &'a HashMap<(u32, u64), Current>,
}

/// Names from `start` to `end`; in order and apart from each other in a list of them.
#[derive(Clone, Copy)]
struct Interval {
    start: u128,
    end: u128,
    /// Objects in the intervals before it.
    before: u64,
}

impl Interval {
    /// The number of one of its names among all of the list.
    fn number(&self, name: u128) -> u64 {
        self.before
            .saturating_add(u64::try_from(name - self.start).unwrap_or(u64::MAX))
    }
}

struct Intervals {
    list: Vec<Interval>,
    objects: u64,
}

impl Intervals {
    /// Of these runs, sorted by their starts.
    fn of<'r>(runs: impl Iterator<Item = &'r Run>) -> Intervals {
        let mut list: Vec<Interval> = Vec::new();
        for run in runs {
            match list.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end()),
                _ => list.push(Interval {
                    start: run.start,
                    end: run.end(),
                    before: 0,
                }),
            }
        }
        let mut objects = 0;
        for interval in &mut list {
            interval.before = objects;
            let count = u64::try_from(interval.end - interval.start).unwrap_or(u64::MAX);
            objects = objects.saturating_add(count);
        }
        Intervals { list, objects }
    }

    /// The number of this name among all of them.
    fn number(&self, name: u128) -> Option<u64> {
        let after = self.list.partition_point(|interval| interval.start <= name);
        let interval = self.list[..after]
            .last()
            .filter(|interval| name < interval.end)?;
        Some(interval.number(name))
    }
}

/// What lies below is [`Role::DyingBelow`] where a run says so, else [`Role::Below`]: one run for each
/// record that names it.
fn resolved(runs: Vec<Run>) -> Vec<Run> {
    let dying = Intervals::of(runs.iter().filter(|run| run.role == Role::DyingBelow)).list;
    if dying.is_empty() {
        return runs;
    }
    let mut resolved = Vec::new();
    for run in runs {
        match run.role {
            Role::DyingBelow => {}
            Role::Below => {
                let first = dying.partition_point(|interval| interval.end <= run.start);
                let mut at = run.start;
                for interval in dying[first..]
                    .iter()
                    .take_while(|interval| interval.start < run.end())
                {
                    resolved.extend(run.clip(at, interval.start));
                    let part = run.clip(interval.start, interval.end);
                    let role = Role::DyingBelow;
                    resolved.extend(part.map(|part| Run { role, ..part }));
                    at = interval.end;
                }
                resolved.extend(run.clip(at, Name::END));
            }
            _ => resolved.push(run),
        }
    }
    resolved.sort_unstable_by_key(Run::order);
    resolved
}

/// One bit per object.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Bits {
        Bits(vec![0; count.div_ceil(64) as usize])
    }

    fn set(&mut self, bit: u64) {
        self.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    fn get(&self, bit: u64) -> bool {
        self.0[(bit / 64) as usize] & 1 << (bit % 64) != 0
    }
}

impl ObjectCheck<'_, '_> {
    /// Where the next pass begins, if one is needed.
    pub(super) async fn window(&mut self, window: Window) -> Result<Option<u128>> {
        let (from, to) = (window.from(), window.to());
        let runs = resolved(window.into_sorted());
        self.overlaps(&runs);
        self.generations(&runs);
        self.records(&runs, from, to).await?;
        self.listing(&runs, from, to).await?;
        Ok((to < Name::END).then_some(to))
    }

    /// Objects that are named more often than they may be.
    fn overlaps(&mut self, runs: &[Run]) {
        // The run of each sort that reaches farthest so far.
        let (mut named, mut live, mut dead) = (None, None, None);
        for run in runs {
            let clash = |other: Option<Run>| other.filter(|other| run.start < other.end());
            if run.role.is_exclusive()
                && let Some(other) = clash(named)
            {
                self.clash(
                    FindingKind::ObjectShared,
                    run,
                    &other,
                    "what is done to it through one is seen through the other",
                );
            }
            if run.role == Role::Dead {
                if let Some(other) = clash(live) {
                    self.clash(
                        FindingKind::DeadNamed,
                        run,
                        &other,
                        "what is still needed is being deleted",
                    );
                }
                if let Some(other) = clash(dead) {
                    self.clash(
                        FindingKind::DeadTwice,
                        run,
                        &other,
                        "it would be deleted twice",
                    );
                }
            } else if !run.role.is_dying()
                && let Some(other) = clash(dead)
            {
                self.clash(
                    FindingKind::DeadNamed,
                    run,
                    &other,
                    "what is still needed is being deleted",
                );
            }
            let sorts = match run.role {
                Role::Dead => [Some(&mut dead), None],
                Role::Dying | Role::DyingBelow => [Some(&mut named), None],
                Role::Entry | Role::Trimmed | Role::Counted | Role::Below => {
                    [Some(&mut named), Some(&mut live)]
                }
            };
            for farthest in sorts.into_iter().flatten() {
                if farthest.is_none_or(|other| other.end() < run.end()) {
                    *farthest = Some(*run);
                }
            }
        }
    }

    fn clash(&mut self, kind: FindingKind, run: &Run, other: &Run, meaning: &str) {
        let count = run.end().min(other.end()) - run.start;
        self.log.find(kind, run.first(), || {
            format!(
                "{other} and {run} both name it, and {} more from it on: {meaning}",
                count - 1
            )
        });
    }

    /// Generations in which a head creates objects, and that others have objects of.
    fn generations(&mut self, runs: &[Run]) {
        for run in runs {
            let (pool, generation) = (run.first().pool(), run.first().generation());
            let current = self.currents.get(&(pool, generation));
            let current = current.filter(|current| !run.is_in_map_of(current.node));
            if run.own {
                let last = self
                    .carried
                    .last_own
                    .filter(|last| (last.0, last.1) == (pool, generation));
                let other = last
                    .map(|last| last.2)
                    .or(current.map(|current| current.node))
                    .filter(|other| *other != run.by);
                if let Some(other) = other {
                    self.log.find(FindingKind::GenerationShared, run.first(), || {
                        format!("nodes {other} and {} are heads and both create objects in this generation", run.by)
                    });
                }
                self.carried.last_own = Some((pool, generation, run.by));
            } else if let Some(Current { node, .. }) = current.filter(|current| current.goes_on) {
                self.log.find(FindingKind::GenerationShared, run.first(), || {
                    format!("{run} has it, and node {node} goes on creating objects in this generation: the name could be used twice")
                });
            }
        }
    }

    /// Partial records against the entries' flags.
    async fn records(&mut self, runs: &[Run], from: u128, to: u128) -> Result<()> {
        let entries: Vec<&Run> = runs.iter().filter(|run| run.role.is_entry()).collect();
        let others: Vec<&Run> = runs
            .iter()
            .filter(|run| run.role == Role::Counted || run.role.is_below())
            .collect();
        let others = Intervals::of(others.into_iter());
        // Records found of each run of partial entries, and the first one that was not.
        let mut found = vec![0_u64; entries.len()];
        let key = |raw: u128| match raw {
            Name::END => vec![table::PARTIAL + 1],
            _ => Key::object_row(table::PARTIAL, Name::at(raw)),
        };
        let mut rows = Rows::range(key(from), key(to));
        while let Some((key, _)) = rows.next(self.meta, self.log).await? {
            self.ticker.tick(Step::Partials);
            let Ok(Key::Partial(name)) = Key::parse(&key) else {
                continue;
            };
            let after = entries.partition_point(|run| run.start <= name.raw());
            match after.checked_sub(1).filter(|at| entries[*at].holds(name.raw())) {
                Some(at) if entries[at].partial => found[at] += 1,
                Some(at) => self.log.find(FindingKind::PartialFlag, Key::Partial(name), || {
                    format!("the entry of {} says that the object is complete: blocks that are not valid would be read", entries[at])
                }),
                None if others.number(name.raw()).is_some() || self.log.names_lost => {}
                None => self.log.find(FindingKind::PartialOrphan, Key::Partial(name), || {
                    "no map names the object: the record should have gone with it".into()
                }),
            }
        }
        for (run, found) in entries.iter().zip(found) {
            if run.partial && found < run.count {
                self.log.find(FindingKind::PartialMissing, run.first(), || {
                    format!("{run} says that this object and {} more are partial, and {} of them have no record: it is unknown what is valid", run.count - 1, run.count - found)
                });
            }
        }
        Ok(())
    }

    /// What the pools list against what is named.
    async fn listing(&mut self, runs: &[Run], from: u128, to: u128) -> Result<()> {
        let live = Intervals::of(runs.iter().filter(|run| self.is_needed(run)));
        let going = Intervals::of(runs.iter().filter(|run| !run.role.must_exist()));
        let mut listed = Bits::new(live.objects);
        for (pool, store) in self.pools {
            let mut cursor = None;
            loop {
                let page = store.list(cursor, LIST_OBJECTS).await?;
                self.ticker.tick(Step::Listing);
                for id in page.objects {
                    let name = Name::new(pool.get(), id.generation.get(), id.index.get());
                    let Some(name) = name.filter(|name| from <= name.raw() && name.raw() < to)
                    else {
                        continue;
                    };
                    self.log.report.totals.listed += 1;
                    match live.number(name.raw()) {
                        Some(number) => listed.set(number),
                        None if going.number(name.raw()).is_some() => {
                            tally(&mut self.carried.pending, name, id, 0);
                        }
                        None => self.unnamed(&**store, name, id).await?,
                    }
                }
                let Some(next) = page.next else { break };
                cursor = Some(next);
            }
        }
        self.missing(runs, &live, &listed).await?;
        if self.deep {
            self.read_all(&live, &listed).await?;
        }
        Ok(())
    }

    /// The object must be in its pool, and that can be looked up.
    fn is_needed(&self, run: &Run) -> bool {
        run.role.must_exist() && self.store(run.first().pool()).is_some()
    }

    fn store(&self, pool: u32) -> Option<&Rc<dyn ObjectStore>> {
        self.pools
            .iter()
            .find(|(number, _)| number.get() == pool)
            .map(|(_, store)| store)
    }

    async fn unnamed(&mut self, store: &dyn ObjectStore, name: Name, id: ObjectId) -> Result<()> {
        let bytes = match store.stat(id).await {
            Ok(stat) => stat.allocated,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        tally(&mut self.carried.leaked, name, id, bytes);
        let mark = self.catalogue.highest_mark(name.pool());
        if name.generation() >= mark {
            self.log.find(FindingKind::AboveMark, name, || {
                format!("the pool has this object, and the mark is {mark:013x}: the name would be used a second time")
            });
        }
        Ok(())
    }

    async fn missing(&mut self, runs: &[Run], live: &Intervals, listed: &Bits) -> Result<()> {
        for interval in &live.list {
            for name in interval.start..interval.end {
                if listed.get(interval.number(name)) {
                    continue;
                }
                let name = Name::at(name);
                // Looked up once more, as long as it is shown.
                if self.log.has_room(FindingKind::ObjectMissing) && self.is_there(name).await? {
                    continue;
                }
                self.log.find(FindingKind::ObjectMissing, name, || {
                    let by = runs
                        .iter()
                        .find(|run| run.role.must_exist() && run.holds(name.raw()));
                    let by = by.map_or("the map".into(), ToString::to_string);
                    format!("{by} names it and the pool does not have it: its data is lost")
                });
            }
        }
        Ok(())
    }

    async fn is_there(&self, name: Name) -> Result<bool> {
        let (Some(store), Some(id)) = (self.store(name.pool()), name.object()) else {
            return Ok(true);
        };
        match store.stat(id).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_all(&mut self, live: &Intervals, listed: &Bits) -> Result<()> {
        for interval in &live.list {
            for name in interval.start..interval.end {
                if listed.get(interval.number(name)) {
                    self.read(Name::at(name)).await;
                }
            }
        }
        Ok(())
    }

    async fn read(&mut self, name: Name) {
        let (Some(store), Some(id)) = (self.store(name.pool()).cloned(), name.object()) else {
            return;
        };
        self.ticker.tick(Step::Reading);
        self.log.report.totals.read += 1;
        let blocks = store.properties().object_size.blocks();
        let hint = ReadHint {
            immutable: false,
            scan: true,
        };
        for first in (0..blocks).step_by(READ_BLOCKS as usize) {
            let range = BlockRange::new(first, READ_BLOCKS.min(blocks - first));
            if let Err(error) = store.read(id, range, hint).await {
                self.log.find(FindingKind::ObjectUnreadable, name, || {
                    format!("reading from its block {first} on failed: {error}")
                });
                return;
            }
        }
    }
}

fn tally(tallies: &mut BTreeMap<u32, Tally>, name: Name, id: ObjectId, bytes: u64) {
    let tally = tallies.entry(name.pool()).or_default();
    tally.count += 1;
    tally.bytes += bytes;
    tally.first = Some(tally.first.map_or(id, |first| first.min(id)));
}

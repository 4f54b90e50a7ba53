//! The catalogue in memory: every table but maps, objects and counts. Loading it finds rows that
//! cannot be read; `relations` checks what the others say together.

use super::keys::{self, Counter, Key, Protocol, Uuid, table};
use super::report::{FindingKind, Log};
use super::rows::{self, FORMAT_VERSION, Node, Pool, Resource, RunState};
use super::scan::{Rows, key_of, open};
use crate::error::Result;
use crate::meta::{MetaReader, Pair};
use hashbrown::HashSet;
use std::collections::{BTreeMap, BTreeSet};

/// Takes memory for every pool, resource and node, none for entries and objects.
#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) format: Option<u32>,
    pub(super) run: Option<RunState>,
    pub(super) counters: BTreeMap<Counter, u64>,
    pub(super) pools: BTreeMap<u32, Pool>,
    pub(super) marks: BTreeMap<u32, u64>,
    /// What the pools say themselves, as far as they are open.
    pub(super) own_marks: BTreeMap<u32, u64>,
    /// Pools that have store records.
    pub(super) recorded: BTreeSet<u32>,
    pub(super) resources: BTreeMap<Uuid, Resource>,
    pub(super) names: BTreeMap<String, Uuid>,
    pub(super) exports: Vec<(Uuid, Protocol)>,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// (parent, child)
    pub(super) children: BTreeSet<(u64, u64)>,
    /// The resource of each node.
    pub(super) owners: BTreeMap<u64, Uuid>,
    /// Keys of rows that are there and cannot be read.
    damaged: HashSet<Vec<u8>>,
}

impl Catalogue {
    pub(super) async fn load(meta: &dyn MetaReader, log: &mut Log) -> Result<Catalogue> {
        let mut catalogue = Catalogue::default();
        for number in table::CATALOGUE {
            let mut rows = Rows::tables(number, number);
            while let Some(pair) = rows.next(meta, log).await? {
                log.row(number);
                catalogue.take(pair, log);
            }
        }
        for (first, last) in unknown_tables() {
            let mut rows = Rows::tables(first, last);
            while let Some((key, _)) = rows.next(meta, log).await? {
                log.row(key.first().copied().unwrap_or(0));
                log.find(FindingKind::UnknownTable, keys::describe(&key), || {
                    "the format has no such table: the row is of a later version or no row of Atoll's".into()
                });
            }
        }
        let totals = &mut log.report.totals;
        totals.pools = catalogue.pools.len() as u64;
        totals.resources = catalogue.resources.len() as u64;
        totals.nodes = catalogue.nodes.len() as u64;
        Ok(catalogue)
    }

    /// True if there is such a row, in whatever state: it cannot be said to be missing.
    pub(super) fn is_damaged(&self, key: &[u8]) -> bool {
        self.damaged.contains(key)
    }

    pub(super) fn any_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    fn take(&mut self, (bytes, value): Pair, log: &mut Log) {
        let known = match key_of(log, &bytes) {
            Some(key) => self.take_row(key, &bytes, &value, log).is_some(),
            None => false,
        };
        if !known {
            log.names_lost |= bytes.first() == Some(&table::NODE);
            self.damaged.insert(bytes);
        }
    }

    /// `None`, and a finding is logged, if the row cannot be read.
    fn take_row(&mut self, key: Key, bytes: &[u8], value: &[u8], log: &mut Log) -> Option<()> {
        match key {
            Key::Superblock => self.format = Some(open(log, bytes, value, rows::superblock)?),
            Key::RunState => self.run = Some(open(log, bytes, value, rows::run_state)?),
            Key::Counter(counter) => {
                self.counters
                    .insert(counter, open(log, bytes, value, rows::counter)?);
            }
            Key::Pool(number) => {
                self.pools
                    .insert(number, open(log, bytes, value, rows::pool_body)?);
            }
            Key::Mark(pool) => {
                self.marks
                    .insert(pool, open(log, bytes, value, rows::mark)?);
            }
            Key::StoreRecord(pool) => {
                open(log, bytes, value, |_| Ok(()))?;
                self.recorded.insert(pool);
            }
            Key::Resource(id) => {
                self.resources
                    .insert(id, open(log, bytes, value, rows::resource)?);
            }
            Key::Name(name) => {
                self.names
                    .insert(name, open(log, bytes, value, rows::name_body)?);
            }
            Key::Export(id, protocol) => {
                open(log, bytes, value, rows::export)?;
                self.exports.push((id, protocol));
            }
            Key::Node(node) => {
                self.nodes
                    .insert(node, open(log, bytes, value, rows::node_body)?);
            }
            Key::Child { parent, child } => {
                // The key says it all; a damaged body changes nothing.
                self.children.insert((parent, child));
                open(log, bytes, value, rows::child)?;
            }
            // Not in a table of the catalogue.
            _ => return None,
        }
        Some(())
    }

    /// False if the store is of another format, which is then a finding.
    pub(super) fn check_format(&self, log: &mut Log) -> bool {
        match self.format {
            Some(FORMAT_VERSION) => true,
            Some(format) => {
                log.find(FindingKind::FormatVersion, Key::Superblock, || {
                    format!("the store has format {format}; this program reads format {FORMAT_VERSION}, and checked nothing more")
                });
                false
            }
            None => {
                if !self.is_damaged(&[0x01]) {
                    log.find(FindingKind::SuperblockMissing, Key::Superblock, || {
                        "there is none: this is no metadata store of Atoll's, or its first row is lost".into()
                    });
                }
                true
            }
        }
    }

    /// Object size in bytes, if the pool is known.
    pub(super) fn object_size(&self, pool: u32) -> Option<u64> {
        self.pools.get(&pool).map(Pool::object_size)
    }

    /// Every generation that is used is below it: the lower of the catalogue's mark and the pool's,
    /// since both are raised before. 0 if none was ever taken.
    pub(super) fn mark(&self, pool: u32) -> u64 {
        let key = [&[table::MARK][..], &pool.to_be_bytes()].concat();
        let unknown = if self.is_damaged(&key) { u64::MAX } else { 0 };
        let mark = self.marks.get(&pool).copied().unwrap_or(unknown);
        self.own_marks.get(&pool).map_or(mark, |own| mark.min(*own))
    }

    /// The next start takes generations from here on.
    pub(super) fn highest_mark(&self, pool: u32) -> u64 {
        let marks = [self.marks.get(&pool), self.own_marks.get(&pool)];
        marks.into_iter().flatten().copied().max().unwrap_or(0)
    }

    /// The resource that the node belongs to.
    pub(super) fn resource_of(&self, node: u64) -> Option<&Resource> {
        self.resources.get(self.owners.get(&node)?)
    }
}

/// The ranges of first bytes that are no table's.
fn unknown_tables() -> Vec<(u8, u8)> {
    let mut known: Vec<u8> = table::CATALOGUE.into_iter().chain(table::MAPS).collect();
    known.sort_unstable();
    let mut ranges = Vec::new();
    let mut next = 0;
    for number in known {
        if next < number {
            ranges.push((next, number - 1));
        }
        next = number + 1;
    }
    ranges.push((next, u8::MAX));
    ranges
}

//! A mark and sweep over a whole store, for tests: what reads can reach, what else may be named when
//! the collector has nothing left to do, and what it has still to delete. Simple before all, and
//! apart from the mapper: it reads with the check's decoders and takes memory for every entry.

use super::catalogue::Catalogue;
use super::keys::{Key, table};
use super::names::Name;
use super::relations;
use super::report::{Log, Severity};
use super::rows::{self, Below, State};
use super::scan::{Rows, key_of, open};
use super::slots::{Entry, Kind, SLOTS, slots};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::MetaReader;
use crate::types::{NodeId, PoolNumber};
use atoll_backends::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: u64 = 4096;

/// The objects of a pool by what becomes of them, as far as they are not replaced: completing one, and merging a node
/// whose child's `inherit_end` is inside of it, copies into an object of the child.
///
/// A node *stays* if a resource names it, or if it is frozen and has two children or more. The
/// collector merges every other frozen node into its only child, and deletes those that are dying.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// Some read of some resource returns a block of it: counted in blocks below the resource's
    /// size, with `inherit_end` and the bits of every object above.
    pub reachable: BTreeSet<ObjectId>,
    /// No read returns a block of it, and it stays all the same, as long as what names it stays:
    /// - a map of a node that stays names it, or will once merges have ended, and it is covered: by
    ///   the bits of objects above it in its chain; or, where its node has no name, by the entries
    ///   and the `inherit_end` of all children;
    /// - or the count of its ref is too high.
    pub covered: BTreeSet<ObjectId>,
    /// Named by an entry, a record or table 60, and neither of both: the collector deletes it.
    pub doomed: BTreeSet<ObjectId>,
    /// Table 70: the first one and how many.
    pub dead: Vec<(ObjectId, u64)>,
    /// Nodes that do not stay, and nodes that are being trimmed.
    pub unfinished: Vec<NodeId>,
}

/// What becomes of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Reachable,
    Covered,
    Doomed,
    Dead,
    /// Nothing names it.
    Leaked,
}

impl Garbage {
    pub fn fate(&self, id: ObjectId) -> Fate {
        let is_dead = |(first, count): &(ObjectId, u64)| {
            let (index, from) = (id.index.get(), first.index.get());
            id.generation == first.generation && index >= from && index - from < *count
        };
        if self.reachable.contains(&id) {
            Fate::Reachable
        } else if self.covered.contains(&id) {
            Fate::Covered
        } else if self.doomed.contains(&id) {
            Fate::Doomed
        } else if self.dead.iter().any(is_dead) {
            Fate::Dead
        } else {
            Fate::Leaked
        }
    }

    /// What is not as a collector leaves it that has run to its end, with all that the pool lists;
    /// empty if all is well: then the pool has exactly what is reachable or covered.
    pub fn left_to_do(&self, listed: &[ObjectId]) -> Vec<String> {
        let nodes = self.unfinished.iter();
        let mut left: Vec<String> = nodes
            .map(|node| format!("node {} is still there or being trimmed", node.get()))
            .collect();
        let named = self.doomed.iter();
        left.extend(named.map(|id| format!("object {id} is still named")));
        let dead = self.dead.iter();
        left.extend(dead.map(|(id, count)| format!("{count} objects from {id} on are still dead")));
        let there: BTreeSet<ObjectId> = listed.iter().copied().collect();
        for id in &there {
            let fate = self.fate(*id);
            if !matches!(fate, Fate::Reachable | Fate::Covered) {
                left.push(format!("object {id} is still there: {fate:?}"));
            }
        }
        for id in self.reachable.union(&self.covered) {
            if !there.contains(id) {
                left.push(format!("object {id} is gone: {:?}", self.fate(*id)));
            }
        }
        left
    }
}

/// Tells the fate of every object of a pool, in a store that a check finds clean: else, as far as it
/// is noticed, `Corrupt`.
pub async fn garbage(meta: &dyn MetaReader, pool: PoolNumber) -> Result<Garbage> {
    let store = Store::load(meta, pool.get()).await?;
    let (mut reachable, mut kept, mut named) = (Names::new(), Names::new(), Names::new());
    for resource in store.catalogue.resources.values() {
        let end = resource.size;
        for index in store
            .indices(resource.node)
            .range(..end.div_ceil(store.object))
        {
            let wanted = store.blocks_below(*index, end);
            store.mark(resource.node, *index, wanted, Grain::Block, &mut reachable)?;
        }
    }
    for node in store.nodes().filter(|node| store.stays(*node)) {
        let end = store.sizes.get(&node).copied().unwrap_or(u64::MAX);
        for index in store.indices(node).range(..end.div_ceil(store.object)) {
            let wanted = store.blocks_below(*index, end);
            store.mark(node, *index, wanted, Grain::Entry, &mut kept)?;
        }
    }
    store.all(&mut named, &mut kept)?;
    let ids = |names: &Names| names.iter().filter_map(|name| name.object()).collect();
    Ok(Garbage {
        covered: ids(&(&kept - &reachable)),
        doomed: ids(&(&(&named - &kept) - &reachable)),
        reachable: ids(&reachable),
        dead: store.dead.clone(),
        unfinished: store.unfinished(),
    })
}

type Names = BTreeSet<Name>;
/// Blocks of an object: true where it is wanted or valid.
type Blocks = Vec<bool>;

/// How closely a walk looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// At what each block is read from, up to the root.
    Block,
    /// At what a node's entry will name once the nodes above were merged into it.
    Entry,
}

struct Store {
    pool: u32,
    /// Bytes of an object.
    object: u64,
    catalogue: Catalogue,
    /// Of the nodes that a resource names, in bytes.
    sizes: BTreeMap<u64, u64>,
    /// Everything but absent, by node and index.
    maps: BTreeMap<u64, BTreeMap<u64, Entry>>,
    records: BTreeMap<Name, (Below, Blocks)>,
    refs: BTreeMap<u64, Name>,
    counts: BTreeMap<u64, i64>,
    dead: Vec<(ObjectId, u64)>,
}

fn corrupt(text: String) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

/// An error that was found makes the store one that cannot be told about.
fn refuse(log: &Log) -> Result<()> {
    let mut findings = log.report.findings.iter();
    match findings.find(|finding| finding.severity == Severity::Error) {
        Some(error) => Err(corrupt(format!("{}: {}", error.place, error.text))),
        None => Ok(()),
    }
}

impl Store {
    async fn load(meta: &dyn MetaReader, pool: u32) -> Result<Store> {
        let mut log = Log::default();
        let mut catalogue = Catalogue::load(meta, &mut log).await?;
        relations::check(&mut catalogue, &mut log);
        refuse(&log)?;
        let object = catalogue
            .object_size(pool)
            .ok_or_else(|| corrupt(format!("there is no pool {pool}")))?;
        catalogue.resources.retain(|_, row| row.pool == pool);
        let resources = catalogue.resources.values();
        let mut store = Store {
            pool,
            object,
            sizes: resources.map(|row| (row.node, row.size)).collect(),
            catalogue,
            maps: BTreeMap::new(),
            records: BTreeMap::new(),
            refs: BTreeMap::new(),
            counts: BTreeMap::new(),
            dead: Vec::new(),
        };
        for number in table::MAPS {
            let mut rows = Rows::tables(number, number);
            while let Some((key, value)) = rows.next(meta, &mut log).await? {
                if let Some(parsed) = key_of(&mut log, &key) {
                    store.take(parsed, &key, &value, &mut log);
                }
            }
        }
        refuse(&log)?;
        Ok(store)
    }

    fn take(&mut self, parsed: Key, key: &[u8], value: &[u8], log: &mut Log) {
        match parsed {
            Key::Group { node, group } => {
                self.entries(
                    node,
                    u64::from(group) * SLOTS * SLOTS,
                    SLOTS,
                    key,
                    value,
                    log,
                );
            }
            Key::Page { node, page } => {
                self.entries(node, u64::from(page) * SLOTS, 1, key, value, log)
            }
            Key::Partial(name) if name.pool() == self.pool => {
                let record = open(log, key, value, |body| rows::partial(name.pool(), body));
                if let Some(record) = record {
                    let bits = record.bitmap.iter();
                    let bits = bits.flat_map(|byte| (0..8).map(move |bit| byte & 1 << bit != 0));
                    self.records.insert(name, (record.below, bits.collect()));
                }
            }
            Key::Object { pool, id } if pool == self.pool => {
                let row = open(log, key, value, |body| rows::counted(pool, body));
                self.refs.extend(row.map(|row| (id, row.name)));
            }
            Key::Count { pool, id } if pool == self.pool => {
                let count = open(log, key, value, rows::count);
                self.counts.extend(count.map(|count| (id, count)));
            }
            Key::Dead(first) if first.pool() == self.pool => {
                let count = open(log, key, value, |body| rows::dead(first, body));
                self.dead.extend(first.object().zip(count));
            }
            _ => {}
        }
    }

    /// The entries of a page, or of the pages without rows of a group: each slot of a row is `width`
    /// of them.
    fn entries(
        &mut self,
        node: u64,
        first: u64,
        width: u64,
        key: &[u8],
        value: &[u8],
        log: &mut Log,
    ) {
        let of_pool = self.catalogue.nodes.get(&node);
        if of_pool.is_none_or(|row| row.pool != self.pool) {
            return;
        }
        let map = self.maps.entry(node).or_default();
        for run in open(log, key, value, slots).unwrap_or_default() {
            if run.entry.kind == Kind::Row {
                continue;
            }
            let first = first + run.first * width;
            map.extend((first..first + run.count * width).map(|index| (index, run.entry)));
        }
    }

    fn nodes(&self) -> impl Iterator<Item = u64> {
        let of_pool = self.catalogue.nodes.iter();
        let of_pool = of_pool.filter(|(_, row)| row.pool == self.pool);
        of_pool.map(|(number, _)| *number)
    }

    fn stays(&self, node: u64) -> bool {
        let children = (node, 0)..=(node, u64::MAX);
        let is_frozen = self.catalogue.nodes.get(&node).map(|row| row.state) == Some(State::Frozen);
        self.sizes.contains_key(&node)
            || (is_frozen && self.catalogue.children.range(children).count() >= 2)
    }

    fn unfinished(&self) -> Vec<NodeId> {
        let is_trimmed = |node: &u64| {
            self.catalogue
                .nodes
                .get(node)
                .is_some_and(|row| row.trim.is_some())
        };
        let unfinished = self
            .nodes()
            .filter(|node| !self.stays(*node) || is_trimmed(node));
        unfinished.filter_map(NodeId::new).collect()
    }

    /// The parent, and where inheriting from it ends, in bytes.
    fn parent(&self, node: u64) -> Option<(u64, u64)> {
        let row = self.catalogue.nodes.get(&node)?;
        (row.parent != 0).then_some((row.parent, row.inherit_end))
    }

    /// All indices at which the node or an ancestor has an entry.
    fn indices(&self, node: u64) -> BTreeSet<u64> {
        let path = std::iter::successors(Some(node), |node| Some(self.parent(*node)?.0));
        let maps = path.filter_map(|node| self.maps.get(&node));
        maps.flat_map(|map| map.keys().copied()).collect()
    }

    /// What is trimmed is not part of the map.
    fn entry(&self, node: u64, index: u64) -> Option<Entry> {
        let trim = self.catalogue.nodes.get(&node)?.trim;
        let entry = self.maps.get(&node)?.get(&index).copied();
        entry.filter(|_| trim.is_none_or(|trim| index.saturating_mul(self.object) < trim))
    }

    /// The blocks of an object at this index that are below a place of a map, in bytes.
    fn blocks_below(&self, index: u64, end: u64) -> Blocks {
        let first = index.saturating_mul(self.object);
        let places = (0..self.object / BLOCK).map(|block| first.saturating_add(block * BLOCK));
        places.map(|place| place < end).collect()
    }

    fn object_of(&self, entry: Entry, index: u64) -> Result<Name> {
        match entry.kind {
            Kind::Ref => self.object_of_ref(entry.payload),
            _ => Name::new(self.pool, entry.payload, index)
                .ok_or_else(|| corrupt(format!("an index is {index}"))),
        }
    }

    fn object_of_ref(&self, id: u64) -> Result<Name> {
        let name = self.refs.get(&id).copied();
        name.ok_or_else(|| corrupt(format!("ref {id} does not exist")))
    }

    /// Adds every object that the wanted blocks of this index of a node lead to.
    fn mark(
        &self,
        node: u64,
        index: u64,
        mut wanted: Blocks,
        grain: Grain,
        found: &mut Names,
    ) -> Result<()> {
        let mut at = node;
        while wanted.contains(&true) {
            if let Some(entry) = self.entry(at, index) {
                if entry.kind == Kind::Hole {
                    return Ok(());
                }
                let top = self.object_of(entry, index)?;
                if !self.mark_chain(top, &mut wanted, grain, found)? {
                    return Ok(());
                }
            }
            let Some((parent, end)) = self.parent(at) else {
                return Ok(());
            };
            if grain == Grain::Entry && self.stays(parent) {
                return Ok(());
            }
            let inherited = self.blocks_below(index, end);
            wanted
                .iter_mut()
                .zip(inherited)
                .for_each(|(wanted, inherited)| *wanted &= inherited);
            at = parent;
        }
        Ok(())
    }

    /// Adds an object and what its records name. True if blocks are left that are read from an
    /// ancestor.
    fn mark_chain(
        &self,
        top: Name,
        wanted: &mut Blocks,
        grain: Grain,
        found: &mut Names,
    ) -> Result<bool> {
        let (mut name, mut chain) = (top, Names::new());
        while wanted.contains(&true) {
            if !chain.insert(name) {
                return Err(corrupt(format!("{name} lies below itself")));
            }
            let record = self.records.get(&name);
            let is_read = |(block, wanted): (usize, &bool)| {
                *wanted && record.is_none_or(|(_, valid)| valid.get(block) == Some(&true))
            };
            if grain == Grain::Entry || wanted.iter().enumerate().any(is_read) {
                found.insert(name);
            }
            let Some((below, valid)) = record else {
                return Ok(false);
            };
            if grain == Grain::Block {
                wanted
                    .iter_mut()
                    .zip(valid)
                    .for_each(|(wanted, valid)| *wanted &= !valid);
            }
            match below {
                Below::Implicit => return Ok(true),
                Below::Zeros => return Ok(false),
                Below::Object(below) => name = *below,
                Below::Ref(id) => name = self.object_of_ref(*id)?,
            }
        }
        Ok(false)
    }

    /// Everything that is named anyhow; adds to `kept` the objects whose refs count too much.
    fn all(&self, named: &mut Names, kept: &mut Names) -> Result<()> {
        let mut uses: BTreeMap<u64, i64> = BTreeMap::new();
        for (index, entry) in self.maps.values().flatten() {
            if entry.kind == Kind::Hole {
                continue;
            }
            named.insert(self.object_of(*entry, *index)?);
            if entry.kind == Kind::Ref {
                *uses.entry(entry.payload).or_default() += 1;
            }
        }
        for (below, _) in self.records.values() {
            match below {
                Below::Implicit | Below::Zeros => {}
                Below::Object(name) => {
                    named.insert(*name);
                }
                Below::Ref(id) => *uses.entry(*id).or_default() += 1,
            }
        }
        for (id, name) in &self.refs {
            named.insert(*name);
            let count = self.counts.get(id).copied().unwrap_or(0);
            if count > uses.get(id).copied().unwrap_or(0) {
                kept.insert(*name);
            }
        }
        Ok(())
    }
}

//! One walk over everything that names objects: groups and pages side by side, partial records,
//! counted objects, dead ranges. The first walk checks the rows too; a later one only collects the
//! names of another window.

use super::catalogue::Catalogue;
use super::keys::{Key, table};
use super::names::{Name, Role, Run, Window};
use super::partials::Ranges;
use super::refs::{RefWindow, Uses};
use super::relations::missing_pool;
use super::report::{FindingKind, Log};
use super::rows::{self, State};
use super::scan::{Rows, key_of, open};
use super::slots::{Entry, Kind, SLOTS, SlotRun, slots};
use super::usage::Counts;
use super::{Step, Ticker};
use crate::error::Result;
use crate::meta::MetaReader;

/// Where a walk puts the names that it finds.
pub(super) struct Sink {
    pub(super) objects: Option<Window>,
    pub(super) refs: Option<RefWindow>,
}

pub(super) struct Walk<'a, 't> {
    pub(super) meta: &'a dyn MetaReader,
    pub(super) catalogue: &'a Catalogue,
    pub(super) log: &'a mut Log,
    pub(super) ticker: &'a mut Ticker<'t>,
    pub(super) sink: Sink,
    /// What nodes hold; of the first walk.
    pub(super) counts: Counts,
    /// Partial objects that are being dropped, of dying nodes and beyond a trim.
    pub(super) dropped: Ranges,
}

/// What a map's entries are checked against.
#[derive(Clone, Copy)]
struct Map {
    node: u64,
    pool: u32,
    role: Role,
    head: bool,
    cut: u64,
    mark: u64,
    /// Entries of the resource, if it is known.
    end: Option<u64>,
    /// Entries from here on are being dropped.
    trim: Option<u64>,
}

/// A place in tables 40 and 41.
type Place = (u64, u32);

impl Walk<'_, '_> {
    pub(super) async fn run(&mut self) -> Result<()> {
        self.maps().await?;
        self.dropped.sort();
        self.partials().await?;
        self.counted().await?;
        self.dead().await
    }

    async fn maps(&mut self) -> Result<()> {
        let mut groups = Rows::tables(table::GROUP, table::GROUP);
        let mut pages = Rows::tables(table::PAGE, table::PAGE);
        loop {
            let group = self.place_of_next(&mut groups).await?;
            let page = self.place_of_next(&mut pages).await?;
            let Some(place) = [group, page].into_iter().flatten().min() else {
                return Ok(());
            };
            let map = self.map(place.0);
            let expected = match group == Some(place) {
                true => self.group(&mut groups, place, map).await?,
                false => Some([false; SLOTS as usize]),
            };
            self.pages(&mut pages, place, map, expected).await?;
        }
    }

    /// The node and group that the next row belongs to; rows with bad keys are passed over.
    async fn place_of_next(&mut self, rows: &mut Rows) -> Result<Option<Place>> {
        loop {
            let Some((key, _)) = rows.peek(self.meta, self.log).await? else {
                return Ok(None);
            };
            let key = key.clone();
            match key_of(self.log, &key) {
                Some(Key::Group { node, group }) => return Ok(Some((node, group))),
                Some(Key::Page { node, page }) => return Ok(Some((node, page / SLOTS as u32))),
                _ => {
                    self.log.names_lost = true;
                    self.log.row(key.first().copied().unwrap_or(0));
                    rows.next(self.meta, self.log).await?;
                }
            }
        }
    }

    /// `None` if the node is not known.
    fn map(&self, number: u64) -> Option<Map> {
        let catalogue = self.catalogue;
        let node = catalogue.nodes.get(&number)?;
        let object = catalogue.object_size(node.pool);
        let entries = |bytes: u64| object.map(|object| bytes.div_ceil(object));
        let resource = catalogue.resource_of(number);
        Some(Map {
            node: number,
            pool: node.pool,
            role: if node.state == State::Dying {
                Role::Dying
            } else {
                Role::Entry
            },
            head: node.state == State::Head,
            cut: node.cut,
            mark: catalogue.mark(node.pool),
            end: resource.and_then(|resource| entries(resource.size)),
            trim: node.trim.and_then(entries),
        })
    }

    /// Reads a group's row. Which of its pages have rows; `None` if that cannot be known.
    async fn group(
        &mut self,
        rows: &mut Rows,
        (node, group): Place,
        map: Option<Map>,
    ) -> Result<Option<[bool; SLOTS as usize]>> {
        let Some((key, value)) = rows.next(self.meta, self.log).await? else {
            return Ok(None);
        };
        self.log.row(table::GROUP);
        self.ticker.tick(Step::Maps);
        let Some(runs) = open(self.log, &key, &value, slots) else {
            self.log.names_lost = true;
            return Ok(None);
        };
        let place = Key::Group { node, group };
        let Some(map) = self.known(map, node, &place) else {
            return Ok(None);
        };
        let mut expected = [false; SLOTS as usize];
        for run in runs {
            if run.entry.kind == Kind::Row {
                expected[run.first as usize..][..run.count as usize].fill(true);
                continue;
            }
            let first = (u64::from(group) * SLOTS + run.first) * SLOTS;
            self.entries(map, &place, first, run.count * SLOTS, run.entry);
        }
        Ok(Some(expected))
    }

    /// The map of an existing node; a finding if there is no such node.
    fn known(&mut self, map: Option<Map>, node: u64, place: &Key) -> Option<Map> {
        if map.is_none() {
            self.log.names_lost = true;
            if !self.catalogue.is_damaged(&Key::node_row(node)) {
                self.log.find(FindingKind::NodeMissing, place, || {
                    "its node does not exist: its objects are lost space".into()
                });
            }
        }
        map
    }

    /// Reads the rows of the pages of one group.
    async fn pages(
        &mut self,
        rows: &mut Rows,
        place: Place,
        map: Option<Map>,
        expected: Option<[bool; SLOTS as usize]>,
    ) -> Result<()> {
        let mut missing = expected;
        while self.place_of_next(rows).await? == Some(place) {
            let Some((key, value)) = rows.next(self.meta, self.log).await? else {
                break;
            };
            self.log.row(table::PAGE);
            self.ticker.tick(Step::Maps);
            let Ok(Key::Page { node, page }) = Key::parse(&key) else {
                continue;
            };
            let slot = (u64::from(page) % SLOTS) as usize;
            let place = Key::Page { node, page };
            if let Some(missing) = &mut missing {
                missing[slot] = false;
            }
            if map.is_some() && expected.is_some_and(|expected| !expected[slot]) {
                self.log.find(FindingKind::PageTable, &place, || {
                    "its group does not say that the page has a row: what the row says is not seen".into()
                });
            }
            self.page(&key, &value, &place, map);
        }
        let Some(map) = map else { return Ok(()) };
        // A dying node's page goes before its group's slot.
        let missing = missing.filter(|_| map.role != Role::Dying);
        for slot in missing
            .iter()
            .flat_map(|missing| (0..SLOTS).filter(|slot| missing[*slot as usize]))
        {
            let page = place.1 * SLOTS as u32 + slot as u32;
            self.log.find(FindingKind::PageTable, Key::Page { node: place.0, page }, || {
                "its group says that the page has a row, and there is none: its data cannot be found".into()
            });
        }
        Ok(())
    }

    fn page(&mut self, key: &[u8], value: &[u8], place: &Key, map: Option<Map>) {
        let Some(runs) = open(self.log, key, value, slots) else {
            self.log.names_lost = true;
            return;
        };
        let Key::Page { node, page } = *place else {
            return;
        };
        let Some(map) = self.known(map, node, place) else {
            return;
        };
        for SlotRun {
            first,
            count,
            entry,
        } in runs
        {
            if entry.kind == Kind::Row {
                self.log.find(FindingKind::EntryKind, place, || {
                    format!("slot {first} says that a page has a row; that is for groups only")
                });
                continue;
            }
            self.entries(map, place, u64::from(page) * SLOTS + first, count, entry);
        }
    }

    /// Entries `first` to `first + count` of a map are all this one.
    fn entries(&mut self, map: Map, place: &Key, first: u64, count: u64, entry: Entry) {
        let end = first + count;
        let trim = map.trim.unwrap_or(u64::MAX);
        if let Some(size) = map.end.filter(|size| first.max(*size) < end.min(trim)) {
            let beyond = first.max(size);
            self.log.find(FindingKind::EntryBeyondEnd, place, || {
                format!("entry {beyond} is there, and the resource has {size}: growing would bring old data back")
            });
        }
        if !matches!(entry.kind, Kind::Object | Kind::Ref) {
            return;
        }
        if !self.log.repeats {
            self.log.report.totals.entries += count;
            *self.counts.entry(map.node).or_insert(0) += count;
        }
        if entry.kind == Kind::Ref {
            if let Some(refs) = &mut self.sink.refs {
                let uses = match entry.partial {
                    true => Uses::partial(count),
                    false => Uses::complete(count),
                };
                refs.add(map.pool, entry.payload, uses);
            }
            return;
        }
        self.check_mark(map.mark, entry.payload, place);
        let kept = end.min(trim).max(first);
        let trimmed = if map.role == Role::Dying {
            Role::Dying
        } else {
            Role::Trimmed
        };
        self.name(map, entry, first, kept - first, map.role);
        self.name(map, entry, kept, end - kept, trimmed);
    }

    fn name(&mut self, map: Map, entry: Entry, first: u64, count: u64, role: Role) {
        let Some(name) = Name::new(map.pool, entry.payload, first).filter(|_| count > 0) else {
            return;
        };
        let own = map.head && !entry.frozen && entry.payload >= map.cut;
        let (by, partial) = (map.node, entry.partial);
        if role != Role::Entry && partial {
            self.dropped.push(name, count);
        }
        self.add(Run {
            start: name.raw(),
            count,
            by,
            role,
            partial,
            own,
        });
    }

    fn add(&mut self, run: Run) {
        if let Some(objects) = &mut self.sink.objects {
            objects.add(run);
        }
    }

    pub(super) fn add_single(&mut self, name: Name, by: u64, role: Role) {
        self.add(Run {
            start: name.raw(),
            count: 1,
            by,
            role,
            partial: false,
            own: false,
        });
    }

    pub(super) fn check_mark(&mut self, mark: u64, generation: u64, place: &Key) {
        if generation >= mark {
            self.log.find(FindingKind::AboveMark, place, || {
                format!("generation {generation:013x} is not below the mark {mark:013x}: the name could be used twice")
            });
        }
    }

    async fn counted(&mut self) -> Result<()> {
        let mut rows = Rows::tables(table::OBJECT, table::OBJECT);
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.log.row(table::OBJECT);
            self.ticker.tick(Step::Refs);
            let parsed = key_of(self.log, &key);
            let Some(Key::Object { pool, id }) = parsed else {
                self.log.names_lost = true;
                continue;
            };
            let place = Key::Object { pool, id };
            missing_pool(self.catalogue, pool, place.clone(), self.log);
            let Some(row) = open(self.log, &key, &value, |body| rows::counted(pool, body)) else {
                self.log.names_lost = true;
                continue;
            };
            self.check_mark(self.catalogue.mark(pool), row.name.generation(), &place);
            self.add_single(row.name, id, Role::Counted);
        }
        Ok(())
    }

    async fn dead(&mut self) -> Result<()> {
        let mut rows = Rows::tables(table::DEAD, table::DEAD);
        while let Some((key, value)) = rows.next(self.meta, self.log).await? {
            self.log.row(table::DEAD);
            self.ticker.tick(Step::Maps);
            let parsed = key_of(self.log, &key);
            let Some(Key::Dead(first)) = parsed else {
                self.log.names_lost = true;
                continue;
            };
            let place = Key::Dead(first);
            missing_pool(self.catalogue, first.pool(), place.clone(), self.log);
            let Some(count) = open(self.log, &key, &value, |body| rows::dead(first, body)) else {
                self.log.names_lost = true;
                continue;
            };
            self.check_mark(
                self.catalogue.mark(first.pool()),
                first.generation(),
                &place,
            );
            if !self.log.repeats {
                self.log.report.totals.dead = self.log.report.totals.dead.saturating_add(count);
            }
            self.add(Run {
                start: first.raw(),
                count,
                by: 0,
                role: Role::Dead,
                partial: false,
                own: false,
            });
        }
        Ok(())
    }
}

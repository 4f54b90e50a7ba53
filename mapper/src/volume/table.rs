//! The resident part of a node's map: pages of 512 entries and groups of 512 pages, faulted in from
//! the metadata store, changed by the home core, copied by a flush, evicted when clean. Other cores
//! look at the entries of pages that they were given.
//! It knows entries; what objects hold is not its business.

use crate::budget::{Budget, Evictable, Eviction};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    CountRow, Entry, EntryKind, FormatError, Key, Slots, decode_page, decode_whole, encode_delta,
    encode_whole, uniform, unseal,
};
use crate::local::WaitQueue;
use crate::meta::{Batch, MetaStore};
use crate::types::{ENTRIES_PER_PAGE, GroupNo, NodeId, PageNo};
use atoll_backends::ObjectIndex;
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SLOTS: usize = ENTRIES_PER_PAGE;
/// Memory that a resident page or group is counted with, in bytes.
pub(crate) const PAGE_COST: usize = SLOTS * 8 + 256;

/// One bit per slot.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotSet([u64; SLOTS / 64]);

impl SlotSet {
    fn insert(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
    }

    fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] & (1 << (slot % 64)) != 0
    }

    pub(super) fn full() -> SlotSet {
        SlotSet([u64::MAX; SLOTS / 64])
    }

    pub(super) fn remove(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] &= !(1 << (slot % 64));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; SLOTS / 64]
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        (0..SLOTS as u16).filter(move |slot| self.contains(*slot))
    }
}

/// How the metadata store has a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Persisted {
    /// In a row of its own.
    Row,
    /// As a slot of its group.
    Uniform(Entry),
}

/// The entries of a page, as any core sees them. Only the home core stores.
pub(crate) struct PageEntries {
    slots: [AtomicU64; SLOTS],
    /// The home core has given the page up: what changes now changes another copy of it.
    retired: AtomicBool,
}

impl PageEntries {
    pub(super) fn new(slots: &Slots) -> Arc<PageEntries> {
        Arc::new(PageEntries {
            slots: std::array::from_fn(|slot| AtomicU64::new(slots[slot].to_bits())),
            retired: AtomicBool::new(false),
        })
    }

    /// The entry as it was at some moment of the call, if the page was in use then.
    pub(crate) fn get(&self, slot: u16) -> Option<Entry> {
        let entry = self.load(slot);
        // After the entry: while the page is in use, its entries are the map's.
        (!self.retired.load(Ordering::Acquire)).then_some(entry)
    }

    /// True if it is in use and all entries are this one.
    pub(super) fn is_all(&self, entry: Entry) -> bool {
        (0..SLOTS as u16).all(|slot| self.get(slot) == Some(entry))
    }

    pub(super) fn load(&self, slot: u16) -> Entry {
        let bits = self.slots[usize::from(slot)].load(Ordering::Acquire);
        Entry::from_bits(bits).expect("only entries are stored")
    }

    pub(super) fn store(&self, slot: u16, entry: Entry) {
        self.slots[usize::from(slot)].store(entry.to_bits(), Ordering::Release);
    }

    fn copy(&self) -> Box<Slots> {
        let mut slots = Box::new([Entry::ABSENT; SLOTS]);
        for (number, slot) in (0..).zip(slots.iter_mut()) {
            *slot = self.load(number);
        }
        slots
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

/// The entries of a page as they are at hand.
pub(super) enum PageSlots {
    /// All 512 are this one.
    Uniform(Entry),
    Page(Rc<Page>),
}

impl PageSlots {
    pub(super) fn get(&self, slot: u16) -> Entry {
        match self {
            PageSlots::Uniform(entry) => *entry,
            PageSlots::Page(page) => page.get(slot),
        }
    }
}

/// 512 entries in memory. Who holds one keeps it from being evicted.
pub(crate) struct Page {
    entries: Arc<PageEntries>,
    /// Changed since the last copy of a flush.
    dirty: Cell<SlotSet>,
    /// Copied by the flush that runs, not durable yet.
    committing: Cell<SlotSet>,
    persisted: Cell<Persisted>,
    used: Cell<bool>,
}

impl Page {
    pub(crate) fn get(&self, slot: u16) -> Entry {
        self.entries.load(slot)
    }

    /// True if the entry as it is now is durable.
    pub(crate) fn is_durable(&self, slot: u16) -> bool {
        !self.dirty.get().contains(slot) && !self.committing.get().contains(slot)
    }

    fn is_clean(&self) -> bool {
        self.dirty.get().is_empty() && self.committing.get().is_empty()
    }
}

struct Group {
    slots: RefCell<Box<Slots>>,
    used: Cell<bool>,
}

/// What a flush has taken to commit.
#[derive(Default)]
pub(crate) struct TableCopy {
    pages: Vec<(PageNo, Rc<Page>, Persisted)>,
    /// Entries that name an object now and did not before, less those that do not any more.
    objects: i64,
}

pub(crate) struct PageTable {
    me: Weak<PageTable>,
    node: NodeId,
    meta: Arc<dyn MetaStore>,
    budget: Rc<Budget>,
    pages: RefCell<HashMap<PageNo, Rc<Page>>>,
    groups: RefCell<HashMap<GroupNo, Rc<Group>>>,
    dirty: RefCell<HashSet<PageNo>>,
    /// As in [`TableCopy`], since the last copy.
    objects: Cell<i64>,
    faulting: RefCell<HashSet<Place>>,
    fault_ended: WaitQueue,
    /// Commits that ended; a group read that began before one of them may be old.
    commits: Cell<u64>,
}

type Decoder = fn(&[u8]) -> std::result::Result<Box<Slots>, FormatError>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Page(PageNo),
    Group(GroupNo),
}

pub(crate) fn page_of(index: ObjectIndex) -> (PageNo, u16) {
    (PageNo::of(index), slot(PageNo::slot_of(index)))
}

fn group_of(page: PageNo) -> (GroupNo, u16) {
    (page.group(), slot(page.group_slot()))
}

fn slot(number: usize) -> u16 {
    u16::try_from(number).expect("slots are below 512")
}

impl PageTable {
    pub(crate) fn new(node: NodeId, meta: Arc<dyn MetaStore>, budget: Rc<Budget>) -> Rc<PageTable> {
        Rc::new_cyclic(|me| PageTable {
            me: me.clone(),
            node,
            meta,
            budget,
            pages: RefCell::default(),
            groups: RefCell::default(),
            dirty: RefCell::default(),
            objects: Cell::new(0),
            faulting: RefCell::default(),
            fault_ended: WaitQueue::default(),
            commits: Cell::new(0),
        })
    }

    /// The entry, if it is resident.
    pub(crate) fn resident(&self, index: ObjectIndex) -> Option<Entry> {
        let (page_no, slot) = page_of(index);
        if let Some(page) = self.pages.borrow().get(&page_no) {
            page.used.set(true);
            return Some(page.get(slot));
        }
        let (group_no, group_slot) = group_of(page_no);
        let groups = self.groups.borrow();
        let group = groups.get(&group_no)?;
        group.used.set(true);
        let entry = group.slots.borrow()[usize::from(group_slot)];
        (entry.kind() != EntryKind::Row).then_some(entry)
    }

    /// The entry, read from the metadata store where needed.
    pub(crate) async fn lookup(&self, index: ObjectIndex) -> Result<Entry> {
        loop {
            if let Some(entry) = self.resident(index) {
                return Ok(entry);
            }
            self.fault(page_of(index).0).await?;
        }
    }

    /// The page, resident and held, to be changed.
    pub(crate) async fn page(&self, page_no: PageNo) -> Result<Rc<Page>> {
        loop {
            if let Some(page) = self.pages.borrow().get(&page_no) {
                page.used.set(true);
                return Ok(page.clone());
            }
            match self.group_slot(page_no) {
                Some(entry) if entry.kind() != EntryKind::Row => {
                    let slots = Box::new([entry; SLOTS]);
                    return Ok(self.insert_page(page_no, slots, Persisted::Uniform(entry)));
                }
                _ => self.fault(page_no).await?,
            }
        }
    }

    /// The entries of a page, to look at all of them in one turn.
    pub(super) async fn slots(&self, page_no: PageNo) -> Result<PageSlots> {
        loop {
            if let Some(page) = self.pages.borrow().get(&page_no) {
                page.used.set(true);
                return Ok(PageSlots::Page(page.clone()));
            }
            match self.group_slot(page_no) {
                Some(entry) if entry.kind() != EntryKind::Row => {
                    return Ok(PageSlots::Uniform(entry));
                }
                _ => self.fault(page_no).await?,
            }
        }
    }

    /// Other cores are not to look at its pages any more: another node shows what they want to know.
    pub(super) fn retire_all(&self) {
        for page in self.pages.borrow().values() {
            page.entries.retire();
        }
    }

    /// The entries of a page, for another core; `None` if all of them are absent and the page is
    /// not resident.
    pub(crate) async fn entries(&self, page_no: PageNo) -> Result<Option<Arc<PageEntries>>> {
        loop {
            let resident = self.pages.borrow().contains_key(&page_no);
            match self.group_slot(page_no) {
                Some(entry) if entry == Entry::ABSENT && !resident => return Ok(None),
                None if !resident => self.fault(page_no).await?,
                _ => return Ok(Some(self.page(page_no).await?.entries.clone())),
            }
        }
    }

    /// Changes an entry of a held page.
    pub(crate) fn set(&self, page_no: PageNo, page: &Page, slot: u16, entry: Entry) {
        let named = |entry: Entry| i64::from(entry.names_object());
        let more = named(entry) - named(page.get(slot));
        self.objects.set(self.objects.get() + more);
        page.entries.store(slot, entry);
        let mut dirty = page.dirty.get();
        dirty.insert(slot);
        page.dirty.set(dirty);
        self.dirty.borrow_mut().insert(page_no);
    }

    fn group_slot(&self, page_no: PageNo) -> Option<Entry> {
        let (group_no, slot) = group_of(page_no);
        let groups = self.groups.borrow();
        let group = groups.get(&group_no)?;
        let entry = group.slots.borrow()[usize::from(slot)];
        Some(entry)
    }

    /// Reads what is missing of the way to a page: its group, or its row. One reader per row.
    async fn fault(&self, page_no: PageNo) -> Result<()> {
        let (group_no, _) = group_of(page_no);
        let group_resident = self.groups.borrow().contains_key(&group_no);
        let place = if group_resident {
            Place::Page(page_no)
        } else {
            Place::Group(group_no)
        };
        if !self.faulting.borrow_mut().insert(place) {
            self.fault_ended
                .until(|| (!self.faulting.borrow().contains(&place)).then_some(()))
                .await;
            return Ok(());
        }
        let _ended = FaultEnd { table: self, place };
        match place {
            Place::Group(group_no) => self.read_group(group_no).await,
            Place::Page(page_no) => self.read_page(page_no).await,
        }
    }

    async fn read_slots(&self, key: &[u8], decode: Decoder) -> Result<Option<Box<Slots>>> {
        let Some(value) = self.meta.get(key).await? else {
            return Ok(None);
        };
        let slots = unseal(key, &value).and_then(decode).map_err(|error| {
            Error::new(
                ErrorKind::Corrupt,
                format!("map of node {}: {error}; run `atoll fsck`", self.node.get()),
            )
        })?;
        Ok(Some(slots))
    }

    async fn read_group(&self, group_no: GroupNo) -> Result<()> {
        let key = Key::group(self.node, group_no);
        let slots = loop {
            let before = self.commits.get();
            let slots = self.read_slots(&key, decode_whole).await?;
            if self.commits.get() == before {
                break slots.unwrap_or_else(|| Box::new([Entry::ABSENT; SLOTS]));
            }
        };
        let group = Rc::new(Group {
            slots: RefCell::new(slots),
            used: Cell::new(true),
        });
        self.groups.borrow_mut().insert(group_no, group);
        self.charge(Place::Group(group_no));
        Ok(())
    }

    async fn read_page(&self, page_no: PageNo) -> Result<()> {
        if self.pages.borrow().contains_key(&page_no) {
            return Ok(());
        }
        match self.group_slot(page_no) {
            Some(entry) if entry.kind() == EntryKind::Row => {}
            // Uniform now, or the group was evicted: the caller looks again.
            _ => return Ok(()),
        }
        let slots = self
            .read_slots(&Key::page(self.node, page_no), decode_page)
            .await?;
        let slots = slots.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "map of node {}: the row of page {} is missing; run `atoll fsck`",
                    self.node.get(),
                    page_no.get()
                ),
            )
        })?;
        self.insert_page(page_no, slots, Persisted::Row);
        Ok(())
    }

    fn insert_page(&self, page_no: PageNo, slots: Box<Slots>, persisted: Persisted) -> Rc<Page> {
        let page = Rc::new(Page {
            entries: PageEntries::new(&slots),
            dirty: Cell::default(),
            committing: Cell::default(),
            persisted: Cell::new(persisted),
            used: Cell::new(true),
        });
        let before = self.pages.borrow_mut().insert(page_no, page.clone());
        debug_assert!(before.is_none(), "a resident page is never replaced");
        self.charge(Place::Page(page_no));
        page
    }

    fn charge(&self, place: Place) {
        let table: Weak<dyn Evictable> = self.me.clone();
        let token = match place {
            Place::Page(page) => u64::from(page.get()),
            Place::Group(group) => GROUP_TOKEN | u64::from(group.get()),
        };
        self.budget.charge(table, token, PAGE_COST);
    }

    /// Changed pages that no commit has taken yet.
    pub(crate) fn dirty_pages(&self) -> usize {
        self.dirty.borrow().len()
    }

    /// Takes the changes made so far; they stay in memory until [`PageTable::committed`].
    pub(crate) fn take_dirty(&self) -> TableCopy {
        let mut numbers: Vec<PageNo> = self.dirty.borrow_mut().drain().collect();
        numbers.sort_unstable();
        let pages = self.pages.borrow();
        let mut copy = TableCopy {
            objects: self.objects.take(),
            ..TableCopy::default()
        };
        for page_no in numbers {
            let page = pages
                .get(&page_no)
                .expect("dirty pages are resident")
                .clone();
            debug_assert!(
                page.committing.get().is_empty(),
                "one commit of a node at a time"
            );
            page.committing.set(page.dirty.take());
            let next = match uniform(&page.entries.copy()) {
                Some(entry) => Persisted::Uniform(entry),
                None => Persisted::Row,
            };
            copy.pages.push((page_no, page, next));
        }
        copy
    }

    /// Writes the copy into a batch. Called in the same turn as [`PageTable::take_dirty`], so that
    /// it is exactly that copy.
    pub(crate) fn encode(&self, copy: &TableCopy, batch: &mut Batch) {
        let mut group_deltas: Vec<(GroupNo, Vec<(u16, Entry)>)> = Vec::new();
        for (page_no, page, next) in &copy.pages {
            let key = Key::page(self.node, *page_no);
            let slots = page.entries.copy();
            let before = page.persisted.get();
            match (before, next) {
                (Persisted::Row, Persisted::Row) => {
                    let changed = page.committing.get();
                    batch.merge(
                        key,
                        encode_delta(changed.iter().map(|slot| (slot, slots[usize::from(slot)]))),
                    );
                }
                (Persisted::Uniform(_), Persisted::Row) => batch.put(key, encode_whole(&slots)),
                (Persisted::Row, Persisted::Uniform(_)) => batch.delete(key),
                (Persisted::Uniform(_), Persisted::Uniform(_)) => {}
            }
            if before != *next {
                let entry = match next {
                    Persisted::Row => Entry::ROW,
                    Persisted::Uniform(entry) => *entry,
                };
                let (group_no, slot) = group_of(*page_no);
                match group_deltas.last_mut() {
                    Some((last, changes)) if *last == group_no => changes.push((slot, entry)),
                    _ => group_deltas.push((group_no, vec![(slot, entry)])),
                }
            }
        }
        if copy.objects != 0 {
            let count = copy.objects;
            batch.merge_row(Key::usage(self.node), &CountRow { count });
        }
        for (group_no, changes) in group_deltas {
            batch.merge(
                Key::group(self.node, group_no),
                encode_delta(changes.into_iter()),
            );
        }
    }

    /// The copy is durable.
    pub(crate) fn committed(&self, copy: TableCopy) {
        let groups = self.groups.borrow();
        for (page_no, page, next) in copy.pages {
            page.persisted.set(next);
            page.committing.set(SlotSet::default());
            let (group_no, slot) = group_of(page_no);
            if let Some(group) = groups.get(&group_no) {
                group.slots.borrow_mut()[usize::from(slot)] = match next {
                    Persisted::Row => Entry::ROW,
                    Persisted::Uniform(entry) => entry,
                };
            }
        }
        self.commits.set(self.commits.get() + 1);
    }

    /// The copy was refused without effect: its changes are changes still.
    pub(crate) fn not_committed(&self, copy: TableCopy) {
        self.objects.set(self.objects.get() + copy.objects);
        let mut dirty = self.dirty.borrow_mut();
        for (page_no, page, _) in copy.pages {
            let mut slots = page.dirty.get();
            page.committing
                .take()
                .iter()
                .for_each(|slot| slots.insert(slot));
            page.dirty.set(slots);
            dirty.insert(page_no);
        }
    }

    /// What was changed is again as it was: none of it is to be committed.
    pub(super) fn forget_changes(&self) {
        let pages = self.pages.borrow();
        for page_no in self.dirty.borrow_mut().drain() {
            if let Some(page) = pages.get(&page_no) {
                page.dirty.take();
            }
        }
    }

    fn resident_pages(&self) -> usize {
        self.pages.borrow().len() + self.groups.borrow().len()
    }
}

const GROUP_TOKEN: u64 = 1 << 32;

impl Evictable for PageTable {
    fn was_used(&self, token: u64) -> bool {
        match place_of(token) {
            Place::Page(no) => self
                .pages
                .borrow()
                .get(&no)
                .is_some_and(|p| p.used.replace(false)),
            Place::Group(no) => self
                .groups
                .borrow()
                .get(&no)
                .is_some_and(|g| g.used.replace(false)),
        }
    }

    fn holds(&self, token: u64) -> bool {
        match place_of(token) {
            Place::Page(no) => self.pages.borrow().contains_key(&no),
            Place::Group(no) => self.groups.borrow().contains_key(&no),
        }
    }

    fn evict(&self, token: u64) -> Eviction {
        match place_of(token) {
            Place::Page(no) => {
                let mut pages = self.pages.borrow_mut();
                match pages.get(&no) {
                    None => Eviction::Forgotten,
                    Some(page) if Rc::strong_count(page) > 1 || !page.is_clean() => Eviction::Kept,
                    Some(page) => {
                        page.entries.retire();
                        pages.remove(&no);
                        Eviction::Done
                    }
                }
            }
            Place::Group(no) => {
                self.groups.borrow_mut().remove(&no);
                Eviction::Done
            }
        }
    }
}

fn place_of(token: u64) -> Place {
    let number = u32::try_from(token & (GROUP_TOKEN - 1)).expect("masked");
    if token & GROUP_TOKEN == 0 {
        Place::Page(PageNo::new(number).expect("made from a page's number"))
    } else {
        Place::Group(GroupNo::new(number).expect("made from a group's number"))
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        for page in self.pages.get_mut().values() {
            page.entries.retire();
        }
        self.budget.discharge(self.resident_pages() * PAGE_COST);
    }
}

struct FaultEnd<'a> {
    table: &'a PageTable,
    place: Place,
}

impl Drop for FaultEnd<'_> {
    fn drop(&mut self) {
        self.table.faulting.borrow_mut().remove(&self.place);
        self.table.fault_ended.notify();
    }
}

#[cfg(test)]
mod tests;

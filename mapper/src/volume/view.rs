//! What a volume with ancestors shows: pages of effective entries, of its head where that has one, else of the nearest
//! ancestor. A droppable cache, for any core to look at. A view that stops being true is retired; entries of the head
//! are kept up to date in it.
//!
//! **Invariant:** a view that is not retired shows of every index what the map says: the entry of an object that is
//! complete, zeros, or that the home core has to be asked ([`ASK`], partial objects).

use super::Volume;
use super::node::Node;
use super::table::{PAGE_COST, PageEntries, PageSlots, SlotSet, page_of};
use crate::budget::{Budget, Evictable, Eviction};
use crate::error::Result;
use crate::format::{Entry, EntryKind};
use crate::types::{ENTRIES_PER_PAGE, PageNo};
use atoll_backends::{ObjectId, ObjectIndex};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// In a view: only the home core knows. No entry of a page is of this kind.
const ASK: Entry = Entry::ROW;

struct View {
    entries: Arc<PageEntries>,
    used: Cell<bool>,
}

pub(super) struct Views {
    me: Weak<Views>,
    budget: Rc<Budget>,
    pages: RefCell<HashMap<PageNo, View>>,
}

impl Views {
    pub(super) fn new(budget: Rc<Budget>) -> Rc<Views> {
        Rc::new_cyclic(|me| Views {
            me: me.clone(),
            budget,
            pages: RefCell::default(),
        })
    }

    fn resident(&self, index: ObjectIndex) -> Option<Entry> {
        let (page_no, slot) = page_of(index);
        let pages = self.pages.borrow();
        let view = pages.get(&page_no)?;
        view.used.set(true);
        view.entries.get(slot)
    }

    fn page(&self, page_no: PageNo) -> Option<Arc<PageEntries>> {
        let pages = self.pages.borrow();
        let view = pages.get(&page_no)?;
        view.used.set(true);
        Some(view.entries.clone())
    }

    fn insert(&self, page_no: PageNo, entries: Arc<PageEntries>) {
        let view = View {
            entries,
            used: Cell::new(true),
        };
        let before = self.pages.borrow_mut().insert(page_no, view);
        match before {
            Some(before) => before.entries.retire(),
            None => {
                let me: Weak<dyn Evictable> = self.me.clone();
                self.budget.charge(me, u64::from(page_no.get()), PAGE_COST);
            }
        }
    }

    /// The head's entry has changed.
    fn set(&self, page_no: PageNo, slot: u16, entry: Entry) {
        if let Some(view) = self.pages.borrow().get(&page_no) {
            view.entries.store(slot, entry);
        }
    }

    /// What it shows is not true any more.
    pub(super) fn retire(&self, page_no: PageNo) {
        if let Some(view) = self.pages.borrow_mut().remove(&page_no) {
            view.entries.retire();
            self.budget.discharge(PAGE_COST);
        }
    }

    pub(super) fn retire_all(&self) {
        let pages = self.pages.take();
        for view in pages.values() {
            view.entries.retire();
        }
        self.budget.discharge(pages.len() * PAGE_COST);
    }
}

impl Volume {
    /// What the map says of an index: an object that is complete, zeros, or anything else, of which only
    /// [`Volume::layers`] knows.
    pub(super) async fn effective(&self, index: ObjectIndex) -> Result<Entry> {
        loop {
            if let Some(entry) = self.effective_resident(index) {
                return Ok(entry);
            }
            if !self.uses_views() {
                let head = self.head();
                let entry = head.table.lookup(index).await?;
                if matches!(entry.kind(), EntryKind::Ref(_)) {
                    // From now on other cores are shown which objects these are.
                    self.shares.set(true);
                    head.table.retire_all();
                } else if self.is_head(&head) {
                    return Ok(entry);
                }
                continue;
            }
            let (page_no, slot) = page_of(index);
            // True in this turn, also if memory is so scarce that it is retired already.
            return Ok(self.view(page_no).await?.load(slot));
        }
    }

    /// The same if it is at hand.
    pub(super) fn effective_resident(&self, index: ObjectIndex) -> Option<Entry> {
        match self.uses_views() {
            true => self.views.resident(index),
            false => self.head_ref().table.resident(index),
        }
    }

    /// A page of effective entries for any core; `None` if all of them are zeros.
    pub(crate) async fn entries(&self, page_no: PageNo) -> Result<Option<Arc<PageEntries>>> {
        while !self.uses_views() {
            let head = self.head();
            let entries = head.table.entries(page_no).await?;
            // In the turn in which it is given away: a cut retires what is at hand then.
            if self.is_head(&head) && !self.uses_views() {
                return Ok(entries);
            }
        }
        self.view(page_no).await.map(Some)
    }

    /// The entries of a head that has no parent are what it shows, as long as it counts no objects.
    fn uses_views(&self) -> bool {
        self.read_only || self.shares.get() || self.head_ref().has_parent()
    }

    /// Publishes an entry of a node that is the head, or was when the operation began.
    pub(super) fn set_entry(
        &self,
        node: &Rc<Node>,
        page_no: PageNo,
        page: &super::table::Page,
        slot: u16,
        entry: Entry,
    ) {
        node.table.set(page_no, page, slot, entry);
        if self.is_head(node) && entry != Entry::ABSENT {
            let shown = self.own_view(node, page_no, slot, entry);
            self.views.set(page_no, slot, shown);
        } else {
            self.nodes.moved();
            self.views.retire(page_no);
        }
    }

    async fn view(&self, page_no: PageNo) -> Result<Arc<PageEntries>> {
        loop {
            if let Some(page) = self.views.page(page_no) {
                return Ok(page);
            }
            let head = self.head();
            let moves = self.nodes.moves();
            let page = head.table.page(page_no).await?;
            let below = self.inherited(&head, page_no).await;
            for slot in 0..ENTRIES_PER_PAGE as u16 {
                // At hand in the turn below.
                self.shown(page_no, slot, page.get(slot)).await?;
            }
            if self.nodes.moves() != moves || !self.is_head(&head) {
                continue;
            }
            let mut slots = below?;
            for (slot, shown) in (0..).zip(slots.iter_mut()) {
                match page.get(slot) {
                    Entry::ABSENT => {}
                    own => *shown = self.own_view(&head, page_no, slot, own),
                }
            }
            let entries = PageEntries::new(&slots);
            self.views.insert(page_no, entries.clone());
            return Ok(entries);
        }
    }

    /// The entry of a head as its views show it: frozen where it is not written in place.
    fn own_view(&self, head: &Node, page_no: PageNo, slot: u16, entry: Entry) -> Entry {
        match entry.kind() {
            EntryKind::Object(generation) if generation >= head.row().cut => entry,
            EntryKind::Object(_) => entry.with_frozen(true),
            EntryKind::Ref(reference) => {
                let object = self.pool.refs.known(reference);
                counted_view(object, page_no.index(usize::from(slot)))
            }
            EntryKind::Row => ASK,
            EntryKind::Absent | EntryKind::Hole => entry,
        }
    }

    /// A complete entry of an ancestor as views show it.
    async fn shown(&self, page_no: PageNo, slot: u16, entry: Entry) -> Result<Entry> {
        Ok(match entry.kind() {
            EntryKind::Absent | EntryKind::Hole => entry,
            EntryKind::Object(_) if !entry.is_partial() => entry.with_frozen(true),
            EntryKind::Ref(reference) => {
                let object = self.pool.refs.object(&*self.meta, reference).await?;
                counted_view(Some(object), page_no.index(usize::from(slot)))
            }
            EntryKind::Object(_) | EntryKind::Row => ASK,
        })
    }

    /// What a page of a node inherits.
    async fn inherited(
        &self,
        head: &Rc<Node>,
        page_no: PageNo,
    ) -> Result<Box<[Entry; ENTRIES_PER_PAGE]>> {
        let object = u64::from(self.pool.object_size.bytes());
        let start = page_no.index(0).get() * object;
        let mut shown = Box::new([Entry::ABSENT; ENTRIES_PER_PAGE]);
        let mut open = SlotSet::full();
        let mut limit = head.inherit_end();
        let mut node = head.clone();
        while limit > start && !open.is_empty() {
            let Some(parent) = node.parent(&self.nodes).await? else {
                break;
            };
            let slots = parent.table.slots(page_no).await?;
            if !matches!(slots, PageSlots::Uniform(Entry::ABSENT)) {
                for slot in open.iter() {
                    let begin = start + u64::from(slot) * object;
                    let entry = slots.get(slot);
                    if begin >= limit {
                        open.remove(slot);
                    } else if entry != Entry::ABSENT {
                        open.remove(slot);
                        let cut = begin + object > limit && entry != Entry::HOLE;
                        shown[usize::from(slot)] = match cut {
                            true => ASK,
                            false => self.shown(page_no, slot, entry).await?,
                        };
                    }
                }
            }
            limit = limit.min(parent.inherit_end());
            node = parent;
        }
        Ok(shown)
    }
}

/// An object that is counted, as a view shows it: only at its own index others find it by its generation.
fn counted_view(object: Option<ObjectId>, index: ObjectIndex) -> Entry {
    match object {
        Some(object) if object.index == index => Entry::object(object.generation).with_frozen(true),
        _ => ASK,
    }
}

fn page(token: u64) -> PageNo {
    let number = u32::try_from(token).expect("made from a page's number");
    PageNo::new(number).expect("made from a page's number")
}

impl Evictable for Views {
    fn was_used(&self, token: u64) -> bool {
        let pages = self.pages.borrow();
        let view = pages.get(&page(token));
        view.is_some_and(|view| view.used.replace(false))
    }

    fn holds(&self, token: u64) -> bool {
        self.pages.borrow().contains_key(&page(token))
    }

    fn evict(&self, token: u64) -> Eviction {
        match self.pages.borrow_mut().remove(&page(token)) {
            Some(view) => {
                view.entries.retire();
                Eviction::Done
            }
            None => Eviction::Forgotten,
        }
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        self.retire_all();
    }
}

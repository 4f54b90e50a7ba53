//! Look-ups by the map on a core that is not the home: pages are asked for once, then looked at in
//! place, until the home core retires them or this core's memory budget wants their room.

use super::{CachedPage, Outpost};
use crate::budget::{Evictable, Eviction};
use crate::core_state::core_state;
use crate::error::Result;
use crate::format::Entry;
use crate::handle::ask;
use crate::types::PageNo;
use crate::volume::table::{PAGE_COST, PageEntries, page_of};
use atoll_backends::ObjectIndex;
use std::cell::Cell;
use std::rc::Weak;
use std::sync::Arc;

impl Outpost {
    /// The entry as it is at some moment of the call.
    pub(super) async fn lookup(&self, index: ObjectIndex) -> Result<Entry> {
        let (page_no, _) = page_of(index);
        loop {
            if let Some(entry) = self.resident(index) {
                return Ok(entry);
            }
            let id = self.id;
            let page = ask(&self.home, move || async move {
                core_state()?.volume(id)?.entries(page_no).await
            });
            match page.await? {
                Some(entries) => self.keep(page_no, entries),
                None => return Ok(Entry::ABSENT),
            }
        }
    }

    /// The entry as it is now, if its page is here and in use.
    pub(in crate::volume) fn resident(&self, index: ObjectIndex) -> Option<Entry> {
        let (page_no, slot) = page_of(index);
        let mut pages = self.pages.borrow_mut();
        let page = pages.get(&page_no)?;
        page.used.set(true);
        let entry = page.entries.get(slot);
        if entry.is_none() {
            pages.remove(&page_no);
            drop(pages);
            self.budget.discharge(PAGE_COST);
        }
        entry
    }

    fn keep(&self, page_no: PageNo, entries: Arc<PageEntries>) {
        let page = CachedPage {
            entries,
            used: Cell::new(true),
        };
        let before = self.pages.borrow_mut().insert(page_no, page);
        // Two that asked at once; the later answer is no older.
        if before.is_none() {
            let me: Weak<dyn Evictable> = self.me.clone();
            self.budget.charge(me, u64::from(page_no.get()), PAGE_COST);
        }
    }
}

fn page(token: u64) -> PageNo {
    let number = u32::try_from(token).expect("made from a page's number");
    PageNo::new(number).expect("made from a page's number")
}

impl Evictable for Outpost {
    fn was_used(&self, token: u64) -> bool {
        let pages = self.pages.borrow();
        let page = pages.get(&page(token));
        page.is_some_and(|page| page.used.replace(false))
    }

    fn holds(&self, token: u64) -> bool {
        self.pages.borrow().contains_key(&page(token))
    }

    fn evict(&self, token: u64) -> Eviction {
        match self.pages.borrow_mut().remove(&page(token)) {
            Some(_) => Eviction::Done,
            None => Eviction::Forgotten,
        }
    }
}

impl Drop for Outpost {
    fn drop(&mut self) {
        self.budget
            .discharge(self.pages.get_mut().len() * PAGE_COST);
    }
}

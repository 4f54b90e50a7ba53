//! Copying into a volume what it inherits, so that it needs no ancestor any more. Part by part; nothing that is read
//! changes.

use super::Volume;
use super::fill::gather;
use super::io::{Stored, write_error};
use super::layers::chain;
use super::lease::Lease;
use crate::error::Result;
use crate::format::{Entry, EntryKind};
use crate::types::{ENTRIES_PER_PAGE, PageNo};
use atoll_backends::{BlockRange, ObjectId, ObjectIndex, WriteMode};
use atoll_reactor::{now, yield_now};
use std::rc::Rc;
use std::time::Duration;

/// How long one call goes on: who waits for a verb is not held up for longer.
const CALL_TIME: Duration = Duration::from_millis(200);

impl Volume {
    /// Makes objects of its own of what is inherited from byte `from` on, for a moment. Up to where that is done, and the
    /// bytes that were copied.
    pub(crate) async fn flatten_from(self: &Rc<Self>, from: u64) -> Result<(u64, u64)> {
        let object = u64::from(self.pool.object_size.bytes());
        let until = now() + CALL_TIME;
        let mut copied = 0;
        // Who asks cannot know whether the head is the one of before.
        let head = self.head();
        let mut next = head.flattened.get().min(from / object);
        let end = head.inherit_end().div_ceil(object);
        while next < end && now() < until {
            let Some(index) = ObjectIndex::new(next) else {
                break;
            };
            if next.is_multiple_of(ENTRIES_PER_PAGE as u64) {
                yield_now().await;
                if let Some(entries) = self.entries(PageNo::of(index)).await?
                    && entries.is_all(Entry::ABSENT)
                {
                    next += ENTRIES_PER_PAGE as u64;
                    continue;
                }
            }
            if self.own(index).await? {
                copied += object;
                self.background.pace(1).await;
            }
            next += 1;
        }
        if self.is_head(&head) {
            head.flattened.set(next.max(head.flattened.get()));
        }
        match next >= end {
            true => Ok((self.size(), copied)),
            false => Ok(((next * object).min(self.size()), copied)),
        }
    }

    /// Makes what the volume shows at an index an object of its own. False if it needs no other as it is.
    async fn own(&self, index: ObjectIndex) -> Result<bool> {
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check_open()?;
        self.check_fault()?;
        self.keep_bounds().await?;
        self.keep_budget().await?;
        let whole = BlockRange::whole(self.pool.object_size);
        let _held = self.lock(index, whole, whole, &Lease::unlimited()).await?;
        loop {
            let (spot, stored) = self.stored(index).await?;
            let entry = spot.entry();
            if let Stored::Partial(id, partial) = stored {
                let below = partial.below();
                self.complete(&spot, id, &partial).await?;
                return Ok(below != crate::format::Below::Zeros);
            }
            // An object of its own, zeros, or one that it counts: nothing of an ancestor. A merged partial object may show
            // what is above it.
            let own = chain(&spot.node, index, entry).await?;
            let layers = self.layers(index).await?;
            if !own.implicit || layers.is_empty() {
                return Ok(false);
            }
            let Some(generation) = self.current_generation(&spot.node).await? else {
                continue;
            };
            let id = ObjectId::new(generation, index);
            let gathered = gather(&self.pool, &layers, id, WriteMode::Create).await;
            self.wrote(id);
            if let Err(error) = gathered {
                self.bury(&spot.node, id, false);
                self.changed();
                return Err(write_error(self.id, id, error));
            }
            debug_assert!(matches!(
                entry.kind(),
                EntryKind::Absent | EntryKind::Object(_)
            ));
            self.bury_chain(&spot.node, own);
            let entry = Entry::object(generation);
            self.set_entry(&spot.node, spot.page_no, &spot.page, spot.slot, entry);
            self.changed();
            return Ok(true);
        }
    }
}

//! Growing and shrinking, and what a shrink leaves to do: dropping the entries beyond the new end.
//!
//! **Invariant:** what a shrink cut off never comes back: the volume does not grow before the
//! entries beyond its end are gone, durably.

use super::layers::chain;
use super::pieces::pieces;
use super::table::page_of;
use super::zero::Zeroing;
use super::{Lease, Volume};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Entry, Key, KeyRange, NodeRow, ParsedKey, ResourceRow, decode_whole, unseal};
use crate::meta::{Batch, Cursor, Durability};
use crate::types::PageNo;
use atoll_backends::ObjectIndex;
use atoll_reactor::{spawn_detached, timeout};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Pages trimmed between two commits.
const TRIM_PAGES: usize = 64;
/// Rows read at a time.
const SCAN_ROWS: usize = 64;

impl Volume {
    /// Makes the volume as large as `row`, the catalogue's new row of it, says.
    pub(crate) async fn resize(self: &Rc<Self>, row: ResourceRow) -> Result<()> {
        self.check_fault()?;
        self.settle().await?;
        match row.size.cmp(&self.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.grow(row).await,
            std::cmp::Ordering::Less => self.shrink(row).await,
        }
    }

    /// Waits until what a shrink cut off is gone, durably.
    pub(super) async fn trim_ended(self: &Rc<Self>) -> Result<()> {
        let ended = || (self.head_ref().row().trim.is_none() || !self.trimming.get()).then_some(());
        let waited = timeout(self.io_timeout, self.trimmed.until(ended)).await;
        self.check_fault()?;
        if waited.is_err() || self.head_ref().row().trim.is_some() {
            self.start_trim();
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "volume {}: what its shrink cut off is still being dropped; try again later",
                    self.id
                ),
            ));
        }
        Ok(())
    }

    async fn grow(self: &Rc<Self>, row: ResourceRow) -> Result<()> {
        self.trim_ended().await?;
        let mut batch = Batch::new();
        batch.put_row(Key::resource(self.id), &row);
        self.meta.commit(batch, Durability::Synced).await?;
        self.shared.size.store(row.size, Ordering::Release);
        Ok(())
    }

    async fn shrink(self: &Rc<Self>, row: ResourceRow) -> Result<()> {
        let _fence = self.fence().await?;
        let object = u64::from(self.pool.object_size.bytes());
        let first_beyond = row.size.next_multiple_of(object);
        for piece in pieces(
            row.size,
            first_beyond.min(self.size()) - row.size,
            self.pool.object_size,
        ) {
            // What it inherits there is masked by where inheriting ends.
            if self.spot(piece.index).await?.entry() != Entry::ABSENT {
                self.zero_piece(piece, Zeroing::ZeroUnmap, &Lease::unlimited())
                    .await?;
            }
        }
        self.flush_inside().await?;
        // A trim that ends now ends before or after it, and sees which.
        let _rows = self.row_changes.close().await;
        let before = self.head_ref().row();
        let node_row = NodeRow {
            trim: Some(
                before
                    .trim
                    .map_or(first_beyond, |trim| trim.min(first_beyond)),
            ),
            inherit_end: before.inherit_end.min(row.size),
            ..before
        };
        let mut batch = Batch::new();
        batch.set_frees(true);
        batch.put_row(Key::resource(self.id), &row);
        batch.put_row(Key::node(self.node()), &node_row);
        self.meta.commit(batch, Durability::Synced).await?;
        self.head_ref().row_written(node_row);
        self.shared.size.store(row.size, Ordering::Release);
        // What was inherited beyond is not any more.
        self.views.retire_all();
        self.nodes.moved();
        self.start_trim();
        Ok(())
    }

    /// Goes on with what a shrink left to do, if anything.
    pub(crate) fn start_trim(self: &Rc<Self>) {
        let nothing = self.head_ref().row().trim.is_none();
        if nothing || self.shared.is_faulted() || self.trimming.replace(true) {
            return;
        }
        let volume = self.clone();
        spawn_detached(async move {
            let outcome = volume.trim().await;
            volume.trimming.set(false);
            if let Err(error) = outcome {
                // Nothing is lost: the entries stay out of reach, and the next start tries again.
                tracing::warn!(volume = %volume.id, %error, "dropping what a shrink cut off failed");
            }
            volume.trimmed.notify();
        });
    }

    async fn trim(&self) -> Result<()> {
        loop {
            let Some(trim) = self.head_ref().row().trim else {
                return Ok(());
            };
            let first = trim / u64::from(self.pool.object_size.bytes());
            if !self.trim_from(first).await? {
                // The volume is being closed; its next opening goes on.
                return Ok(());
            }
            self.flush_inside().await?;
            let _rows = self.row_changes.close().await;
            let before = self.head_ref().row();
            if before.trim != Some(trim) {
                // Shrunk again meanwhile.
                continue;
            }
            let node_row = NodeRow {
                trim: None,
                ..before
            };
            let mut batch = Batch::new();
            batch.set_frees(true);
            batch.put_row(Key::node(self.node()), &node_row);
            self.meta.commit(batch, Durability::Synced).await?;
            self.head_ref().row_written(node_row);
        }
    }

    /// Drops all entries from this index on; false if the volume was closed before it ended. No I/O
    /// reaches them.
    async fn trim_from(&self, first: u64) -> Result<bool> {
        let Some(first) = ObjectIndex::new(first) else {
            return Ok(true);
        };
        let (first_page, first_slot) = page_of(first);
        let mut rows = Cursor::new(KeyRange::groups_of(self.node()));
        let mut trimmed = 0;
        loop {
            let pairs = rows.next(&*self.meta, SCAN_ROWS).await?;
            if pairs.is_empty() {
                return Ok(true);
            }
            for (key, value) in pairs {
                let Some(ParsedKey::Group(_, group)) = Key::parse(&key) else {
                    continue;
                };
                if group < first_page.group() {
                    continue;
                }
                let slots = decode_whole(unseal(&key, &value)?)?;
                for (place, entry) in slots.iter().enumerate() {
                    let page = group.page(place);
                    if page < first_page || *entry == Entry::ABSENT {
                        continue;
                    }
                    if self.check_open().is_err() {
                        return Ok(false);
                    }
                    let from = if page == first_page { first_slot } else { 0 };
                    self.trim_page(page, from).await?;
                    trimmed += 1;
                    if trimmed % TRIM_PAGES == 0 {
                        self.flush_inside().await?;
                    }
                }
            }
        }
    }

    async fn trim_page(&self, page_no: PageNo, from: u16) -> Result<()> {
        for slot in from..crate::types::ENTRIES_PER_PAGE as u16 {
            let index = page_no.index(usize::from(slot));
            let spot = self.spot(index).await?;
            let entry = spot.entry();
            if entry != Entry::ABSENT {
                let chain = chain(&spot.node, index, entry).await?;
                self.bury_chain(&spot.node, chain);
                self.set_entry(&spot.node, page_no, &spot.page, slot, Entry::ABSENT);
            }
        }
        self.changed();
        Ok(())
    }
}

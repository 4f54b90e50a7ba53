//! Making ranges read as zeros: unmapping and writing zeros. Whole objects leave the map; of others zeros are written, so
//! that they mask what lies below.

use super::Volume;
use super::io::{Content, Spot, Stored};
use super::layers::chain;
use super::lease::Lease;
use super::pieces::{Piece, pieces};
use crate::error::Result;
use crate::format::{Below, Entry, EntryKind};
use crate::local::join_all;
use atoll_backends::{BlockRange, ObjectIndex, WriteMode, ZeroMode};
use atoll_reactor::{LocalFuture, SharedBuf};
use std::rc::Rc;

/// Objects that one zeroing works on at a time.
const PARALLEL_ZEROING: usize = 16;

/// What makes a range read as zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zeroing {
    /// UNMAP: give space back, whole objects leave the map.
    Unmap,
    /// Write zeros, space may be given back.
    ZeroUnmap,
    /// Write zeros, space stays as it is.
    Zero,
}

impl Volume {
    /// Makes a range read as zeros; multiples of 512.
    pub(crate) async fn zero(
        self: &Rc<Self>,
        offset: u64,
        len: u64,
        how: Zeroing,
        fua: bool,
        lease: Lease,
    ) -> Result<()> {
        let volume = self.clone();
        let limit = lease.clone();
        self.limited("zeroing", limit, async move {
            {
                let _inside = volume.gate.pass().await;
                let _epoch = volume.epochs.begin();
                volume.check_range(offset, len)?;
                volume.check_fault()?;
                let mut all = pieces(offset, len, volume.pool.object_size);
                loop {
                    let some: Vec<_> = all
                        .by_ref()
                        .take(PARALLEL_ZEROING)
                        .map(|piece| LocalFuture::new(volume.zero_piece(piece, how, &lease)))
                        .collect();
                    if some.is_empty() {
                        break;
                    }
                    for outcome in join_all(some).await {
                        outcome?;
                    }
                }
            }
            volume.check_fault()?;
            if fua {
                volume.flush_inside().await
            } else {
                Ok(())
            }
        })
        .await
    }

    pub(super) async fn zero_piece(&self, piece: Piece, how: Zeroing, lease: &Lease) -> Result<()> {
        // A write that creates the object now may be one that its initiator has given up: what comes
        // after that must not be undone by it.
        if self.is_zero(piece.index).await? && !self.locks.is_locked(piece.index) {
            return Ok(());
        }
        if piece.is_whole_object(self.pool.object_size) {
            let not_own = matches!(self.stored(piece.index).await?.1, Stored::NotOwn);
            if how != Zeroing::Zero || not_own {
                return self.drop_object(&piece, lease).await;
            }
        }
        for part in piece.split() {
            if part.is_aligned() {
                self.zero_blocks(&part, how, lease).await?;
            } else {
                let zeros = SharedBuf::zeros(part.len());
                self.write_over(part, zeros, lease).await?;
            }
        }
        Ok(())
    }

    async fn is_zero(&self, index: ObjectIndex) -> Result<bool> {
        let shown = self.effective(index).await?;
        Ok(matches!(shown.kind(), EntryKind::Absent | EntryKind::Hole))
    }

    /// A part of a block, unless zeros are there.
    async fn write_over(&self, part: Piece, zeros: SharedBuf, lease: &Lease) -> Result<()> {
        // Behind those that create the object.
        let turn = self.locks.lock(part.index, part.blocks());
        drop(lease.within(turn).await?);
        match self.is_zero(part.index).await? {
            true => Ok(()),
            false => self.write_piece(part, zeros, lease).await,
        }
    }

    /// The whole object leaves the map.
    async fn drop_object(&self, piece: &Piece, lease: &Lease) -> Result<()> {
        let whole = BlockRange::whole(self.pool.object_size);
        self.keep_budget().await?;
        let _held = lease.within(self.locks.lock(piece.index, whole)).await?;
        loop {
            let spot = self.spot(piece.index).await?;
            let masks = match spot.node.has_parent() {
                true => Entry::HOLE,
                false => Entry::ABSENT,
            };
            let entry = spot.entry();
            if entry == masks || (entry == Entry::ABSENT && self.is_zero(piece.index).await?) {
                return Ok(());
            }
            let chain = chain(&spot.node, piece.index, entry).await?;
            // A cut came between: it holds for what is the head now.
            if !self.is_head(&spot.node) {
                continue;
            }
            lease.check()?;
            self.bury_chain(&spot.node, chain);
            self.set_entry(&spot.node, spot.page_no, &spot.page, spot.slot, masks);
            self.changed();
            return Ok(());
        }
    }

    async fn zero_blocks(&self, part: &Piece, how: Zeroing, lease: &Lease) -> Result<()> {
        self.keep_bounds().await?;
        let blocks = part.blocks();
        let held = self.lock(part.index, blocks, blocks, lease).await?;
        let zero = match how {
            Zeroing::Zero => ZeroMode::Keep,
            Zeroing::Unmap | Zeroing::ZeroUnmap => ZeroMode::Punch,
        };
        let (spot, stored) = self.stored(part.index).await?;
        if !matches!(stored, Stored::NotOwn) {
            return self.zero_stored(blocks, zero, &spot, stored, lease).await;
        }
        if self.is_zero(part.index).await? {
            return Ok(());
        }
        drop((held, spot));
        let whole = BlockRange::whole(self.pool.object_size);
        let held = self.lock(part.index, whole, blocks, lease).await?;
        loop {
            let (spot, stored) = self.stored(part.index).await?;
            if !matches!(stored, Stored::NotOwn) {
                return self.zero_stored(blocks, zero, &spot, stored, lease).await;
            }
            let content = Content::Zeros(zero);
            if self.is_zero(part.index).await?
                || self
                    .create_object(part, content, &spot, &held, lease)
                    .await?
            {
                return Ok(());
            }
        }
    }

    /// Zeros into an object that is there.
    async fn zero_stored(
        &self,
        blocks: BlockRange,
        zero: ZeroMode,
        spot: &Spot,
        stored: Stored,
        lease: &Lease,
    ) -> Result<()> {
        let (id, partial) = match stored {
            Stored::NotOwn => return Ok(()),
            Stored::Complete(id) => (id, None),
            Stored::Partial(id, partial) => (id, Some(partial)),
        };
        let runs = match &partial {
            // What is not valid reads as zeros already if nothing is below; else it is to mask that.
            Some(partial) if partial.below() == Below::Zeros => partial.runs(blocks),
            _ => vec![(blocks, true)],
        };
        for (run, _) in runs.into_iter().filter(|(_, valid)| *valid) {
            lease.check()?;
            self.store_zeroes(id, run, zero, WriteMode::Existing)
                .await?;
            if let Some(partial) = &partial {
                self.publish(spot, id, partial, run).await?;
            }
        }
        Ok(())
    }
}

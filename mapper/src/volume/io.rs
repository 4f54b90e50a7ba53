//! Reading, writing, unmapping and zeroing by the map.
//!
//! **Invariant:** an entry is published after its object's data is complete, a bit of validity after
//! its block's data (M2). A block that an operation writes stays locked until the store has ended it.

use super::Volume;
use super::claiming::{HomeClaim, places};
use super::lease::Lease;
use super::partials::Partial;
use super::pieces::{Piece, pieces};
use super::table::{Page, page_of};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Entry, EntryKind};
use crate::local::{RangeGuard, join_all};
use crate::types::ResourceId;
use atoll_backends::{
    BLOCK_SIZE, BlockRange, ObjectId, ObjectIndex, ReadHint, WriteMode, ZeroMode,
};
use atoll_reactor::{Buf, LocalFuture, SharedBuf};
use smallvec::SmallVec;
use std::rc::Rc;

/// Largest read or write in bytes; larger ones are the protocol's to split.
pub const MAX_IO_BYTES: u64 = 8 << 20;

/// Data of a read, in order.
pub type Segments = SmallVec<[SharedBuf; 4]>;

/// What is stored for an object's index.
pub(super) enum Stored {
    /// Nothing: zeros.
    Nothing,
    /// All blocks of it.
    Complete(ObjectId),
    /// The blocks that the record says; zeros below.
    Partial(ObjectId, Rc<Partial>),
}

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
    /// Reads `len` bytes at `offset`; multiples of 512.
    pub(crate) async fn read(
        self: &Rc<Self>,
        offset: u64,
        len: u64,
        lease: Lease,
    ) -> Result<Segments> {
        let volume = self.clone();
        self.limited("read", lease, async move {
            let _inside = volume.gate.pass().await;
            let _epoch = volume.epochs.begin();
            volume.check_range(offset, len)?;
            volume.check_fault()?;
            let data = volume.read_pieces(offset, len).await?;
            // A sync that failed meanwhile may have lost what was read.
            volume.check_fault()?;
            Ok(data)
        })
        .await
    }

    pub(super) async fn read_pieces(&self, offset: u64, len: u64) -> Result<Segments> {
        let mut parts = pieces(offset, len, self.pool.object_size);
        let Some(first) = parts.next() else {
            return Ok(Segments::new());
        };
        let Some(second) = parts.next() else {
            return self.read_piece(&first).await;
        };
        // Over several objects: all at once.
        let reads = [first, second].into_iter().chain(parts);
        let reads =
            reads.map(|piece| LocalFuture::new(async move { self.read_piece(&piece).await }));
        let mut segments = Segments::new();
        for own in join_all(reads).await {
            segments.extend(own?);
        }
        Ok(segments)
    }

    async fn read_piece(&self, piece: &Piece) -> Result<Segments> {
        let mut again = false;
        loop {
            let (_, stored) = self.stored(piece).await?;
            let outcome = self.read_stored(piece, &stored).await;
            match outcome {
                // The map may have changed since the look-up; the second time it is true (M9).
                Err(error) if error.kind() == ErrorKind::NotFound && !again => again = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let index = piece.index;
                    tracing::error!(volume = %self.id, %index, %error, "the map names a missing object");
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!(
                            "volume {}: object {index} of the map is missing: {error}",
                            self.id
                        ),
                    ));
                }
                outcome => return outcome,
            }
        }
    }

    async fn read_stored(&self, piece: &Piece, stored: &Stored) -> Result<Segments> {
        let mut out = Segments::new();
        match stored {
            Stored::Nothing => out.push(SharedBuf::zeros(piece.len())),
            Stored::Complete(id) => out.push(self.read_bytes(*id, piece).await?),
            Stored::Partial(id, partial) => {
                for (run, valid) in partial.runs(piece.blocks()) {
                    let start = (run.first * BLOCK_SIZE).max(piece.bytes.start);
                    let end = (run.end() * BLOCK_SIZE).min(piece.bytes.end);
                    let part = Piece {
                        index: piece.index,
                        bytes: start..end,
                        at: 0,
                    };
                    out.push(match valid {
                        true => self.read_bytes(*id, &part).await?,
                        false => SharedBuf::zeros(part.len()),
                    });
                }
            }
        }
        Ok(out)
    }

    async fn read_bytes(&self, id: ObjectId, piece: &Piece) -> Result<SharedBuf> {
        let blocks = piece.blocks();
        let data = self
            .pool
            .store
            .read(id, blocks, ReadHint::default())
            .await?;
        Ok(piece.cut(data))
    }

    /// Writes at `offset`; multiples of 512. With `fua` it is durable when it returns.
    pub(crate) async fn write(
        self: &Rc<Self>,
        offset: u64,
        data: SharedBuf,
        fua: bool,
        lease: Lease,
    ) -> Result<()> {
        let volume = self.clone();
        let limit = lease.clone();
        self.limited("write", limit, async move {
            {
                let _inside = volume.gate.pass().await;
                volume.check_range(offset, data.len() as u64)?;
                volume.check_fault()?;
                let mut parts = pieces(offset, data.len() as u64, volume.pool.object_size)
                    .flat_map(|piece| piece.split());
                match (parts.next(), parts.next()) {
                    (None, _) => {}
                    (Some(only), None) => {
                        let part = only.of(&data);
                        volume.write_piece(only, part, &lease).await?;
                    }
                    (Some(first), Some(second)) => {
                        let all = [first, second].into_iter().chain(parts);
                        let writes = all.map(|piece| {
                            let part = piece.of(&data);
                            LocalFuture::new(volume.write_piece(piece, part, &lease))
                        });
                        for outcome in join_all(writes).await {
                            outcome?;
                        }
                    }
                }
            }
            volume.check_fault()?;
            if fua {
                volume.make_durable(offset, data.len() as u64).await
            } else {
                Ok(())
            }
        })
        .await
    }

    /// Writes a piece that is either whole blocks or a part of one block.
    async fn write_piece(&self, piece: Piece, data: SharedBuf, lease: &Lease) -> Result<()> {
        self.keep_bounds().await?;
        let blocks = piece.blocks();
        let held = self.lock(piece.index, blocks, blocks, lease).await?;
        let (_, stored) = self.stored(&piece).await?;
        if !matches!(stored, Stored::Nothing) {
            return self.write_stored(&piece, data, stored, lease).await;
        }
        drop(held);
        // Apart, because it is rare and large, and every write would be as large.
        LocalFuture::new(self.write_first(piece, data, lease)).await
    }

    /// A piece where nothing was stored a moment ago.
    async fn write_first(&self, piece: Piece, data: SharedBuf, lease: &Lease) -> Result<()> {
        // Creating an object takes all of it: its first writes come one after the other.
        let whole = BlockRange::whole(self.pool.object_size);
        let held = self.lock(piece.index, whole, piece.blocks(), lease).await?;
        match self.stored(&piece).await? {
            (page, Stored::Nothing) => self.create_object(&piece, data, &page, &held, lease).await,
            (_, stored) => self.write_stored(&piece, data, stored, lease).await,
        }
    }

    /// Into an object that is there.
    pub(super) async fn write_stored(
        &self,
        piece: &Piece,
        data: SharedBuf,
        stored: Stored,
        lease: &Lease,
    ) -> Result<()> {
        match stored {
            Stored::Nothing => unreachable!("the caller creates the object"),
            Stored::Complete(id) => {
                let data = self.whole_blocks(piece, data, Some((id, None))).await?;
                lease.check()?;
                self.store_write(id, piece.blocks().first, data, WriteMode::Existing)
                    .await
            }
            Stored::Partial(id, partial) => {
                self.write_partial(piece, data, id, &partial, WriteMode::Existing, lease)
                    .await
            }
        }
    }

    /// Keeps others off a range of an object: this core's by the range lock, those of other cores
    /// off the blocks that are written by the claim.
    pub(super) async fn lock(
        &self,
        index: ObjectIndex,
        range: BlockRange,
        written: BlockRange,
        lease: &Lease,
    ) -> Result<BlockLock> {
        let range = lease.within(self.locks.lock(index, range)).await?;
        let mut lock = BlockLock {
            _claim: None,
            _range: range,
        };
        if let Some(claims) = self.shared_claims() {
            let (claim, free) = claims.take(places(self.pool.object_size, index, written));
            lock._claim = Some(claim);
            if !free {
                let off = self.peers.until_off(index, written, lease);
                lease.within(off).await??;
            }
        }
        Ok(lock)
    }

    /// The first write to an index of which nothing is stored.
    pub(super) async fn create_object(
        &self,
        piece: &Piece,
        data: SharedBuf,
        page: &Page,
        _whole_object: &BlockLock,
        lease: &Lease,
    ) -> Result<()> {
        self.keep_budget().await?;
        let id = ObjectId::new(self.current_generation().await?, piece.index);
        let zeroes_new = self.pool.store.properties().zeroes_new;
        let complete = zeroes_new || piece.is_whole_object(self.pool.object_size);
        lease.check()?;
        let outcome = if complete {
            let data = self.whole_blocks(piece, data, None).await?;
            self.store_write(id, piece.blocks().first, data, WriteMode::Create)
                .await
        } else {
            let partial = self.partials.create(id);
            self.write_partial(piece, data, id, &partial, WriteMode::Create, lease)
                .await
        };
        match outcome {
            Ok(()) => {
                let partial = !complete && !self.partials.is_complete(id);
                let entry = Entry::object(id.generation).with_partial(partial);
                let (page_no, slot) = page_of(piece.index);
                self.table.set(page_no, page, slot, entry);
                self.changed();
                Ok(())
            }
            Err(error) => {
                // Something of it may be at the store: that name is not used again.
                self.bury(id, !complete);
                self.changed();
                Err(error)
            }
        }
    }

    async fn write_partial(
        &self,
        piece: &Piece,
        data: SharedBuf,
        id: ObjectId,
        partial: &Rc<Partial>,
        mode: WriteMode,
        lease: &Lease,
    ) -> Result<()> {
        let blocks = piece.blocks();
        let data = self
            .whole_blocks(piece, data, Some((id, Some(partial))))
            .await?;
        lease.check()?;
        self.store_write(id, blocks.first, data, mode).await?;
        self.publish(piece, id, partial, blocks, mode).await
    }

    /// Blocks are complete at the store: they become valid, and with the last one the object.
    async fn publish(
        &self,
        piece: &Piece,
        id: ObjectId,
        partial: &Rc<Partial>,
        blocks: BlockRange,
        mode: WriteMode,
    ) -> Result<()> {
        let (page_no, slot) = page_of(piece.index);
        let page = self.table.page(page_no).await?;
        if self.partials.publish(id, partial, blocks) && mode == WriteMode::Existing {
            self.table
                .set(page_no, &page, slot, Entry::object(id.generation));
        }
        self.changed();
        Ok(())
    }

    /// The piece's data as whole blocks: a part of a block is laid over what the block holds.
    async fn whole_blocks(
        &self,
        piece: &Piece,
        data: SharedBuf,
        stored: Option<(ObjectId, Option<&Rc<Partial>>)>,
    ) -> Result<SharedBuf> {
        if piece.is_aligned() {
            return Ok(data);
        }
        let block = piece.blocks();
        debug_assert_eq!(block.count, 1, "pieces are split at block boundaries");
        let before = match stored {
            Some((id, partial)) if partial.is_none_or(|p| p.contains(block.first)) => {
                let read = self.pool.store.read(id, block, ReadHint::default()).await;
                // Under its lock the map is true: an object that is missing is no race (M9).
                Some(read.map_err(|error| write_error(self.id, id, error))?)
            }
            _ => None,
        };
        let mut whole = match before {
            Some(before) => before
                .try_into_buf()
                .unwrap_or_else(|shared| Buf::copy_of(&shared)),
            None => Buf::zeroed(BLOCK_SIZE as usize),
        };
        let start = (piece.bytes.start % BLOCK_SIZE) as usize;
        whole[start..start + data.len()].copy_from_slice(&data);
        Ok(whole.freeze())
    }

    async fn store_write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> Result<()> {
        let outcome = self.pool.store.write(id, first, data, mode).await;
        // Also after a failure: a part may have been written.
        self.unsynced.borrow_mut().insert(id);
        self.changed();
        outcome.map_err(|error| write_error(self.id, id, error))
    }

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
        let absent = self.table.lookup(piece.index).await?.kind() == EntryKind::Absent;
        // A write that creates the object now may be one that its initiator has given up: what comes
        // after that must not be undone by it.
        if absent && !self.locks.is_locked(piece.index) {
            return Ok(());
        }
        if piece.is_whole_object(self.pool.object_size) && how != Zeroing::Zero {
            return self.drop_object(&piece, lease).await;
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

    /// A part of a block, unless nothing is stored there.
    async fn write_over(&self, part: Piece, zeros: SharedBuf, lease: &Lease) -> Result<()> {
        // Behind those that create the object.
        let turn = self.locks.lock(part.index, part.blocks());
        drop(lease.within(turn).await?);
        match self.stored(&part).await?.1 {
            Stored::Nothing => Ok(()),
            _ => self.write_piece(part, zeros, lease).await,
        }
    }

    /// The whole object leaves the map.
    async fn drop_object(&self, piece: &Piece, lease: &Lease) -> Result<()> {
        let whole = BlockRange::whole(self.pool.object_size);
        self.keep_budget().await?;
        let _held = lease.within(self.locks.lock(piece.index, whole)).await?;
        let (page_no, slot) = page_of(piece.index);
        let page = self.table.page(page_no).await?;
        lease.check()?;
        let entry = page.get(slot);
        if let EntryKind::Object(generation) = entry.kind() {
            self.table.set(page_no, &page, slot, Entry::ABSENT);
            self.bury(ObjectId::new(generation, piece.index), entry.is_partial());
            self.changed();
        }
        Ok(())
    }

    async fn zero_blocks(&self, part: &Piece, how: Zeroing, lease: &Lease) -> Result<()> {
        self.keep_bounds().await?;
        let blocks = part.blocks();
        let _held = self.lock(part.index, blocks, blocks, lease).await?;
        let zero = match how {
            Zeroing::Zero => ZeroMode::Keep,
            Zeroing::Unmap | Zeroing::ZeroUnmap => ZeroMode::Punch,
        };
        let (id, partial) = match self.stored(part).await?.1 {
            Stored::Nothing => return Ok(()),
            Stored::Complete(id) => (id, None),
            Stored::Partial(id, partial) => (id, Some(partial)),
        };
        let runs = match &partial {
            // What is not valid reads as zeros already.
            Some(partial) => partial.runs(blocks),
            None => vec![(blocks, true)],
        };
        for (run, _) in runs.into_iter().filter(|(_, valid)| *valid) {
            lease.check()?;
            let outcome = self
                .pool
                .store
                .write_zeroes(id, run, zero, WriteMode::Existing)
                .await;
            self.unsynced.borrow_mut().insert(id);
            outcome.map_err(|error| write_error(self.id, id, error))?;
        }
        self.changed();
        Ok(())
    }

    /// What the map says of a piece's object, and its page, held.
    pub(super) async fn stored(&self, piece: &Piece) -> Result<(Rc<Page>, Stored)> {
        let (page_no, slot) = page_of(piece.index);
        let page = self.table.page(page_no).await?;
        loop {
            let entry = page.get(slot);
            let stored = match entry.kind() {
                EntryKind::Absent | EntryKind::Hole => Stored::Nothing,
                EntryKind::Object(generation) => {
                    let id = ObjectId::new(generation, piece.index);
                    if entry.is_partial() {
                        let partial = self.partials.get(id).await;
                        // It may have become complete, or left the map, while its record was read.
                        if page.get(slot) != entry {
                            continue;
                        }
                        Stored::Partial(id, partial?)
                    } else {
                        Stored::Complete(id)
                    }
                }
                EntryKind::Ref(_) | EntryKind::Row => {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!(
                            "volume {}: entry {} is of a kind that a volume's head cannot hold; \
                             run `atoll fsck`",
                            self.id, piece.index
                        ),
                    ));
                }
            };
            return Ok((page, stored));
        }
    }

    pub(super) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        self.shared.check_range(self.id, offset, len)
    }
}

/// A range of an object is this operation's alone, on every core.
pub(super) struct BlockLock {
    /// Given free first: who is next here does not find it taken.
    _claim: Option<HomeClaim>,
    _range: RangeGuard,
}

pub(super) fn write_error(volume: ResourceId, id: ObjectId, error: atoll_backends::Error) -> Error {
    if error.kind() == atoll_backends::ErrorKind::NotFound {
        tracing::error!(%volume, %id, "the map names a missing object");
        return Error::new(
            ErrorKind::Corrupt,
            format!("volume {volume}: object {id} of the map is missing: {error}"),
        );
    }
    Error::from(error)
}

/// Objects that one zeroing works on at a time.
const PARALLEL_ZEROING: usize = 16;

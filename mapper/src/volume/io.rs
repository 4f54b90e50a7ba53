//! Reading and writing by the map.
//!
//! **Invariant:** an entry is published after its object's data is complete, a bit of validity after
//! its block's data (M2). A block that an operation writes stays locked until the store has ended it.

use super::Volume;
use super::claiming::{HomeClaim, places};
use super::layers::{Chain, chain, extend, sources};
use super::lease::Lease;
use super::node::Node;
use super::partials::Partial;
use super::pieces::{Piece, pieces};
use super::table::{Page, page_of};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Below, Entry, EntryKind};
use crate::local::{RangeGuard, join_all};
use crate::types::{PageNo, ResourceId};
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

/// Where an operation found an index in the map: what it changes it publishes there, though another node be the head
/// by then.
pub(super) struct Spot {
    pub(super) node: Rc<Node>,
    pub(super) page: Rc<Page>,
    pub(super) page_no: PageNo,
    pub(super) slot: u16,
}

impl Spot {
    pub(super) fn entry(&self) -> Entry {
        self.page.get(self.slot)
    }
}

/// What the head itself has of an index that may be written in place.
pub(super) enum Stored {
    /// Nothing: zeros, or an object that is not this volume's alone.
    NotOwn,
    /// All blocks of it.
    Complete(ObjectId),
    /// The blocks that the record says.
    Partial(ObjectId, Rc<Partial>),
}

/// What a new object begins with.
#[derive(Clone)]
pub(super) enum Content {
    Data(SharedBuf),
    Zeros(ZeroMode),
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
            let outcome = self.read_shown(piece).await;
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

    async fn read_shown(&self, piece: &Piece) -> Result<Segments> {
        let entry = self.effective(piece.index).await?;
        let data = match entry.kind() {
            EntryKind::Absent | EntryKind::Hole => SharedBuf::zeros(piece.len()),
            EntryKind::Object(generation) if !entry.is_partial() => {
                let id = ObjectId::new(generation, piece.index);
                self.read_bytes(id, piece).await?
            }
            // Apart, because it is rare and large, and every read would be as large.
            _ => return LocalFuture::new(self.read_layers(piece)).await,
        };
        Ok(Segments::from_iter([data]))
    }

    /// A piece whose blocks are spread over objects: all of their parts at once.
    async fn read_layers(&self, piece: &Piece) -> Result<Segments> {
        let layers = self.layers(piece.index).await?;
        let runs = sources(&layers, piece.blocks());
        let reads = runs.into_iter().map(|(run, source)| {
            let part = piece.within(run);
            LocalFuture::new(async move {
                match source {
                    Some(id) => self.read_bytes(id, &part).await,
                    None => Ok(SharedBuf::zeros(part.len())),
                }
            })
        });
        join_all(reads).await.into_iter().collect()
    }

    /// Whole blocks of an index, as the map shows them.
    pub(super) async fn read_blocks(
        &self,
        index: ObjectIndex,
        blocks: BlockRange,
    ) -> Result<Segments> {
        let piece = Piece {
            index,
            bytes: blocks.first * BLOCK_SIZE..blocks.end() * BLOCK_SIZE,
            at: 0,
        };
        self.read_piece(&piece).await
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
                let _epoch = volume.epochs.begin();
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
    pub(super) async fn write_piece(
        &self,
        piece: Piece,
        data: SharedBuf,
        lease: &Lease,
    ) -> Result<()> {
        self.keep_bounds().await?;
        let blocks = piece.blocks();
        let held = self.lock(piece.index, blocks, blocks, lease).await?;
        let (spot, stored) = self.stored(piece.index).await?;
        if !matches!(stored, Stored::NotOwn) {
            return self.write_stored(&piece, data, &spot, stored, lease).await;
        }
        drop((held, spot));
        // Apart, because it is rare and large, and every write would be as large.
        LocalFuture::new(self.write_first(piece, data, lease)).await
    }

    /// A piece of an index of which the head has nothing that is written in place.
    async fn write_first(&self, piece: Piece, data: SharedBuf, lease: &Lease) -> Result<()> {
        // Creating an object takes all of it: its first writes come one after the other.
        let whole = BlockRange::whole(self.pool.object_size);
        let held = self.lock(piece.index, whole, piece.blocks(), lease).await?;
        self.write_locked(&piece, data, &held, lease).await
    }

    /// A piece of an object that is locked, all of it where nothing is written in place yet.
    pub(super) async fn write_locked(
        &self,
        piece: &Piece,
        data: SharedBuf,
        held: &BlockLock,
        lease: &Lease,
    ) -> Result<()> {
        loop {
            let (spot, stored) = self.stored(piece.index).await?;
            if !matches!(stored, Stored::NotOwn) {
                return self.write_stored(piece, data, &spot, stored, lease).await;
            }
            let content = Content::Data(data.clone());
            if self
                .create_object(piece, content, &spot, held, lease)
                .await?
            {
                return Ok(());
            }
        }
    }

    /// Into an object that is there.
    pub(super) async fn write_stored(
        &self,
        piece: &Piece,
        data: SharedBuf,
        spot: &Spot,
        stored: Stored,
        lease: &Lease,
    ) -> Result<()> {
        match stored {
            Stored::NotOwn => unreachable!("the caller creates the object"),
            Stored::Complete(id) => {
                let data = self.whole_blocks(piece, data).await?;
                lease.check()?;
                self.store_write(id, piece.blocks().first, data, WriteMode::Existing)
                    .await
            }
            Stored::Partial(id, partial) => {
                let data = self.whole_blocks(piece, data).await?;
                let blocks = piece.blocks();
                lease.check()?;
                self.store_write(id, blocks.first, data, WriteMode::Existing)
                    .await?;
                self.publish(spot, id, &partial, blocks).await
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

    /// The first write to an index of which the head has nothing that is written in place. False if the node that was
    /// the head is not any more, and nothing was done.
    pub(super) async fn create_object(
        &self,
        piece: &Piece,
        content: Content,
        spot: &Spot,
        _whole_object: &BlockLock,
        lease: &Lease,
    ) -> Result<bool> {
        self.keep_budget().await?;
        let blocks = piece.blocks();
        let before = spot.entry();
        let whole = piece.is_whole_object(self.pool.object_size);
        let below = match before.kind() {
            EntryKind::Absent => match self.inherits(spot, piece.index).await? {
                true => Below::Implicit,
                false => Below::Zeros,
            },
            EntryKind::Object(generation) => Below::Object(ObjectId::new(generation, piece.index)),
            EntryKind::Ref(reference) => Below::Ref(reference),
            EntryKind::Hole | EntryKind::Row => Below::Zeros,
        };
        // What a whole object takes the place of.
        let replaced = match whole {
            true => Some(chain(&spot.node, piece.index, before).await?),
            false => None,
        };
        let content = match content {
            Content::Data(data) => Content::Data(self.whole_blocks(piece, data).await?),
            zeros => zeros,
        };
        let Some(generation) = self.current_generation(&spot.node).await? else {
            return Ok(false);
        };
        let id = ObjectId::new(generation, piece.index);
        let zeroes_new = self.pool.store.properties().zeroes_new;
        let complete = whole || (zeroes_new && below == Below::Zeros);
        lease.check()?;
        let partial = (!complete).then(|| spot.node.partials.create(id, below));
        let outcome = match content {
            Content::Data(data) => {
                self.store_write(id, blocks.first, data, WriteMode::Create)
                    .await
            }
            Content::Zeros(how) => self.store_zeroes(id, blocks, how, WriteMode::Create).await,
        };
        if let Err(error) = outcome {
            // Something of it may be at the store: that name is not used again.
            self.bury(&spot.node, id, !complete);
            self.changed();
            return Err(error);
        }
        if let Some(partial) = &partial {
            // Not all of them, or it would be complete.
            spot.node.partials.publish(id, partial, blocks);
        }
        if let Some(chain) = replaced {
            self.bury_chain(&spot.node, chain);
        }
        let entry = Entry::object(generation).with_partial(partial.is_some());
        self.set_entry(&spot.node, spot.page_no, &spot.page, spot.slot, entry);
        self.changed();
        if let Some(partial) = partial {
            self.consider_filling(&partial, piece.index);
        }
        Ok(true)
    }

    /// True if an index of which the node has no entry is not zeros all over.
    async fn inherits(&self, spot: &Spot, index: ObjectIndex) -> Result<bool> {
        if !spot.node.has_parent() {
            return Ok(false);
        }
        if !self.is_head(&spot.node) {
            // Rare, and it may be: something that is not there reads as zeros.
            return Ok(true);
        }
        let shown = self.effective(index).await?;
        Ok(!matches!(shown.kind(), EntryKind::Absent | EntryKind::Hole))
    }

    /// Blocks are complete at the store: they become valid, and with the last one the object.
    pub(super) async fn publish(
        &self,
        spot: &Spot,
        id: ObjectId,
        partial: &Rc<Partial>,
        blocks: BlockRange,
    ) -> Result<()> {
        let below = match partial.below() {
            Below::Object(_) | Below::Ref(_) if partial.is_full_with(blocks) => {
                let mut chain = Chain::default();
                extend(&spot.node, id, partial.clone(), &mut chain).await?;
                chain.objects.remove(0);
                Some(chain)
            }
            _ => None,
        };
        if spot.node.partials.publish(id, partial, blocks) {
            // Nothing below is needed any more.
            if let Some(below) = below {
                self.bury_chain(&spot.node, below);
            }
            self.nodes.moved();
            let entry = Entry::object(id.generation);
            self.set_entry(&spot.node, spot.page_no, &spot.page, spot.slot, entry);
        } else {
            self.consider_filling(partial, id.index);
        }
        self.changed();
        Ok(())
    }

    /// The piece's data as whole blocks: a part of a block is laid over what the block holds.
    async fn whole_blocks(&self, piece: &Piece, data: SharedBuf) -> Result<SharedBuf> {
        if piece.is_aligned() {
            return Ok(data);
        }
        let block = piece.blocks();
        debug_assert_eq!(block.count, 1, "pieces are split at block boundaries");
        // Under its lock the map is true of it, on whichever node: an object that is missing is no race (M9).
        let before = LocalFuture::new(self.read_blocks(piece.index, block)).await?;
        let before = before.into_iter().next().expect("one block is one segment");
        let mut whole = before
            .try_into_buf()
            .unwrap_or_else(|shared| Buf::copy_of(&shared));
        let start = (piece.bytes.start % BLOCK_SIZE) as usize;
        whole[start..start + data.len()].copy_from_slice(&data);
        Ok(whole.freeze())
    }

    pub(super) async fn store_zeroes(
        &self,
        id: ObjectId,
        blocks: BlockRange,
        how: ZeroMode,
        mode: WriteMode,
    ) -> Result<()> {
        let outcome = self.pool.store.write_zeroes(id, blocks, how, mode).await;
        // Also after a failure: a part may have been written.
        self.unsynced.borrow_mut().insert(id);
        self.changed();
        outcome.map_err(|error| write_error(self.id, id, error))
    }

    pub(super) async fn store_write(
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

    /// Where an index is in the head's map.
    pub(super) async fn spot(&self, index: ObjectIndex) -> Result<Spot> {
        let (page_no, slot) = page_of(index);
        loop {
            let node = self.head();
            let page = node.table.page(page_no).await?;
            if self.is_head(&node) {
                return Ok(Spot {
                    node,
                    page,
                    page_no,
                    slot,
                });
            }
        }
    }

    /// What the head has of an index, and where.
    pub(super) async fn stored(&self, index: ObjectIndex) -> Result<(Spot, Stored)> {
        let spot = self.spot(index).await?;
        loop {
            let entry = spot.entry();
            let stored = match entry.kind() {
                EntryKind::Object(generation)
                    if self.shared.is_own(generation) && !entry.is_frozen() =>
                {
                    let id = ObjectId::new(generation, index);
                    if entry.is_partial() {
                        let partial = spot.node.partials.get(id).await;
                        // It may have become complete, or left the map, while its record was read.
                        if spot.entry() != entry {
                            continue;
                        }
                        // Or the node is frozen now.
                        if !self.is_head(&spot.node) {
                            return LocalFuture::new(self.stored(index)).await;
                        }
                        Stored::Partial(id, partial?)
                    } else {
                        Stored::Complete(id)
                    }
                }
                _ => Stored::NotOwn,
            };
            return Ok((spot, stored));
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

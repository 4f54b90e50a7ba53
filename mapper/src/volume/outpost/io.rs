//! Reading and writing on a core that is not the home. Each piece of a request is done here where the
//! map allows it; where not, the home core is asked, after everything here was given free: what
//! waits there must not hold up a fence here.

use super::Outpost;
use crate::error::Result;
use crate::format::EntryKind;
use crate::handle::on_home;
use crate::local::join_all;
use crate::volume::claiming::{Places, places};
use crate::volume::io::write_error;
use crate::volume::lease::Lease;
use crate::volume::pieces::{Piece, pieces};
use crate::volume::{MAX_UNSYNCED, Segments, Volume, limited};
use atoll_backends::{
    BlockRange, ErrorKind as StoreError, Generation, ObjectId, ReadHint, WriteMode,
};
use atoll_reactor::{LocalFuture, SharedBuf, core_id};
use smallvec::SmallVec;
use std::rc::Rc;

/// What became of a piece that was tried here.
enum Tried<T> {
    Done(T),
    /// It is the home core's to do.
    NotHere,
}

impl Outpost {
    /// Reads `len` bytes at `offset`; multiples of 512.
    pub(crate) async fn read(
        self: &Rc<Self>,
        offset: u64,
        len: u64,
        lease: Lease,
    ) -> Result<Segments> {
        let outpost = self.clone();
        let limit = lease.clone();
        limited("read", self.id, limit, async move {
            let size = outpost.object_size();
            let mut parts = pieces(offset, len, size);
            let (first, second) = (parts.next(), parts.next());
            let Some(first) = first else {
                return Ok(Segments::new());
            };
            let Some(second) = second else {
                return outpost.read_piece(offset, first, &lease).await;
            };
            let (outpost, lease) = (&outpost, &lease);
            let reads = [first, second]
                .into_iter()
                .chain(parts)
                .map(|piece| LocalFuture::new(outpost.read_piece(offset, piece, lease)));
            let mut segments = Segments::new();
            for part in join_all(reads).await {
                segments.extend(part?);
            }
            Ok(segments)
        })
        .await
    }

    async fn read_piece(&self, request: u64, piece: Piece, lease: &Lease) -> Result<Segments> {
        if let Tried::Done(data) = self.try_read(&piece).await? {
            return Ok(data);
        }
        let (offset, len) = (request + piece.at as u64, piece.len() as u64);
        let lease = lease.clone();
        on_home(&self.home, self.id, move |volume| async move {
            volume.read(offset, len, lease).await
        })
        .await
    }

    async fn try_read(&self, piece: &Piece) -> Result<Tried<Segments>> {
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check(piece)?;
        let entry = self.lookup(piece.index).await?;
        let data = match entry.kind() {
            EntryKind::Absent | EntryKind::Hole => SharedBuf::zeros(piece.len()),
            EntryKind::Object(generation) if !entry.is_partial() => {
                let id = ObjectId::new(generation, piece.index);
                let store = &self.admitted().pool.store;
                match store.read(id, piece.blocks(), ReadHint::default()).await {
                    Ok(data) => piece.cut(data),
                    // The home core looks it up once more, and says what it is (M9).
                    Err(error) if error.kind() == StoreError::NotFound => {
                        return Ok(Tried::NotHere);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            _ => return Ok(Tried::NotHere),
        };
        // A sync that failed meanwhile may have lost what was read.
        self.shared.check_fault(self.id)?;
        Ok(Tried::Done(SmallVec::from_iter([data])))
    }

    /// Writes at `offset`; multiples of 512. With `fua` it is durable when it returns.
    pub(crate) async fn write(
        self: &Rc<Self>,
        offset: u64,
        data: SharedBuf,
        fua: bool,
        lease: Lease,
    ) -> Result<()> {
        let outpost = self.clone();
        let limit = lease.clone();
        limited("write", self.id, limit, async move {
            let len = data.len() as u64;
            let mut parts = pieces(offset, len, outpost.object_size()).flat_map(|p| p.split());
            let (first, second) = (parts.next(), parts.next());
            match (first, second) {
                (None, _) => {}
                (Some(only), None) => outpost.write_piece(offset, only, &data, &lease).await?,
                (Some(first), Some(second)) => {
                    let (outpost, data, lease) = (&outpost, &data, &lease);
                    let writes = [first, second].into_iter().chain(parts).map(|piece| {
                        LocalFuture::new(outpost.write_piece(offset, piece, data, lease))
                    });
                    for outcome in join_all(writes).await {
                        outcome?;
                    }
                }
            }
            outpost.shared.check_fault(outpost.id)?;
            match fua {
                true => {
                    let durable = move |volume: Rc<Volume>| async move {
                        volume.make_durable(offset, len).await
                    };
                    on_home(&outpost.home, outpost.id, durable).await
                }
                false => Ok(()),
            }
        })
        .await
    }

    /// A piece that is whole blocks or a part of one.
    async fn write_piece(
        &self,
        request: u64,
        piece: Piece,
        data: &SharedBuf,
        lease: &Lease,
    ) -> Result<()> {
        let part = piece.of(data);
        if piece.is_aligned()
            && let Tried::Done(()) = self.try_write(&piece, &part, lease).await?
        {
            return Ok(());
        }
        let offset = request + piece.at as u64;
        let lease = lease.clone();
        on_home(&self.home, self.id, move |volume| async move {
            volume.write(offset, part, false, lease).await
        })
        .await
    }

    async fn try_write(&self, piece: &Piece, data: &SharedBuf, lease: &Lease) -> Result<Tried<()>> {
        if self.unsynced.borrow().len() > MAX_UNSYNCED {
            on_home(
                &self.home,
                self.id,
                |volume| async move { volume.flush().await },
            )
            .await?;
        }
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check(piece)?;
        let blocks = piece.blocks();
        // Writes of this core take turns here, those of others keep off by the claim.
        let _held = lease.within(self.locks.lock(piece.index, blocks)).await?;
        // Fetches the page where it is not here yet; what counts is the look under the claim.
        if self.writable(self.lookup(piece.index).await?).is_none() {
            return Ok(Tried::NotHere);
        }
        let Some(_claim) = self.claim(piece, blocks) else {
            return Ok(Tried::NotHere);
        };
        let resident = self.resident(piece.index);
        let Some(generation) = resident.and_then(|entry| self.writable(entry)) else {
            return Ok(Tried::NotHere);
        };
        self.shared.check_fault(self.id)?;
        lease.check()?;
        let id = ObjectId::new(generation, piece.index);
        let store = &self.admitted().pool.store;
        let outcome = store
            .write(id, blocks.first, data.clone(), WriteMode::Existing)
            .await;
        // Also after a failure: a part may have been written.
        self.wrote(id);
        match outcome {
            Ok(()) => Ok(Tried::Done(())),
            Err(error) => Err(write_error(self.id, id, error)),
        }
    }

    fn claim(&self, piece: &Piece, blocks: BlockRange) -> Option<Claim<'_>> {
        let mut claim = Claim {
            outpost: self,
            places: Places::new(),
        };
        for place in places(self.object_size(), piece.index, blocks) {
            if !self.admitted().claims.enter(usize::from(place), core_id()) {
                return None;
            }
            claim.places.push(place);
        }
        Some(claim)
    }

    /// The generation of an object that is written in place: complete, and of this volume alone.
    fn writable(&self, entry: crate::format::Entry) -> Option<Generation> {
        match entry.kind() {
            EntryKind::Object(generation) if !entry.is_partial() && !entry.is_frozen() => {
                Some(generation).filter(|generation| self.shared.is_own(*generation))
            }
            _ => None,
        }
    }

    fn object_size(&self) -> atoll_backends::ObjectSize {
        self.admitted().pool.object_size
    }

    fn check(&self, piece: &Piece) -> Result<()> {
        let object = u64::from(self.object_size().bytes());
        let start = piece.index.get() * object + u64::from(piece.bytes.start);
        self.shared
            .check_range(self.id, start, piece.len() as u64)?;
        self.shared.check_fault(self.id)
    }
}

/// Places that this core is inside of.
struct Claim<'a> {
    outpost: &'a Outpost,
    places: Places,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let claims = &self.outpost.admitted().claims;
        for place in &self.places {
            claims.leave(usize::from(*place));
        }
    }
}

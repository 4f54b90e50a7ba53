//! Operations that read and write as one: no other write of the same blocks comes between. And what of a range is
//! stored. Which protocol asks for it is not its business.
//!
//! **Invariant:** all blocks that such an operation concerns are locked, on every core, before the first is read and until
//! the last is written at the store. Locks are taken in the order of the objects, so that two operations never wait for
//! each other; whoever else holds a lock waits for none.

use super::io::{BlockLock, Stored};
use super::layers::sources;
use super::lease::Lease;
use super::pieces::{Piece, pieces};
use super::{Segments, Volume};
use crate::error::{Error, ErrorKind, Result};
use crate::format::EntryKind;
use crate::local::join_all;
use atoll_backends::{BlockRange, Capacity, ObjectIndex};
use atoll_reactor::{Buf, LocalFuture, SharedBuf};
use std::rc::Rc;

/// Objects that one look at the map takes in: what a question costs is bounded whatever the volume's size.
const MAX_STATUS_OBJECTS: usize = 4096;

/// Bytes that are alike in being stored or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapExtent {
    /// Bytes, a multiple of 512.
    pub len: u64,
    /// False: nothing is stored, and zeros are read.
    pub mapped: bool,
}

/// The locks of an operation, one of each object that it touches.
struct Held(Vec<(ObjectIndex, BlockLock)>);

impl Held {
    fn of(&self, index: ObjectIndex) -> &BlockLock {
        let own = self.0.iter().find(|(object, _)| *object == index);
        &own.expect("every object was locked").1
    }
}

impl Volume {
    /// Writes at `offset` if what is there equals `compare`, which is as long as `write`; else gives the first byte that
    /// differs, counted from `offset`, and writes nothing.
    pub(crate) async fn compare_and_write(
        self: &Rc<Self>,
        offset: u64,
        compare: SharedBuf,
        write: SharedBuf,
        fua: bool,
        lease: Lease,
    ) -> Result<Option<u64>> {
        if compare.len() != write.len() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "what is compared and what is written differ in length",
            ));
        }
        let volume = self.clone();
        let limit = lease.clone();
        let len = write.len() as u64;
        self.limited("compare and write", limit, async move {
            {
                let _inside = volume.gate.pass().await;
                let _epoch = volume.epochs.begin();
                volume.check_range(offset, len)?;
                volume.check_fault()?;
                let all: Vec<Piece> = pieces(offset, len, volume.pool.object_size).collect();
                let held = volume.lock_all(&all, &lease).await?;
                let stored = volume.read_pieces(offset, len).await?;
                // A sync that failed meanwhile may have lost what was read.
                volume.check_fault()?;
                if let Some(at) = first_difference(&stored, &compare) {
                    return Ok(Some(at));
                }
                volume.write_held(&all, &write, &held, &lease).await?;
            }
            volume.end_write(offset, len, fua).await.map(|()| None)
        })
        .await
    }

    /// Lays the bits of `data` over what is stored at `offset`, so that the result has the ones of both.
    pub(crate) async fn or_write(
        self: &Rc<Self>,
        offset: u64,
        data: Segments,
        fua: bool,
        lease: Lease,
    ) -> Result<()> {
        let volume = self.clone();
        let limit = lease.clone();
        let len = data.iter().map(|part| part.len() as u64).sum();
        self.limited("or-write", limit, async move {
            {
                let _inside = volume.gate.pass().await;
                let _epoch = volume.epochs.begin();
                volume.check_range(offset, len)?;
                volume.check_fault()?;
                let all: Vec<Piece> = pieces(offset, len, volume.pool.object_size).collect();
                let held = volume.lock_all(&all, &lease).await?;
                // Part by part, so that no more than one is held twice.
                let mut at = offset;
                for part in data {
                    let len = part.len() as u64;
                    let stored = volume.read_pieces(at, len).await?;
                    volume.check_fault()?;
                    let merged = merged(&stored, &part);
                    let own: Vec<Piece> = pieces(at, len, volume.pool.object_size).collect();
                    volume.write_held(&own, &merged, &held, &lease).await?;
                    at += len;
                }
            }
            volume.end_write(offset, len, fua).await
        })
        .await
    }

    /// What is stored from `offset` on, at most `most` extents, of which neighbours differ. They begin at `offset`,
    /// reach at least one byte, and end where the volume does or earlier.
    pub(crate) async fn map_status(
        self: &Rc<Self>,
        offset: u64,
        most: usize,
        lease: Lease,
    ) -> Result<Vec<MapExtent>> {
        let volume = self.clone();
        self.limited("map status", lease, async move {
            let _inside = volume.gate.pass().await;
            let _epoch = volume.epochs.begin();
            volume.check_range(offset, 1)?;
            volume.check_fault()?;
            let rest = volume.size() - offset;
            let mut extents: Vec<MapExtent> = Vec::new();
            for piece in pieces(offset, rest, volume.pool.object_size).take(MAX_STATUS_OBJECTS) {
                let mut put = |len: u64, mapped: bool| match extents.last_mut() {
                    Some(last) if last.mapped == mapped => last.len += len,
                    _ => extents.push(MapExtent { len, mapped }),
                };
                let entry = volume.effective(piece.index).await?;
                match entry.kind() {
                    EntryKind::Absent | EntryKind::Hole => put(piece.len() as u64, false),
                    EntryKind::Object(_) if !entry.is_partial() => put(piece.len() as u64, true),
                    _ => {
                        let layers = volume.layers(piece.index).await?;
                        for (run, source) in sources(&layers, piece.blocks()) {
                            put(piece.within(run).len() as u64, source.is_some());
                        }
                    }
                }
                if extents.len() > most {
                    break;
                }
            }
            extents.truncate(most);
            Ok(extents)
        })
        .await
    }

    /// Room of the pool that the volume lies in.
    pub(crate) async fn pool_capacity(self: &Rc<Self>, lease: Lease) -> Result<Capacity> {
        let volume = self.clone();
        self.limited("capacity of the pool", lease, async move {
            Ok(volume.pool.store.capacity().await?)
        })
        .await
    }

    async fn end_write(&self, offset: u64, len: u64, fua: bool) -> Result<()> {
        self.check_fault()?;
        if fua {
            self.make_durable(offset, len).await
        } else {
            Ok(())
        }
    }

    /// Locks what the pieces touch, in the order of their objects: their blocks, and all of an object that does not exist
    /// yet, because creating one takes all of it.
    async fn lock_all(&self, all: &[Piece], lease: &Lease) -> Result<Held> {
        self.keep_bounds().await?;
        self.keep_budget().await?;
        // Objects that were found absent; never taken out again, so that this ends.
        let mut absent: Vec<ObjectIndex> = Vec::new();
        loop {
            let mut held = Held(Vec::with_capacity(all.len()));
            for piece in all {
                let range = match absent.contains(&piece.index) {
                    true => BlockRange::whole(self.pool.object_size),
                    false => piece.blocks(),
                };
                let guard = self.lock(piece.index, range, piece.blocks(), lease).await?;
                held.0.push((piece.index, guard));
            }
            let known = absent.len();
            for piece in all {
                let nothing = matches!(self.stored(piece.index).await?.1, Stored::NotOwn);
                if nothing && !absent.contains(&piece.index) {
                    absent.push(piece.index);
                }
            }
            if absent.len() == known {
                return Ok(held);
            }
        }
    }

    /// Writes pieces whose blocks [`Volume::lock_all`] has locked.
    async fn write_held(
        &self,
        all: &[Piece],
        data: &SharedBuf,
        held: &Held,
        lease: &Lease,
    ) -> Result<()> {
        let writes = all.iter().map(|piece| {
            LocalFuture::new(async move {
                // One part after the other: the first may create the object.
                for part in piece.split() {
                    let data = data.slice(part.at..part.at + part.len());
                    let lock = held.of(part.index);
                    self.write_locked(&part, data, lock, lease).await?;
                }
                Ok::<(), Error>(())
            })
        });
        let outcomes = join_all(writes).await;
        outcomes.into_iter().collect()
    }
}

/// Where the bytes of `stored` and `other`, which are equally many, first differ.
fn first_difference(stored: &Segments, other: &[u8]) -> Option<u64> {
    let mut at = 0;
    for part in stored {
        let own = &other[at..at + part.len()];
        if part[..] != *own {
            let inside = part.iter().zip(own).position(|(a, b)| a != b)?;
            return Some((at + inside) as u64);
        }
        at += part.len();
    }
    None
}

/// The ones of both, which are equally long.
fn merged(stored: &Segments, data: &[u8]) -> SharedBuf {
    let mut merged = Buf::copy_of(data);
    let old = stored.iter().flat_map(|part| part.iter());
    for (byte, old) in merged.iter_mut().zip(old) {
        *byte |= old;
    }
    merged.freeze()
}

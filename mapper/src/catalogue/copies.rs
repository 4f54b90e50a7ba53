//! Copies between resources of a pool, and what differs between two resources of one tree.

use super::Catalogue;
use super::collect::Pin;
use crate::core_state::core_state;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{CounterKind, CounterRow, Key, ResourceKind, ResourceRow};
use crate::handle::{VolumeHandle, on_core};
use crate::meta::{Batch, Durability};
use crate::types::{NodeId, PoolNumber, RefId, ResourceId, ResourceName};
use crate::volume::{Changes, Lines, Segments, Share, Side, changes};
use atoll_backends::ObjectIndex;
use atoll_reactor::{Buf, SharedBuf, sleep, spawn_detached};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// What became of a range that was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Bytes for which both maps name the same objects now, or nothing.
    pub shared: u64,
    /// Bytes that were read and written.
    pub copied: u64,
}

/// Objects that are shared in one go.
const SHARED_AT_ONCE: usize = 512;
/// Bytes of a part, a multiple of every object size: for so long verbs of the pool wait.
const PART_BYTES: u64 = 1 << 30;
/// Bytes that are copied in one go.
const COPIED_AT_ONCE: u64 = 1 << 20;

/// Pause before a target is flushed again.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);

/// A copy that was checked.
struct Copy {
    from: VolumeHandle,
    offset: u64,
    to: VolumeHandle,
    to_offset: u64,
    pool: PoolNumber,
    object: u64,
}

impl Catalogue {
    /// Copies a range between two resources, or inside of one, without overlap: aligned objects by naming them twice.
    /// What was written before it was asked for is copied, what is written to the source meanwhile may be. Durable when
    /// it returns; of one that fails a part may be done.
    pub(crate) async fn copy_range(
        self: &Rc<Self>,
        from: &ResourceName,
        offset: u64,
        to: &ResourceName,
        to_offset: u64,
        len: u64,
    ) -> Result<Copied> {
        let (source, target) = (self.id_of(from)?, self.id_of(to)?);
        self.check_copy((source, offset), (target, to_offset), len)?;
        let mut copied = Copied::default();
        let mut done = 0;
        while done < len {
            // Up to where parts of the source end, so that whole objects stay whole.
            let at = offset + done;
            let part = (PART_BYTES - at % PART_BYTES).min(len - done);
            let (from, to) = ((source, at), (target, to_offset + done));
            self.copy_part(from, to, part, &mut copied).await?;
            done += part;
        }
        Ok(copied)
    }

    fn check_copy(
        &self,
        (source, offset): (ResourceId, u64),
        (target, to_offset): (ResourceId, u64),
        len: u64,
    ) -> Result<()> {
        let (row, target_row) = (self.row(source)?, self.row(target)?);
        let (from, to) = (&row.name, &target_row.name);
        if target_row.kind != ResourceKind::Volume {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("\"{to}\" is a snapshot, which is never written to"),
            ));
        }
        if row.pool != target_row.pool {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "\"{from}\" and \"{to}\" are in different pools; export the one and import it"
                ),
            ));
        }
        check_inside(from, &row, offset, len)?;
        check_inside(to, &target_row, to_offset, len)?;
        if source == target && offset < to_offset + len && to_offset < offset + len {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the ranges of \"{from}\" overlap"),
            ));
        }
        Ok(())
    }

    async fn copy_part(
        self: &Rc<Self>,
        from: (ResourceId, u64),
        to: (ResourceId, u64),
        len: u64,
        copied: &mut Copied,
    ) -> Result<()> {
        let pool = self.row(from.0)?.pool;
        // Neither is deleted, rolled back or resized meanwhile, and nothing is merged; between two parts all of it may be.
        let _tree = self.lock_tree(pool).await?;
        self.check_copy(from, to, len)?;
        let offset = from.1;
        let copy = Copy {
            from: self.open_resource(from.0).await?,
            offset,
            to: self.open_resource(to.0).await?,
            to_offset: to.1,
            pool,
            object: self.object_bytes(pool)?,
        };
        if offset % copy.object == copy.to_offset % copy.object {
            let first = offset.next_multiple_of(copy.object).min(offset + len);
            let last = first.max((offset + len) / copy.object * copy.object);
            copied.copied += copy.data(0, first - offset).await?;
            self.share(&copy, first - offset, last - offset, copied)
                .await?;
            copied.copied += copy.data(last - offset, len).await?;
        } else {
            copied.copied += copy.data(0, len).await?;
        }
        copy.to.flush().await
    }

    /// Whole objects, from byte `from` to `to` of the copy.
    async fn share(
        self: &Rc<Self>,
        copy: &Copy,
        from: u64,
        to: u64,
        copied: &mut Copied,
    ) -> Result<()> {
        let mut at = from;
        while at < to {
            let count = ((to - at) / copy.object).min(SHARED_AT_ONCE as u64);
            let index = |base: u64| {
                let first = (base + at) / copy.object;
                (first..first + count).filter_map(ObjectIndex::new)
            };
            let indexes: Vec<ObjectIndex> = index(copy.offset).collect();
            let fresh = self.new_refs(count).await?;
            // None of them is given free before the copy names it, durably.
            let mut pins: Vec<Pin> = fresh.iter().map(|id| self.pin(copy.pool, *id)).collect();
            let id = copy.from.id();
            let shares = on_core(copy.from.home(), move || async move {
                core_state()?.volume(id)?.share(indexes, fresh).await
            })
            .await?;
            for share in &shares {
                if let Share::Ref(id, _) = share {
                    pins.push(self.pin(copy.pool, *id));
                }
            }
            let places: Vec<(ObjectIndex, Share)> =
                index(copy.to_offset).zip(shares.iter().copied()).collect();
            let named: Vec<_> = places
                .iter()
                .filter(|(_, share)| *share != Share::Copy)
                .copied()
                .collect();
            copied.shared += named.len() as u64 * copy.object;
            let id = copy.to.id();
            let naming = async {
                on_core(copy.to.home(), move || async move {
                    core_state()?.volume(id)?.adopt(named).await
                })
                .await?;
                let mut bytes = 0;
                for (place, share) in shares.iter().enumerate() {
                    if *share == Share::Copy {
                        let begin = at + place as u64 * copy.object;
                        bytes += copy.data(begin, begin + copy.object).await?;
                    }
                }
                copy.to.flush().await?;
                Ok(bytes)
            };
            match naming.await {
                Ok(bytes) => copied.copied += bytes,
                Err(error) => {
                    keep_until_durable(pins, copy.to.clone());
                    return Err(error);
                }
            }
            drop(pins);
            at += count * copy.object;
        }
        Ok(())
    }

    /// Refs that no later start gives out again.
    async fn new_refs(&self, count: u64) -> Result<Vec<RefId>> {
        let first = self.next_ref.get();
        let next = first + count;
        self.next_ref.set(next);
        let mut batch = Batch::new();
        batch.put_row(Key::counter(CounterKind::Ref), &CounterRow { next });
        self.meta.commit(batch, Durability::Unsynced).await?;
        let ids: Option<Vec<RefId>> = (first..next).map(RefId::new).collect();
        ids.ok_or_else(|| Error::new(ErrorKind::NoSpace, "the numbers of refs are used up"))
    }

    /// What of `to`, from `offset` on, may differ from `from`; without `from`, what of it is stored. At most `most`
    /// extents, and some more.
    pub(crate) async fn changes(
        self: &Rc<Self>,
        from: Option<&ResourceName>,
        to: &ResourceName,
        offset: u64,
        most: usize,
    ) -> Result<Changes> {
        let row = self.row(self.id_of(to)?)?;
        let _tree = self.lock_tree(row.pool).await?;
        let mut sides = vec![self.side(to).await?];
        if let Some(from) = from {
            sides.push(self.side(from).await?);
        }
        let (to_side, from_side) = (sides[0], sides.get(1).copied());
        let lines = self.lines(to_side, from_side).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("\"{to}\" and what it is compared with are of different trees"),
            )
        })?;
        let home = self.home(to_side.node)?;
        on_core(&home, move || {
            changes(from_side, to_side, lines, offset, most)
        })
        .await
    }

    /// A resource with its changes committed.
    async fn side(self: &Rc<Self>, name: &ResourceName) -> Result<Side> {
        let id = self.id_of(name)?;
        if let Some((home, _)) = self.opened(id) {
            on_core(&home, move || async move {
                core_state()?.volume(id)?.flush().await
            })
            .await?;
        }
        let row = self.row(id)?;
        Ok(Side {
            node: row.node,
            size: row.size,
        })
    }

    /// The nodes that only one of both inherits from, and those that both do; none if they have nothing to do with each
    /// other.
    fn lines(&self, to: Side, from: Option<Side>) -> Option<Lines> {
        let tree = self.tree.borrow();
        let line = |node: NodeId| std::iter::once(node).chain(tree.ancestors(node));
        let Some(from) = from else {
            return Some(Lines {
                apart: line(to.node).collect(),
                common: Vec::new(),
            });
        };
        let above: BTreeSet<NodeId> = line(from.node).collect();
        let common = line(to.node).find(|node| above.contains(node))?;
        let own = |side: Side| line(side.node).take_while(move |node| *node != common);
        Some(Lines {
            apart: own(to).chain(own(from)).collect(),
            common: line(common).collect(),
        })
    }
}

impl Copy {
    /// Reads and writes bytes `from` to `to` of the copy.
    async fn data(&self, from: u64, to: u64) -> Result<u64> {
        let mut at = from;
        while at < to {
            let len = (to - at).min(COPIED_AT_ONCE);
            let data = joined(self.from.read(self.offset + at, len).await?);
            match data.iter().all(|byte| *byte == 0) {
                true => {
                    self.to
                        .write_zeroes(self.to_offset + at, len, true, false)
                        .await?;
                }
                false => self.to.write(self.to_offset + at, data, false).await?,
            }
            at += len;
        }
        Ok(to - from)
    }
}

/// What a copy has named before it failed is in its target's map: it is not given free before that is durable.
fn keep_until_durable(pins: Vec<Pin>, to: VolumeHandle) {
    spawn_detached(async move {
        while let Err(error) = to.flush().await {
            // Nothing of it is committed any more.
            if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Faulted) {
                break;
            }
            sleep(FLUSH_PAUSE).await;
        }
        drop(pins);
    });
}

fn joined(segments: Segments) -> SharedBuf {
    if let [only] = &segments[..] {
        return only.clone();
    }
    let mut whole = Buf::alloc(segments.iter().map(|part| part.len()).sum());
    let mut at = 0;
    for part in segments {
        whole[at..at + part.len()].copy_from_slice(&part);
        at += part.len();
    }
    whole.freeze()
}

fn check_inside(name: &ResourceName, row: &ResourceRow, offset: u64, len: u64) -> Result<()> {
    let aligned = offset.is_multiple_of(512) && len.is_multiple_of(512);
    match offset.checked_add(len) {
        Some(end) if end <= row.size && aligned => Ok(()),
        _ => Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "bytes {offset}+{len} are not whole sectors of \"{name}\", whose size is {}",
                row.size
            ),
        )),
    }
}

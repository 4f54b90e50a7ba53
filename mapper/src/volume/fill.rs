//! Completing partial objects in the background: those that are at least half written, and those whose completion gives
//! free what lies below them. Only blocks that were never valid are written.
//!
//! **Invariant:** what is copied from below is what is there after every write to these blocks has ended, on every core:
//! the whole object is locked, also for writes that were begun before a cut.

use super::Volume;
use super::io::{Spot, Stored, write_error};
use super::layers::{Layers, sources};
use super::lease::Lease;
use super::partials::Partial;
use crate::error::Result;
use crate::format::Below;
use crate::pool::PoolContext;
use atoll_backends::{BlockRange, ObjectId, ObjectIndex, ReadHint, WriteMode, ZeroMode};
use atoll_reactor::spawn_detached;
use hashbrown::HashSet;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Objects that wait to be completed; more are found again when they are written to.
const MAX_WAITING: usize = 4096;
/// Blocks copied at a time.
const STEP_BLOCKS: u32 = 64;

/// Objects that are to be completed.
#[derive(Default)]
pub(super) struct Filling {
    waiting: RefCell<HashSet<ObjectIndex>>,
    running: Cell<bool>,
}

impl Volume {
    /// Notes an object for completion if that is worth it.
    pub(super) fn consider_filling(&self, partial: &Partial, index: ObjectIndex) {
        let much = partial.count() * 2 >= self.pool.object_size.blocks();
        if much && partial.below() != Below::Zeros {
            self.fill_later(index);
        }
    }

    /// Notes an object for completion.
    pub(super) fn fill_later(&self, index: ObjectIndex) {
        let filling = &self.filling;
        if !self.background.fill || filling.waiting.borrow().len() >= MAX_WAITING {
            return;
        }
        filling.waiting.borrow_mut().insert(index);
        if filling.running.replace(true) {
            return;
        }
        let volume = self.me.clone();
        spawn_detached(async move {
            while let Some(volume) = volume.upgrade() {
                let next = volume.filling.waiting.borrow().iter().next().copied();
                let Some(index) = next else {
                    volume.filling.running.set(false);
                    return;
                };
                volume.filling.waiting.borrow_mut().remove(&index);
                if let Err(error) = volume.fill(index).await {
                    // It stays partial, which is no harm.
                    tracing::debug!(volume = %volume.id, %index, %error, "an object could not be completed");
                }
            }
        });
    }

    /// Completes the head's own partial object at an index, if there is one.
    pub(super) async fn fill(&self, index: ObjectIndex) -> Result<()> {
        // Before anything is held that writes wait for.
        let steps = self.pool.object_size.blocks().div_ceil(STEP_BLOCKS);
        self.background.pace(steps).await;
        let _inside = self.gate.pass().await;
        let _epoch = self.epochs.begin();
        self.check_open()?;
        self.check_fault()?;
        self.keep_bounds().await?;
        let whole = BlockRange::whole(self.pool.object_size);
        let _held = self.lock(index, whole, whole, &Lease::unlimited()).await?;
        match self.stored(index).await? {
            (spot, Stored::Partial(id, partial)) => self.complete(&spot, id, &partial).await,
            _ => Ok(()),
        }
    }

    /// Copies into a partial object what it shows of those below. All of it is locked.
    pub(super) async fn complete(
        &self,
        spot: &Spot,
        id: ObjectId,
        partial: &Rc<Partial>,
    ) -> Result<()> {
        let whole = BlockRange::whole(self.pool.object_size);
        let layers = self.layers(id.index).await?;
        let gathered = gather(&self.pool, &layers, id, WriteMode::Existing).await;
        self.wrote(id);
        gathered.map_err(|error| write_error(self.id, id, error))?;
        self.publish(spot, id, partial, whole).await
    }
}

/// Copies into an object, which exists or is created, all that these layers show and that does not come from itself; the
/// number of steps that took. What was written is for the caller to sync, also after a failure.
pub(super) async fn gather(
    pool: &PoolContext,
    layers: &Layers,
    id: ObjectId,
    mode: WriteMode,
) -> atoll_backends::Result<u32> {
    let whole = BlockRange::whole(pool.object_size);
    let store = &pool.store;
    let is_new = mode == WriteMode::Create;
    let zeros_are_there = is_new && store.properties().zeroes_new;
    let hint = ReadHint {
        scan: true,
        ..ReadHint::default()
    };
    let mut exists = !is_new;
    let mut taken = 0;
    for (run, source) in sources(layers, whole) {
        if source == Some(id) {
            continue;
        }
        for part in steps(run) {
            taken += 1;
            match source {
                Some(source) => {
                    let data = store.read(source, part, hint).await?;
                    store.write(id, part.first, data, mode).await?;
                }
                None if zeros_are_there => continue,
                // Though nothing valid is there, something may have been written to an old object before a crash.
                None => store.write_zeroes(id, part, ZeroMode::Punch, mode).await?,
            }
            exists = true;
        }
    }
    if !exists {
        // The map is to name it.
        store.write_zeroes(id, whole, ZeroMode::Punch, mode).await?;
    }
    Ok(taken)
}

/// A range in parts that are copied at once.
fn steps(range: BlockRange) -> impl Iterator<Item = BlockRange> {
    (range.first..range.end())
        .step_by(STEP_BLOCKS as usize)
        .map(move |first| BlockRange::new(first, STEP_BLOCKS.min(range.end() - first)))
}

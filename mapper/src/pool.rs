//! A pool as one core sees it: its store, the generations that this core may hand out, and the
//! objects that wait for deletion.

use crate::catalogue::{ChunkSource, catalogue};
use crate::error::{Error, ErrorKind, Result};
use crate::gc::DeadQueue;
use crate::handle::tell;
use crate::local::WaitQueue;
use crate::refs::Refs;
use crate::types::{PoolNumber, RefId};
use atoll_backends::{Generation, ObjectSize, ObjectStore};
use std::cell::Cell;
use std::rc::Rc;

/// Generations reserved at a time: a core takes a chunk, and starts one afresh at every start.
pub const GENERATION_CHUNK: u64 = 1024;

/// One core's part of a pool.
pub(crate) struct PoolContext {
    pub(crate) number: PoolNumber,
    pub(crate) object_size: ObjectSize,
    pub(crate) store: Rc<dyn ObjectStore>,
    pub(crate) generations: Generations,
    pub(crate) dead: DeadQueue,
    pub(crate) refs: Refs,
}

impl PoolContext {
    /// Fewer name these refs than before, durably: the collector looks whether any does.
    pub(crate) fn refs_dropped(&self, ids: impl IntoIterator<Item = RefId>) {
        self.refs.dropped(ids);
        let number = self.number;
        tell(&self.generations.source.catalogue, move || async move {
            if let Ok(catalogue) = catalogue() {
                catalogue.collect(number);
            }
        });
    }
}

/// Hands out fresh generations of one pool on one core.
pub(crate) struct Generations {
    source: ChunkSource,
    next: Cell<Generation>,
    /// End of the chunk, exclusive.
    end: Cell<Generation>,
    reserving: Cell<bool>,
    waiting: WaitQueue,
}

impl Generations {
    pub(crate) fn new(source: ChunkSource) -> Generations {
        Generations {
            source,
            next: Cell::new(Generation::ZERO),
            end: Cell::new(Generation::ZERO),
            reserving: Cell::new(false),
            waiting: WaitQueue::default(),
        }
    }

    /// A generation that was never used and never will be by anybody else. Waits for a durable
    /// reservation when the chunk is used up.
    pub(crate) async fn fresh(&self) -> Result<Generation> {
        loop {
            if let Some(generation) = self.take() {
                return Ok(generation);
            }
            if self.reserving.replace(true) {
                self.waiting
                    .until(|| (!self.reserving.get()).then_some(()))
                    .await;
                continue;
            }
            let chunk = self.source.reserve().await;
            self.reserving.set(false);
            self.waiting.notify();
            let start = chunk?;
            let end = start.plus(GENERATION_CHUNK).ok_or_else(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    "the pool's 2^52 generations are used up",
                )
            })?;
            self.next.set(start);
            self.end.set(end);
        }
    }

    /// Has at least so many at hand when it returns, so that [`Generations::take`] finds one.
    pub(crate) async fn prepare(&self, count: u64) -> Result<()> {
        loop {
            let left = self.end.get().get().saturating_sub(self.next.get().get());
            if left >= count {
                return Ok(());
            }
            // The rest of the chunk is left out: a chunk is used from its beginning to its end.
            self.next.set(self.end.get());
            let first = self.fresh().await?;
            tracing::trace!(%first, "a chunk of generations is begun");
        }
    }

    /// The next one, if there is one at hand: above all that this core has given out before.
    pub(crate) fn take(&self) -> Option<Generation> {
        let next = self.next.get();
        if next >= self.end.get() {
            return None;
        }
        self.next.set(next.plus(1)?);
        Some(next)
    }
}

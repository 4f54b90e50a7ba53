//! The test's end of a chaotic store: arms faults, counts calls, corrupts, releases, pulls the plug.

use super::Shared;
use super::crash::{CrashReport, End, end};
use super::faults::{Fault, Op};
use crate::{BLOCK_SIZE, BlockRange, ObjectId, Pool, ReadHint, Result, WriteMode};
use atoll_reactor::Buf;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Objects listed at a time when one is picked.
const LIST_LIMIT: usize = 1024;

/// Controls the faults of a [`super::Chaos`]; usable from any thread, clones control the same.
#[derive(Clone)]
pub struct ChaosHandle {
    shared: Arc<Shared>,
}

impl ChaosHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> ChaosHandle {
        ChaosHandle { shared }
    }

    /// The `kth` call of that type from now on (1 is the next) gets the fault.
    pub fn fail_call(&self, op: Op, kth: u64, fault: Fault) {
        let state = &self.shared.state;
        state.with_now(|state| state.plan.arm(op, kth, fault));
    }

    /// Each call of that type gets the fault with that probability (0.0 to 1.0).
    pub fn fail_with_probability(&self, op: Op, probability: f64, fault: Fault) {
        let state = &self.shared.state;
        state.with_now(|state| state.plan.likely(op, probability, fault));
    }

    /// Each call of that type takes a time from the range, in part before and in part after it is
    /// done at the wrapped store.
    pub fn delay(&self, op: Op, range: Range<Duration>) {
        let state = &self.shared.state;
        state.with_now(|state| state.plan.delay(op, range));
    }

    /// No more new faults and delays. What hangs goes on hanging.
    pub fn heal(&self) {
        self.shared.state.with_now(|state| state.plan.clear());
    }

    /// All that hang go on.
    pub fn release(&self) {
        let hung = self
            .shared
            .state
            .with_now(|state| std::mem::take(&mut state.hung));
        for operation in hung {
            // Whoever gave up does not mind.
            let _ = operation.send(());
        }
    }

    /// Operations that hang now.
    pub fn hanging(&self) -> usize {
        self.shared.state.with_now(|state| state.hung.len())
    }

    /// Calls of that type so far, failed ones included.
    pub fn calls(&self, op: Op) -> u64 {
        self.shared.state.with_now(|state| state.plan.calls(op))
    }

    /// Objects of which a power loss might undo something.
    pub fn unsynced_objects(&self) -> Vec<ObjectId> {
        let state = &self.shared.state;
        state.with_now(|state| state.log.objects.keys().copied().collect())
    }

    /// Makes the wrapped store look as after a power loss, drawn from `seed`. Stores attached
    /// before answer `Offline` from now on; attach again. Runs on a core, of the same runtime or of
    /// a later one. The faults that were armed stay armed.
    pub async fn crash(&self, seed: u64) -> Result<CrashReport> {
        end(&self.shared, seed, End::PowerLoss).await
    }

    /// As [`ChaosHandle::crash`] for the end of the process only (`kill -9`): what was complete
    /// stays, and stays unsynced; writes on their way land in part.
    pub async fn kill(&self, seed: u64) -> Result<CrashReport> {
        end(&self.shared, seed, End::Kill).await
    }

    /// Flips one bit of a block at the wrapped store. `bit` counts from 0 inside of the block.
    pub async fn corrupt(&self, id: ObjectId, block: u32, bit: u32) -> Result<()> {
        assert!(bit < BLOCK_SIZE * 8, "bit {bit} of a block");
        let store = self.shared.inner.attach().await?;
        let range = BlockRange::new(block, 1);
        let data = store.read(id, range, ReadHint::default()).await?;
        let mut data = Buf::copy_of(&data);
        data[bit as usize / 8] ^= 1 << (bit % 8);
        store
            .write(id, block, data.freeze(), WriteMode::Existing)
            .await
    }

    /// Flips a bit somewhere in the pool; what it hit, or `None` if the pool has no object.
    pub async fn corrupt_any(&self, seed: u64) -> Result<Option<(ObjectId, u32, u32)>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let store = self.shared.inner.attach().await?;
        let mut objects = Vec::new();
        let mut from = None;
        loop {
            let page = store.list(from, LIST_LIMIT).await?;
            objects.extend(page.objects);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        if objects.is_empty() {
            return Ok(None);
        }
        let id = objects[rng.random_range(0..objects.len())];
        let block = rng.random_range(0..store.properties().object_size.blocks());
        let bit = rng.random_range(0..BLOCK_SIZE * 8);
        self.corrupt(id, block, bit).await?;
        Ok(Some((id, block, bit)))
    }

    /// The wrapped pool, without faults.
    pub fn inner(&self) -> Arc<dyn Pool> {
        self.shared.inner.clone()
    }
}

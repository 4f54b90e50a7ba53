//! Faults around any store, all drawn from one seed: errors, delays, hangs, lost syncs, late
//! landings, corruption, and power losses that keep, drop or tear what was not synced.
//! For tests: it keeps the contents of unsynced blocks in memory. It decides nothing about what
//! callers should make of a fault.

mod crash;
mod faults;
mod handle;
mod log;
mod store;

pub use crash::CrashReport;
pub use faults::{Fault, Op};
pub use handle::ChaosHandle;

use crate::slot::Slot;
use crate::{BLOCK_SIZE, Error, ErrorKind, ObjectId, ObjectStore, Pool, Result};
use atoll_reactor::{LocalFuture, oneshot};
use faults::Plan;
use log::UndoLog;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use store::ChaosStore;

#[derive(Clone, Copy, Debug)]
pub struct ChaosOptions {
    pub seed: u64,
    /// Bytes that a crash does not tear: a power of two from 512 to the block size.
    pub atomic_unit: u32,
}

impl Default for ChaosOptions {
    fn default() -> ChaosOptions {
        ChaosOptions {
            seed: 0,
            atomic_unit: 512,
        }
    }
}

/// What all cores and the handle share. Ordered maps only: one seed gives one history.
pub(crate) struct State {
    rng: ChaCha8Rng,
    plan: Plan,
    log: UndoLog,
    /// Objects that a change is being made to, and who waits for its end.
    busy: BTreeMap<ObjectId, Vec<oneshot::Sender<()>>>,
    /// Operations that hang until released.
    hung: Vec<oneshot::Sender<()>>,
    /// Crashes so far. A store attached before one is dead.
    epoch: u64,
}

pub(crate) struct Shared {
    options: ChaosOptions,
    inner: Arc<dyn Pool>,
    state: Slot<State>,
}

/// A pool with faults.
#[derive(Clone)]
pub struct Chaos {
    shared: Arc<Shared>,
}

impl Chaos {
    /// Without faults until the handle asks for some.
    pub fn new(inner: Arc<dyn Pool>, options: ChaosOptions) -> (Chaos, ChaosHandle) {
        assert!(
            options.atomic_unit.is_power_of_two()
                && (512..=BLOCK_SIZE).contains(&options.atomic_unit),
            "an atomic unit of {} bytes",
            options.atomic_unit
        );
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            plan: Plan::default(),
            log: UndoLog::default(),
            busy: BTreeMap::new(),
            hung: Vec::new(),
            epoch: 0,
        };
        let shared = Arc::new(Shared {
            options,
            inner,
            state: Slot::new(state),
        });
        let handle = ChaosHandle::new(shared.clone());
        (Chaos { shared }, handle)
    }
}

impl Pool for Chaos {
    fn attach(&self) -> LocalFuture<'_, Result<Rc<dyn ObjectStore>>> {
        LocalFuture::new(async move {
            let epoch = self.shared.state.with(|state| state.epoch).await;
            let inner = self.shared.inner.attach().await?;
            let store: Rc<dyn ObjectStore> =
                Rc::new(ChaosStore::new(self.shared.clone(), inner, epoch));
            Ok(store)
        })
    }
}

fn powerless() -> Error {
    Error::new(
        ErrorKind::Offline,
        "the injected power loss ended this store; attach again",
    )
}

/// The right to change one object: changes are made one after the other, so that the log of what
/// was before each is exact.
pub(crate) struct Busy {
    shared: Arc<Shared>,
    id: ObjectId,
}

impl Busy {
    /// Fails when there was a crash since `epoch`.
    async fn take(shared: &Arc<Shared>, id: ObjectId, epoch: u64) -> Result<Busy> {
        loop {
            let waiting = shared
                .state
                .with(|state| {
                    if state.epoch != epoch {
                        return Err(powerless());
                    }
                    let Some(others) = state.busy.get_mut(&id) else {
                        state.busy.insert(id, Vec::new());
                        return Ok(None);
                    };
                    let (sender, receiver) = oneshot::channel();
                    others.push(sender);
                    Ok(Some(receiver))
                })
                .await?;
            let Some(waiting) = waiting else {
                return Ok(Busy {
                    shared: shared.clone(),
                    id,
                });
            };
            // Closed or sent: either way it is worth another look.
            let _ = waiting.await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let waiting = self
            .shared
            .state
            .with_now(|state| state.busy.remove(&self.id));
        for waiter in waiting.into_iter().flatten() {
            // Whoever gave up does not mind.
            let _ = waiter.send(());
        }
    }
}

//! An opened volume as any core uses it: on the home core directly, elsewhere by an outpost.

use crate::cancel::Cancel;
use crate::core_state::{CoreState, core_state};
use crate::error::{Error, ErrorKind, Result};
use crate::types::ResourceId;
use crate::volume::outpost::Outpost;
use crate::volume::{Lease, MapExtent, Segments, Volume, VolumeShared, Zeroing};
use atoll_backends::Capacity;
use atoll_reactor::{CoreHandle, RemoteError, SharedBuf, core_id, sleep, spawn_detached};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A volume that is open. Clones are the same volume.
///
/// Offsets and lengths are bytes, multiples of 512. Errors: `OutOfRange`, `Closed` after the volume was
/// closed, `Faulted` after a failed flush, `Timeout` when the store did not answer in time (what of a
/// write had reached the store may still be applied, and its blocks stay held until it has ended;
/// the rest never is), `Busy` when a core has too much to do, and the pool's own.
#[derive(Clone)]
pub struct VolumeHandle {
    id: ResourceId,
    home: CoreHandle,
    shared: Arc<VolumeShared>,
    /// Carried by the operations that are begun with this handle.
    cancel: Cancel,
}

/// The volume as this core has it.
enum Here {
    Home(Rc<Volume>),
    Outpost(Rc<Outpost>),
}

impl VolumeHandle {
    pub(crate) fn new(id: ResourceId, home: CoreHandle, shared: Arc<VolumeShared>) -> VolumeHandle {
        VolumeHandle {
            id,
            home,
            shared,
            cancel: Cancel::never(),
        }
    }

    /// The same volume, for an operation that carries `cancel`: once that is cancelled, nothing of the operation that
    /// has not reached the store is begun any more, and it fails with `Cancelled`.
    #[must_use]
    pub fn with_cancel(&self, cancel: Cancel) -> VolumeHandle {
        VolumeHandle {
            cancel,
            ..self.clone()
        }
    }

    pub fn id(&self) -> ResourceId {
        self.id
    }

    /// The core that changes the volume's map.
    pub fn home(&self) -> &CoreHandle {
        &self.home
    }

    /// Size in bytes, as of now.
    pub fn size(&self) -> u64 {
        self.shared.size()
    }

    pub fn shared(&self) -> &Arc<VolumeShared> {
        &self.shared
    }

    /// Reads a range; the segments together are as long as asked.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Segments> {
        let counters = self.shared.counters_here();
        count(&counters.reads, 1);
        count(&counters.read_bytes, len);
        let outcome = async {
            let state = core_state()?;
            let lease = self.lease_of(&state)?;
            match self.here(&state).await? {
                Here::Home(volume) => volume.read(offset, len, lease).await,
                Here::Outpost(outpost) => outpost.read(offset, len, lease).await,
            }
        };
        self.told(outcome.await)
    }

    /// For measurements: looks `count` random entries below `objects` up, as reads on this core do whose pages are
    /// resident; gives how many of them name an object. One turn.
    #[doc(hidden)]
    pub async fn probe(&self, objects: u64, count: u64, seed: u64) -> Result<u64> {
        let state = core_state()?;
        Ok(match self.here(&state).await? {
            Here::Home(volume) => volume.probe(objects, count, seed),
            Here::Outpost(outpost) => outpost.probe(objects, count, seed),
        })
    }

    /// Writes at an offset. Durable when it returns with `fua`, after a later flush otherwise.
    pub async fn write(&self, offset: u64, data: SharedBuf, fua: bool) -> Result<()> {
        let counters = self.shared.counters_here();
        count(&counters.writes, 1);
        count(&counters.written_bytes, data.len() as u64);
        let outcome = async {
            self.shared.check_writable(self.id)?;
            let state = core_state()?;
            let lease = self.lease_of(&state)?;
            match self.here(&state).await? {
                Here::Home(volume) => volume.write(offset, data, fua, lease).await,
                Here::Outpost(outpost) => outpost.write(offset, data, fua, lease).await,
            }
        };
        self.told(outcome.await)
    }

    /// Makes everything that was acknowledged before durable.
    pub async fn flush(&self) -> Result<()> {
        count(&self.shared.counters_here().flushes, 1);
        let outcome = async {
            self.lease()?;
            self.at_home(|volume| async move { volume.flush().await })
                .await
        };
        self.told(outcome.await)
    }

    /// Gives a range back; it reads as zeros.
    pub async fn unmap(&self, offset: u64, len: u64) -> Result<()> {
        let counters = self.shared.counters_here();
        count(&counters.unmaps, 1);
        count(&counters.unmapped_bytes, len);
        self.zero(offset, len, Zeroing::Unmap, false).await
    }

    /// Writes zeros; with `may_unmap` space may be given back.
    pub async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        may_unmap: bool,
        fua: bool,
    ) -> Result<()> {
        let how = if may_unmap {
            Zeroing::ZeroUnmap
        } else {
            Zeroing::Zero
        };
        self.zero(offset, len, how, fua).await
    }

    async fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> Result<()> {
        let outcome = async {
            self.shared.check_writable(self.id)?;
            let lease = self.lease()?;
            self.at_home(
                move |volume| async move { volume.zero(offset, len, how, fua, lease).await },
            )
            .await
        };
        self.told(outcome.await)
    }

    /// Writes if what is stored equals `compare`, which is as long; else nothing is written, and the first byte
    /// that differs is returned, counted from `offset`. No other write of these blocks comes between.
    pub async fn compare_and_write(
        &self,
        offset: u64,
        compare: SharedBuf,
        write: SharedBuf,
        fua: bool,
    ) -> Result<Option<u64>> {
        self.count_write(write.len() as u64);
        let outcome = async {
            self.shared.check_writable(self.id)?;
            let lease = self.lease()?;
            self.at_home(move |volume| async move {
                volume
                    .compare_and_write(offset, compare, write, fua, lease)
                    .await
            })
            .await
        };
        self.told(outcome.await)
    }

    /// Writes the bits that are one in `data` or in what is stored. No other write of these blocks comes between.
    pub async fn or_write(&self, offset: u64, data: Segments, fua: bool) -> Result<()> {
        self.count_write(data.iter().map(|part| part.len() as u64).sum());
        let outcome = async {
            self.shared.check_writable(self.id)?;
            let lease = self.lease()?;
            self.at_home(
                move |volume| async move { volume.or_write(offset, data, fua, lease).await },
            )
            .await
        };
        self.told(outcome.await)
    }

    /// What of the volume is stored from `offset` on, in at most `most` extents. They may end before the volume does.
    pub async fn map_status(&self, offset: u64, most: usize) -> Result<Vec<MapExtent>> {
        let lease = self.lease()?;
        self.at_home(move |volume| async move { volume.map_status(offset, most, lease).await })
            .await
    }

    /// Room of the pool that the volume lies in.
    pub async fn pool_capacity(&self) -> Result<Capacity> {
        let lease = self.lease()?;
        self.at_home(move |volume| async move { volume.pool_capacity(lease).await })
            .await
    }

    fn count_write(&self, len: u64) {
        let counters = self.shared.counters_here();
        count(&counters.writes, 1);
        count(&counters.written_bytes, len);
    }

    fn lease(&self) -> Result<Lease> {
        self.lease_of(&*core_state()?)
    }

    fn lease_of(&self, state: &CoreState) -> Result<Lease> {
        Lease::begin(state.io_timeout, &self.cancel)
    }

    fn told<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            count(&self.shared.counters_here().errors, 1);
        }
        outcome
    }

    async fn here(&self, state: &CoreState) -> Result<Here> {
        if core_id() == self.home.id() {
            return state.volume(self.id).map(Here::Home);
        }
        let outpost = state.outposts.get(state, self.id, &self.home, &self.shared);
        outpost.await.map(Here::Outpost)
    }

    async fn at_home<F, Fut, T>(&self, operation: F) -> Result<T>
    where
        F: FnOnce(Rc<Volume>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        on_home(&self.home, self.id, operation).await
    }
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Runs an operation of a volume on its home core, as the task that asks if this is it.
pub(crate) async fn on_home<F, Fut, T>(home: &CoreHandle, id: ResourceId, operation: F) -> Result<T>
where
    F: FnOnce(Rc<Volume>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    if core_id() == home.id() {
        return operation(core_state()?.volume(id)?).await;
    }
    on_core(home, move || async move {
        operation(core_state()?.volume(id)?).await
    })
    .await
}

/// Runs a fallible future on a core.
pub(crate) async fn on_core<F, Fut, T>(core: &CoreHandle, make: F) -> Result<T>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    core.call(make).await.unwrap_or_else(|error| {
        Err(match error {
            RemoteError::Full => {
                Error::new(ErrorKind::Busy, format!("core {}: {error}", core.id()))
            }
            RemoteError::Closed => {
                Error::new(ErrorKind::Closed, format!("core {}: {error}", core.id()))
            }
        })
    })
}

/// How long to wait for room in a core's inbox before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// [`on_core`] that waits for room where the core has too much to do: for what a volume's cores ask
/// each other.
pub(crate) async fn ask<F, Fut, T>(core: &CoreHandle, make: F) -> Result<T>
where
    F: FnOnce() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    loop {
        match core.call(make.clone()).await {
            Ok(outcome) => return outcome,
            Err(RemoteError::Full) => sleep(FULL_PAUSE).await,
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    format!("core {}: {error}", core.id()),
                ));
            }
        }
    }
}

/// Runs it on a core, as soon as there is room in its inbox; nobody waits. Lost only with the core.
pub(crate) fn tell<F, Fut>(core: &CoreHandle, make: F)
where
    F: FnOnce() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if core.spawn(make.clone()) == Err(RemoteError::Full) {
        let core = core.clone();
        spawn_detached(async move {
            while core.spawn(make.clone()) == Err(RemoteError::Full) {
                sleep(FULL_PAUSE).await;
            }
        });
    }
}

//! One core's access to a chaotic pool: each call is counted, decided about, and then done, with
//! what it replaces noted for a later power loss.

use super::crash::{CrashReport, Reverter};
use super::faults::{Fault, Op, Turn};
use super::log::{InFlight, ObjectLog};
use super::{Busy, Shared, powerless};
use crate::check;
use crate::finish::to_the_end;
use crate::{
    BlockRange, Capacity, Error, ErrorKind, Generation, ListCursor, ListPage, ObjectId, ObjectStat,
    ObjectStore, Properties, ReadHint, Record, Result, WriteMode, ZeroMode,
};
use atoll_reactor::{Buf, LocalFuture, SharedBuf, oneshot, sleep, spawn_detached};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct ChaosStore {
    core: Rc<Core>,
}

struct Core {
    shared: Arc<Shared>,
    inner: Rc<dyn ObjectStore>,
    properties: Properties,
    epoch: u64,
}

/// A change of blocks, as it is done at the wrapped store.
#[derive(Clone)]
enum Change {
    Write(SharedBuf),
    Zeroes(ZeroMode),
    Copy(ObjectId, BlockRange),
}

/// What a sync covers.
enum Covers {
    These(Vec<ObjectId>),
    Everything,
}

impl ChaosStore {
    pub(crate) fn new(shared: Arc<Shared>, inner: Rc<dyn ObjectStore>, epoch: u64) -> ChaosStore {
        let mut properties = inner.properties().clone();
        properties.atomic_unit = shared.options.atomic_unit;
        ChaosStore {
            core: Rc::new(Core {
                shared,
                inner,
                properties,
                epoch,
            }),
        }
    }

    /// An operation that changes no object: decided about, then done.
    fn plain<'a, T: 'static, F>(
        &self,
        op: Op,
        call: impl FnOnce(Rc<Core>) -> F + 'static,
    ) -> LocalFuture<'a, Result<T>>
    where
        F: Future<Output = Result<T>> + 'static,
    {
        let core = self.core.clone();
        to_the_end(async move {
            let turn = core.begin(op).await?;
            core.wait_before(op, &turn).await?;
            let answer = call(core.clone()).await;
            core.wait_after(op, &turn).await?;
            answer
        })
    }

    fn change<'a>(
        &self,
        op: Op,
        id: ObjectId,
        range: BlockRange,
        mode: WriteMode,
        change: Change,
    ) -> LocalFuture<'a, Result<()>> {
        let core = self.core.clone();
        to_the_end(async move {
            let turn = core.begin(op).await?;
            let token = core.note_in_flight(id, range, mode, &change, &turn).await;
            let done = core
                .clone()
                .run_change(op, &turn, token, id, range, mode, change)
                .await;
            match turn.fault {
                // It is still on its way.
                Some(Fault::LateLanding { .. }) => {}
                _ => core.forget_in_flight(token).await,
            }
            done
        })
    }
}

fn injected(op: Op, kind: ErrorKind) -> Error {
    Error::new(kind, format!("injected fault: {op:?} fails with {kind:?}"))
}

impl Core {
    async fn begin(&self, op: Op) -> Result<Turn> {
        self.shared
            .state
            .with(|state| {
                if state.epoch != self.epoch {
                    return Err(powerless());
                }
                Ok(state.plan.next(op, &mut state.rng))
            })
            .await
    }

    async fn alive(&self) -> Result<()> {
        let epoch = self.shared.state.with(|state| state.epoch).await;
        if epoch == self.epoch {
            Ok(())
        } else {
            Err(powerless())
        }
    }

    /// Delay, hang and refusal before an operation is done.
    async fn wait_before(&self, op: Op, turn: &Turn) -> Result<()> {
        if turn.before > Duration::ZERO {
            sleep(turn.before).await;
        }
        match turn.fault {
            Some(Fault::Error(kind)) => return Err(injected(op, kind)),
            Some(Fault::Hang) => {
                let (sender, receiver) = oneshot::channel();
                self.shared
                    .state
                    .with(|state| state.hung.push(sender))
                    .await;
                // Closed by a crash, which the next line finds.
                let _ = receiver.await;
            }
            _ => {}
        }
        self.alive().await
    }

    async fn wait_after(&self, op: Op, turn: &Turn) -> Result<()> {
        if turn.after > Duration::ZERO {
            sleep(turn.after).await;
        }
        match turn.fault {
            Some(Fault::ErrorAfter(kind)) => Err(injected(op, kind)),
            _ => self.alive().await,
        }
    }

    async fn note_in_flight(
        &self,
        id: ObjectId,
        range: BlockRange,
        mode: WriteMode,
        change: &Change,
        turn: &Turn,
    ) -> Option<u64> {
        let data = match change {
            Change::Write(data) => data.clone(),
            Change::Zeroes(_) => SharedBuf::zeros(range.byte_len()),
            Change::Copy(..) => return None,
        };
        if matches!(turn.fault, Some(Fault::Error(_))) {
            return None;
        }
        let write = InFlight {
            id,
            first: range.first,
            data,
            mode,
        };
        let state = &self.shared.state;
        Some(state.with(|state| state.log.add_in_flight(write)).await)
    }

    async fn forget_in_flight(&self, token: Option<u64>) {
        if let Some(token) = token {
            let state = &self.shared.state;
            state.with(|state| state.log.in_flight.remove(&token)).await;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call, taken apart")]
    async fn run_change(
        self: Rc<Core>,
        op: Op,
        turn: &Turn,
        token: Option<u64>,
        id: ObjectId,
        range: BlockRange,
        mode: WriteMode,
        change: Change,
    ) -> Result<()> {
        if let Some(Fault::LateLanding { after }) = turn.fault {
            spawn_detached(async move {
                sleep(after).await;
                // Nobody is left to be told.
                let _ = self.apply(token, id, range, mode, change, None).await;
                self.forget_in_flight(token).await;
            });
            return Err(injected(op, ErrorKind::Timeout));
        }
        self.wait_before(op, turn).await?;
        let done = self.apply(token, id, range, mode, change, turn.fault).await;
        self.wait_after(op, turn).await?;
        done
    }

    /// The content of a range, or that the object is missing.
    async fn content(&self, id: ObjectId, range: BlockRange) -> Result<Option<SharedBuf>> {
        match self.inner.read(id, range, ReadHint::default()).await {
            Ok(data) => Ok(Some(data)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does the change at the wrapped store, noting what was there.
    async fn apply(
        &self,
        token: Option<u64>,
        id: ObjectId,
        range: BlockRange,
        mode: WriteMode,
        change: Change,
        fault: Option<Fault>,
    ) -> Result<()> {
        let _busy = Busy::take(&self.shared, id, self.epoch).await?;
        let before = self.content(id, range).await?;
        if before.is_none() && mode == WriteMode::Existing {
            return Err(check::missing("write", id));
        }
        let state = &self.shared.state;
        state
            .with(|state| {
                state.log.begin(id, range, before.as_ref());
                if let Some(token) = token {
                    state.log.in_flight.remove(&token);
                }
            })
            .await;
        let done = match change {
            Change::Write(data) => self.inner.write(id, range.first, data, mode).await,
            Change::Zeroes(zero) => self.inner.write_zeroes(id, range, zero, mode).await,
            Change::Copy(from, from_range) => {
                let inner = &self.inner;
                inner.copy(from, from_range, id, range.first, mode).await
            }
        };
        if fault == Some(Fault::Corrupt) && done.is_ok() {
            self.flip_a_bit(id, range).await?;
        }
        state.with(|state| state.log.complete(id, range)).await;
        done
    }

    async fn flip_a_bit(&self, id: ObjectId, range: BlockRange) -> Result<()> {
        let data = self.inner.read(id, range, ReadHint::default()).await?;
        let data = self.with_wrong_bit(&data).await;
        self.inner
            .write(id, range.first, data, WriteMode::Existing)
            .await
    }

    async fn with_wrong_bit(&self, data: &SharedBuf) -> SharedBuf {
        let bits = data.len() * 8;
        let state = &self.shared.state;
        let bit = state.with(|s| s.rng.random_range(0..bits)).await;
        let mut wrong = Buf::copy_of(data);
        wrong[bit / 8] ^= 1 << (bit % 8);
        wrong.freeze()
    }

    async fn delete(self: Rc<Core>, id: ObjectId) -> Result<Vec<Record>> {
        let _busy = Busy::take(&self.shared, id, self.epoch).await?;
        let whole = BlockRange::whole(self.properties.object_size);
        let content = self.content(id, whole).await?;
        let records = self.inner.delete(id).await?;
        let state = &self.shared.state;
        state.with(|state| state.log.delete(id, content)).await;
        Ok(records)
    }

    async fn sync(self: Rc<Core>, covers: Covers) -> Result<Vec<Record>> {
        let turn = self.begin(Op::Sync).await?;
        let state = &self.shared.state;
        let (at, ids): (_, Vec<ObjectId>) = state
            .with(|state| {
                let ids = match &covers {
                    Covers::These(ids) => ids.clone(),
                    Covers::Everything => state.log.objects.keys().copied().collect(),
                };
                (state.log.now(), ids)
            })
            .await;
        let waited = self.wait_before(Op::Sync, &turn).await;
        if let Some(Fault::Error(_)) = turn.fault {
            self.lose(&ids).await?;
        }
        waited?;
        if turn.fault == Some(Fault::LostSync) {
            self.wait_after(Op::Sync, &turn).await?;
            return Ok(Vec::new());
        }
        let records = match covers {
            Covers::These(_) => self.inner.sync(&ids).await?,
            Covers::Everything => self.inner.sync_all().await.map(|()| Vec::new())?,
        };
        state
            .with(|state| {
                if state.epoch != self.epoch {
                    return Err(powerless());
                }
                for id in &ids {
                    state.log.synced(*id, at);
                }
                Ok(())
            })
            .await?;
        self.wait_after(Op::Sync, &turn).await?;
        Ok(records)
    }

    /// A failed sync: some objects go back at once, of the others the next crash decides.
    async fn lose(&self, ids: &[ObjectId]) -> Result<()> {
        for id in ids {
            let _busy = Busy::take(&self.shared, *id, self.epoch).await?;
            let (now, seed) = self
                .shared
                .state
                .with(|state| (state.rng.random_bool(0.5), state.rng.random()))
                .await;
            if now {
                self.revert(*id, seed).await?;
            } else {
                let state = &self.shared.state;
                state.with(|state| state.log.sync_failed(*id)).await;
            }
        }
        Ok(())
    }

    async fn revert(&self, id: ObjectId, seed: u64) -> Result<()> {
        let log: Option<ObjectLog> = self
            .shared
            .state
            .with(|state| state.log.objects.remove(&id))
            .await;
        let Some(log) = log else { return Ok(()) };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut reverter = Reverter {
            store: self.inner.as_ref(),
            rng: &mut rng,
            unit: self.properties.atomic_unit as usize,
            report: CrashReport::default(),
        };
        reverter.object(id, &log).await
    }
}

impl ObjectStore for ChaosStore {
    fn properties(&self) -> &Properties {
        &self.core.properties
    }

    fn read(
        &self,
        id: ObjectId,
        range: BlockRange,
        hint: ReadHint,
    ) -> LocalFuture<'_, Result<SharedBuf>> {
        let core = self.core.clone();
        LocalFuture::new(async move {
            let turn = core.begin(Op::Read).await?;
            core.wait_before(Op::Read, &turn).await?;
            let data = core.inner.read(id, range, hint).await?;
            core.wait_after(Op::Read, &turn).await?;
            if turn.fault == Some(Fault::Corrupt) {
                return Ok(core.with_wrong_bit(&data).await);
            }
            Ok(data)
        })
    }

    fn write(
        &self,
        id: ObjectId,
        first: u32,
        data: SharedBuf,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let size = self.core.properties.object_size;
        match check::written("write", id, size, first, data.len()) {
            Ok(range) => self.change(Op::Write, id, range, mode, Change::Write(data)),
            Err(error) => LocalFuture::ready(Err(error)),
        }
    }

    fn write_zeroes(
        &self,
        id: ObjectId,
        range: BlockRange,
        zero: ZeroMode,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let size = self.core.properties.object_size;
        match check::range("write_zeroes", id, size, range) {
            Ok(()) => self.change(Op::WriteZeroes, id, range, mode, Change::Zeroes(zero)),
            Err(error) => LocalFuture::ready(Err(error)),
        }
    }

    fn sync<'a>(&'a self, ids: &'a [ObjectId]) -> LocalFuture<'a, Result<Vec<Record>>> {
        to_the_end(self.core.clone().sync(Covers::These(ids.to_vec())))
    }

    fn sync_all(&self) -> LocalFuture<'_, Result<()>> {
        let core = self.core.clone();
        to_the_end(async move { core.sync(Covers::Everything).await.map(drop) })
    }

    fn delete(&self, id: ObjectId) -> LocalFuture<'_, Result<Vec<Record>>> {
        let core = self.core.clone();
        to_the_end(async move {
            let turn = core.begin(Op::Delete).await?;
            if let Some(Fault::LateLanding { after }) = turn.fault {
                spawn_detached(async move {
                    sleep(after).await;
                    // Nobody is left to be told.
                    let _ = core.delete(id).await;
                });
                return Err(injected(Op::Delete, ErrorKind::Timeout));
            }
            core.wait_before(Op::Delete, &turn).await?;
            let records = core.clone().delete(id).await;
            core.wait_after(Op::Delete, &turn).await?;
            records
        })
    }

    fn records_committed(&self, records: &[Record]) {
        self.core.inner.records_committed(records);
    }

    fn stat(&self, id: ObjectId) -> LocalFuture<'_, Result<ObjectStat>> {
        self.plain(
            Op::Stat,
            move |core| async move { core.inner.stat(id).await },
        )
    }

    fn list(&self, from: Option<ListCursor>, limit: usize) -> LocalFuture<'_, Result<ListPage>> {
        self.plain(Op::List, move |core| async move {
            core.inner.list(from, limit).await
        })
    }

    fn copy(
        &self,
        from: ObjectId,
        from_range: BlockRange,
        to: ObjectId,
        to_first: u32,
        mode: WriteMode,
    ) -> LocalFuture<'_, Result<()>> {
        let size = self.core.properties.object_size;
        let checked = check::range("copy", from, size, from_range)
            .and_then(|()| check::written("copy", to, size, to_first, from_range.byte_len()));
        match checked {
            Ok(range) => self.change(Op::Copy, to, range, mode, Change::Copy(from, from_range)),
            Err(error) => LocalFuture::ready(Err(error)),
        }
    }

    fn capacity(&self) -> LocalFuture<'_, Result<Capacity>> {
        self.plain(
            Op::Capacity,
            |core| async move { core.inner.capacity().await },
        )
    }

    fn reserved_generations(&self) -> LocalFuture<'_, Result<Generation>> {
        self.plain(Op::Reserved, |core| async move {
            core.inner.reserved_generations().await
        })
    }

    fn reserve_generations(&self, below: Generation) -> LocalFuture<'_, Result<()>> {
        self.plain(Op::Reserve, move |core| async move {
            core.inner.reserve_generations(below).await
        })
    }
}

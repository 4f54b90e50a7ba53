//! The metadata store of simulations: in memory, on the virtual clock, with crashes that lose
//! unsynced batches and faults on demand. It outlives the simulated machines that use it.

#[cfg(test)]
mod tests;

use super::{Batch, Durability, MetaReader, MetaStatus, MetaStore, Op, Pair};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, key::describe};
use atoll_reactor::{LocalFuture, oneshot, sleep, spawn_detached};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

#[allow(
    clippy::disallowed_types,
    reason = "simulation only: all simulated cores are one thread"
)]
type Lock<T> = std::sync::Mutex<T>;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Virtual time that operations take, drawn uniformly.
#[derive(Clone, Debug)]
pub struct SimMetaLatency {
    pub read: RangeInclusive<Duration>,
    pub commit: RangeInclusive<Duration>,
    /// What a synced commit takes.
    pub sync: RangeInclusive<Duration>,
}

impl Default for SimMetaLatency {
    fn default() -> SimMetaLatency {
        let micros = |low, high| Duration::from_micros(low)..=Duration::from_micros(high);
        SimMetaLatency {
            read: micros(0, 60),
            commit: micros(1, 100),
            sync: micros(50, 2000),
        }
    }
}

/// What happens to a chosen commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitFault {
    /// It is refused with this kind; nothing of it is applied and the store goes on.
    Refuse(ErrorKind),
    /// Its sync fails: whether it is durable shows only after a crash, and every later commit fails.
    Break,
    /// It takes this much longer.
    Delay(Duration),
    /// It, and all after it, are not answered until [`SimMeta::resume`].
    Hang,
}

struct Pending {
    number: u64,
    batch: Batch,
}

/// How to undo one applied batch.
type Undo = Vec<(Vec<u8>, Option<Vec<u8>>)>;

struct State {
    epoch: u64,
    map: Arc<Map>,
    /// Of the applied batches that are not durable, oldest first.
    undo: VecDeque<Undo>,
    /// Issued and not yet applied, in order of issue.
    pending: VecDeque<Pending>,
    /// Applied, refused or lost: no longer pending, and not `Ok`.
    refused: BTreeMap<u64, Error>,
    issued: u64,
    commits: u64,
    faults: BTreeMap<u64, CommitFault>,
    latency: SimMetaLatency,
    rng: ChaCha8Rng,
    closed: bool,
    broken: bool,
    full: bool,
    hung_from: Option<u64>,
    hung: Vec<oneshot::Sender<()>>,
}

/// A handle to a simulated store; clones are the same store.
#[derive(Clone)]
pub struct SimMeta {
    state: Arc<Lock<State>>,
    epoch: u64,
}

impl SimMeta {
    /// An empty store; delays are drawn from `seed`.
    pub fn new(seed: u64) -> SimMeta {
        SimMeta::with_latency(seed, SimMetaLatency::default())
    }

    pub fn with_latency(seed: u64, latency: SimMetaLatency) -> SimMeta {
        let state = State {
            epoch: 0,
            map: Arc::default(),
            undo: VecDeque::new(),
            pending: VecDeque::new(),
            refused: BTreeMap::new(),
            issued: 0,
            commits: 0,
            faults: BTreeMap::new(),
            latency,
            rng: ChaCha8Rng::seed_from_u64(seed),
            closed: false,
            broken: false,
            full: false,
            hung_from: None,
            hung: Vec::new(),
        };
        SimMeta {
            state: Arc::new(Lock::new(state)),
            epoch: 0,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The machine loses power: of the batches that are not durable a suffix, drawn from `seed`, is
    /// lost, maybe none, never one in the middle. The store that is found after it; handles of
    /// before are closed.
    #[must_use = "the handles of before the crash are closed"]
    pub fn crash(&self, seed: u64) -> SimMeta {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut state = self.state();
        let unsynced = state.undo.len() + state.pending.len();
        let keep = rng.random_range(0..=unsynced);
        state.truncate(keep);
        self.next_epoch(&mut state)
    }

    /// As [`SimMeta::crash`] of the process only (`kill -9`): everything issued is kept.
    #[must_use = "the handles of before are closed"]
    pub fn reopen(&self) -> SimMeta {
        let mut state = self.state();
        let all = state.undo.len() + state.pending.len();
        state.truncate(all);
        self.next_epoch(&mut state)
    }

    fn next_epoch(&self, state: &mut State) -> SimMeta {
        state.epoch += 1;
        state.closed = false;
        state.broken = false;
        state.hung_from = None;
        state.hung.clear();
        state.faults.clear();
        state.refused.clear();
        SimMeta {
            state: self.state.clone(),
            epoch: state.epoch,
        }
    }

    /// Lets this happen to the `nth` commit from now; 1 is the next.
    pub fn fault_commit(&self, nth: u64, fault: CommitFault) {
        let mut state = self.state();
        let at = state.commits + nth;
        state.faults.insert(at, fault);
    }

    /// Full: commits that do not free are refused with `NoSpace`.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub fn set_latency(&self, latency: SimMetaLatency) {
        self.state().latency = latency;
    }

    /// Ends a [`CommitFault::Hang`].
    pub fn resume(&self) {
        let mut state = self.state();
        state.hung_from = None;
        for waiting in std::mem::take(&mut state.hung) {
            // Whoever gave up waiting needs no wake-up.
            let _ = waiting.send(());
        }
    }

    /// Number of commits since the store was made.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// All pairs, values sealed, as the newest state has them.
    pub fn dump(&self) -> Vec<Pair> {
        let state = self.state();
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        state.map.iter().map(pair).collect()
    }

    /// Damages the store: puts these bytes under the key, unsealed as they are, or removes it.
    pub fn tamper(&self, key: &[u8], value: Option<Vec<u8>>) {
        let mut state = self.state();
        let map = Arc::make_mut(&mut state.map);
        match value {
            Some(value) => map.insert(key.to_vec(), value),
            None => map.remove(key),
        };
    }

    fn check(&self, state: &State) -> Result<()> {
        if state.closed || state.epoch != self.epoch {
            return Err(closed());
        }
        Ok(())
    }

    fn draw(&self, range: impl FnOnce(&SimMetaLatency) -> &RangeInclusive<Duration>) -> Duration {
        let mut state = self.state();
        let range = range(&state.latency).clone();
        state.draw(&range)
    }

    fn read_delay(&self) -> Duration {
        self.draw(|latency| &latency.read)
    }

    /// Takes the batch's place in the order; what remains is to wait and to apply.
    fn issue(&self, batch: Batch, durability: Durability) -> Result<(u64, Duration)> {
        let mut state = self.state();
        self.check(&state)?;
        if state.broken {
            return Err(broken());
        }
        state.commits += 1;
        let commit = state.commits;
        let range = match durability {
            Durability::Synced => state.latency.sync.clone(),
            Durability::Unsynced => state.latency.commit.clone(),
        };
        let mut delay = state.draw(&range);
        if state.full && !batch.frees() && !batch.is_empty() {
            return Err(no_space());
        }
        match state.faults.remove(&commit) {
            Some(CommitFault::Refuse(kind)) => {
                return Err(Error::new(
                    kind,
                    format!("simulated failure of commit {commit}"),
                ));
            }
            Some(CommitFault::Break) => state.broken = true,
            Some(CommitFault::Delay(more)) => delay += more,
            Some(CommitFault::Hang) => state.hung_from = Some(state.issued + 1),
            None => {}
        }
        state.issued += 1;
        let number = state.issued;
        state.pending.push_back(Pending { number, batch });
        if state.broken {
            return Err(broken());
        }
        Ok((number, delay))
    }

    async fn finish(&self, number: u64, delay: Duration, durability: Durability) -> Result<()> {
        sleep(delay).await;
        while let Some(resumed) = self.hung_at(number) {
            // A crash drops the other side.
            resumed.await.map_err(|_| closed())?;
        }
        let mut state = self.state();
        self.check(&state)?;
        state.apply_to(number);
        if let Some(error) = state.refused.remove(&number) {
            return Err(error);
        }
        if state.broken {
            return Err(broken());
        }
        if durability == Durability::Synced {
            state.undo.clear();
        }
        Ok(())
    }

    fn hung_at(&self, number: u64) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if state.hung_from.is_none_or(|from| number < from) || state.epoch != self.epoch {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.hung.push(sender);
        Some(receiver)
    }
}

impl State {
    fn draw(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (low, high) = (nanos(range.start()), nanos(range.end()));
        Duration::from_nanos(self.rng.random_range(low..=high.max(low)))
    }

    /// Applies the pending batches up to this one.
    fn apply_to(&mut self, number: u64) {
        while let Some(next) = self.pending.pop_front_if(|next| next.number <= number) {
            match apply(Arc::make_mut(&mut self.map), next.batch) {
                Ok(undo) => self.undo.push_back(undo),
                Err(error) => {
                    self.refused.insert(next.number, error);
                }
            }
        }
    }

    /// Keeps this many of the batches that are not durable; they become so.
    fn truncate(&mut self, keep: usize) {
        while self.undo.len() > keep {
            if let Some(undo) = self.undo.pop_back() {
                take_back(Arc::make_mut(&mut self.map), undo);
            }
        }
        self.pending.truncate(keep - self.undo.len());
        self.apply_to(u64::MAX);
        self.pending.clear();
        self.undo.clear();
    }
}

/// Applies a batch wholly or not at all.
fn apply(map: &mut Map, batch: Batch) -> Result<Undo> {
    let mut undo = Undo::new();
    for op in batch.into_ops() {
        let key = op.key().to_vec();
        let before = map.get(&key).cloned();
        let after = match op {
            Op::Put { value, .. } => Some(value),
            Op::Delete { .. } => None,
            Op::Merge { operand, .. } => {
                let mut operands = std::iter::once(operand.as_slice());
                let merged = format::merge(&key, before.as_deref(), &mut operands);
                if merged.is_none() {
                    take_back(map, undo);
                    let text = format!("metadata row {} cannot be merged", describe(&key));
                    return Err(Error::new(ErrorKind::Corrupt, text));
                }
                merged
            }
        };
        match after {
            Some(value) => map.insert(key.clone(), value),
            None => map.remove(&key),
        };
        undo.push((key, before));
    }
    Ok(undo)
}

fn take_back(map: &mut Map, undo: Undo) {
    for (key, before) in undo.into_iter().rev() {
        match before {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the metadata store is closed")
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Faulted,
        "the metadata store failed to sync (simulated)",
    )
}

fn no_space() -> Error {
    Error::new(ErrorKind::NoSpace, "the metadata store is full (simulated)")
}

fn read_range(map: &Map, from: &[u8], to: &[u8], limit: usize) -> Vec<Pair> {
    if from >= to {
        return Vec::new();
    }
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl SimMeta {
    fn read<T: 'static>(
        &self,
        snapshot: Option<Arc<Map>>,
        look: impl FnOnce(&Map) -> T + 'static,
    ) -> LocalFuture<'static, Result<T>> {
        let store = self.clone();
        let delay = self.read_delay();
        LocalFuture::new(async move {
            sleep(delay).await;
            let state = store.state();
            store.check(&state)?;
            Ok(look(snapshot.as_ref().unwrap_or(&state.map)))
        })
    }
}

impl MetaReader for SimMeta {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        let key = key.to_vec();
        self.read(None, move |map| map.get(&key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.read(None, move |map| read_range(map, &from, &to, limit))
    }
}

impl MetaStore for SimMeta {
    fn commit(&self, batch: Batch, durability: Durability) -> LocalFuture<'static, Result<()>> {
        let (number, delay) = match self.issue(batch, durability) {
            Ok(issued) => issued,
            Err(error) => return LocalFuture::ready(Err(error)),
        };
        // A task of its own: the commit goes on when the caller drops its future.
        let (sender, receiver) = oneshot::channel();
        let store = self.clone();
        spawn_detached(async move {
            let answer = store.finish(number, delay, durability).await;
            // The caller may have given up.
            let _ = sender.send(answer);
        });
        LocalFuture::new(async move { receiver.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn snapshot(&self) -> LocalFuture<'static, Result<Arc<dyn MetaReader + Send + Sync>>> {
        let store = self.clone();
        let delay = self.read_delay();
        LocalFuture::new(async move {
            sleep(delay).await;
            let map = {
                let state = store.state();
                store.check(&state)?;
                state.map.clone()
            };
            Ok(Arc::new(SimSnapshot { store, map }) as Arc<dyn MetaReader + Send + Sync>)
        })
    }

    fn close(&self) -> LocalFuture<'static, Result<()>> {
        let commit = self.commit(Batch::new(), Durability::Synced);
        let store = self.clone();
        LocalFuture::new(async move {
            let synced = commit.await;
            store.state().closed = true;
            synced
        })
    }

    fn status(&self) -> LocalFuture<'static, Result<MetaStatus>> {
        let state = self.state();
        let bytes = state.map.iter().map(|(key, value)| key.len() + value.len());
        LocalFuture::ready(self.check(&state).map(|()| MetaStatus {
            bytes_used: bytes.sum::<usize>() as u64,
            bytes_free: None,
            full: state.full,
            failed: state.broken,
        }))
    }
}

struct SimSnapshot {
    store: SimMeta,
    map: Arc<Map>,
}

impl MetaReader for SimSnapshot {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        let key = key.to_vec();
        self.store
            .read(Some(self.map.clone()), move |map| map.get(&key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.store.read(Some(self.map.clone()), move |map| {
            read_range(map, &from, &to, limit)
        })
    }
}

//! The power loss: each unsynced write is kept, dropped or torn, per block and atomic unit; young
//! objects vanish, deletions come undone, writes on their way land in part.

use super::Shared;
use super::log::{Before, BlockLog, Deleted, InFlight, ObjectLog};
use crate::{
    BLOCK_SIZE, BlockRange, ErrorKind, ObjectId, ObjectStore, ReadHint, Result, WriteMode,
};
use atoll_reactor::{Buf, SharedBuf, sleep};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::time::Duration;

/// How often `crash` looks whether the last operation at the wrapped store has ended.
const DRAIN_POLL: Duration = Duration::from_micros(100);

/// What a crash did, for the messages of failing tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CrashReport {
    pub blocks_kept: u64,
    pub blocks_dropped: u64,
    pub blocks_torn: u64,
    pub objects_vanished: u64,
    pub objects_undeleted: u64,
    pub in_flight_landed: u64,
}

/// Rolls a store back, in parts, as drawn.
pub(crate) struct Reverter<'a> {
    pub(crate) store: &'a dyn ObjectStore,
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) unit: usize,
    pub(crate) report: CrashReport,
}

enum Fate {
    Kept,
    Dropped(SharedBuf),
    Torn(SharedBuf),
}

/// What the end of a daemon leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Of the process only: what was complete stays.
    Kill,
    /// Of the machine's power.
    PowerLoss,
}

/// No operation of the stores attached so far is done any more.
async fn stop(shared: &Shared) {
    let hung = shared
        .state
        .with(|state| {
            state.epoch += 1;
            std::mem::take(&mut state.hung)
        })
        .await;
    drop(hung);
    while shared.state.with(|state| !state.busy.is_empty()).await {
        sleep(DRAIN_POLL).await;
    }
}

pub(crate) async fn end(shared: &Arc<Shared>, seed: u64, end: End) -> Result<CrashReport> {
    stop(shared).await;
    let log = shared
        .state
        .with(|state| match end {
            End::PowerLoss => state.log.take(),
            End::Kill => state.log.take_in_flight(),
        })
        .await;
    let store = shared.inner.attach().await?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut reverter = Reverter {
        store: store.as_ref(),
        rng: &mut rng,
        unit: shared.options.atomic_unit as usize,
        report: CrashReport::default(),
    };
    for (id, object) in &log.objects {
        reverter.object(*id, object).await?;
    }
    for deleted in &log.deleted {
        reverter.undelete(deleted).await?;
    }
    for write in log.in_flight.values() {
        reverter.land(write).await?;
    }
    let report = reverter.report;
    // The wrapped store must not forget it in turn, if it can forget at all.
    let ids: Vec<ObjectId> = log.objects.keys().copied().collect();
    store.sync(&ids).await?;
    Ok(report)
}

impl Reverter<'_> {
    /// Some of the object's unsynced changes are undone.
    pub(crate) async fn object(&mut self, id: ObjectId, log: &ObjectLog) -> Result<()> {
        match self.store.stat(id).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if log.created.is_some() && self.rng.random_ratio(1, 3) {
            self.report.objects_vanished += 1;
            self.store.delete(id).await?;
            return Ok(());
        }
        for (block, block_log) in &log.blocks {
            let range = BlockRange::new(*block, 1);
            let now = self.store.read(id, range, ReadHint::default()).await?;
            let (content, count) = match self.fate(id, *block, block_log, &now) {
                Fate::Kept => {
                    self.report.blocks_kept += 1;
                    continue;
                }
                Fate::Dropped(content) => (content, &mut self.report.blocks_dropped),
                Fate::Torn(content) => (content, &mut self.report.blocks_torn),
            };
            *count += 1;
            self.store
                .write(id, *block, content, WriteMode::Existing)
                .await?;
        }
        Ok(())
    }

    fn fate(&mut self, id: ObjectId, block: u32, log: &BlockLog, now: &SharedBuf) -> Fate {
        let mut candidates: Vec<SharedBuf> = log
            .candidates()
            .map(|before| match before {
                Before::Bytes(bytes) => bytes.clone(),
                Before::Fresh => self.fresh(id, block),
            })
            .collect();
        if candidates.is_empty() {
            return Fate::Kept;
        }
        match self.rng.random_range(0..4) {
            0 => Fate::Kept,
            1 => Fate::Dropped(candidates.swap_remove(0)),
            2 => {
                let pick = self.rng.random_range(0..candidates.len());
                Fate::Dropped(candidates.swap_remove(pick))
            }
            _ => {
                candidates.push(now.clone());
                Fate::Torn(self.torn(&candidates))
            }
        }
    }

    fn fresh(&self, id: ObjectId, block: u32) -> SharedBuf {
        let mut content = Buf::zeroed(BLOCK_SIZE as usize);
        if !self.store.properties().zeroes_new {
            crate::memory::garbage(id, block, &mut content);
        }
        content.freeze()
    }

    /// Each atomic unit from any of the contents.
    fn torn(&mut self, contents: &[SharedBuf]) -> SharedBuf {
        let mut mixed = Buf::zeroed(BLOCK_SIZE as usize);
        for (number, place) in mixed.chunks_mut(self.unit).enumerate() {
            let content = &contents[self.rng.random_range(0..contents.len())];
            let start = number * self.unit;
            place.copy_from_slice(&content[start..start + self.unit]);
        }
        mixed.freeze()
    }

    async fn undelete(&mut self, deleted: &Deleted) -> Result<()> {
        if self.rng.random_bool(0.5) || self.store.stat(deleted.id).await.is_ok() {
            return Ok(());
        }
        self.report.objects_undeleted += 1;
        self.store
            .write(deleted.id, 0, deleted.content.clone(), WriteMode::Create)
            .await
    }

    /// A write that had not reached the store lands in part.
    async fn land(&mut self, write: &InFlight) -> Result<()> {
        for (block, content) in (write.first..).zip(write.data.chunks(BLOCK_SIZE as usize)) {
            if self.rng.random_bool(0.5) {
                continue;
            }
            let range = BlockRange::new(block, 1);
            let now = match self.store.read(write.id, range, ReadHint::default()).await {
                Ok(now) => now,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if write.mode == WriteMode::Existing {
                        return Ok(());
                    }
                    self.fresh(write.id, block)
                }
                Err(error) => return Err(error),
            };
            let mut content = SharedBuf::copy_of(content);
            if self.rng.random_bool(0.5) {
                content = self.torn(&[now, content]);
            }
            self.report.in_flight_landed += 1;
            self.store
                .write(write.id, block, content, write.mode)
                .await?;
        }
        Ok(())
    }
}

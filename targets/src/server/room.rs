//! Room in the pool behind a target: its threshold, and looking, now and then while the target is written to, whether it
//! is reached. Nothing here runs while nobody writes.

use super::limits::{ROOM_INTERVAL, ROOM_PATIENCE};
use super::state::Target;
use crate::scsi::{BlockSize, ByteCount, Threshold};
use atoll_mapper::VolumeHandle;
use atoll_reactor::{now, spawn_detached, timeout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// When a target's pool is looked at next, on the reactor's clock in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct NextLook(AtomicU64);

impl NextLook {
    /// True for one caller per interval.
    fn is_due(&self) -> bool {
        let now = now().as_nanos();
        let due = self.0.load(Ordering::Relaxed);
        if now < due {
            return false;
        }
        let interval = u64::try_from(ROOM_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        let next = now.saturating_add(interval);
        self.0
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// The threshold of the pool that a volume lies in, in percent of it; `None` where its room is not known, or for 0.
pub(super) async fn threshold(
    volume: &VolumeHandle,
    block_size: BlockSize,
    percent: u32,
) -> Option<Threshold> {
    if percent == 0 {
        return None;
    }
    let room = timeout(ROOM_PATIENCE, volume.pool_capacity()).await;
    let total = room.ok()?.ok()?.total;
    let threshold = Threshold::of_pool(block_size, ByteCount(total), percent);
    (threshold.count > 0).then_some(threshold)
}

impl Target {
    /// Something was written: if the last look is some time ago, looks what room is left.
    pub(super) fn look_at_room(self: &Arc<Self>) {
        if self.unit.config().threshold.is_none() || !self.next_look.is_due() {
            return;
        }
        let target = self.clone();
        spawn_detached(async move {
            match target.volume.pool_capacity().await {
                Ok(room) => target.unit.set_available(ByteCount(room.available)),
                Err(error) => {
                    tracing::debug!(target = target.iqn, %error, "the pool does not tell its room");
                }
            }
        });
    }
}

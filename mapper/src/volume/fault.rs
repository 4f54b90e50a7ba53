//! What a failed sync or commit does to a volume: no I/O any more, in this run and, by a mark in its
//! node's row, in every later one until a check has cleared it. What fails, and when, is `flush`'s.
//!
//! **Invariant:** who is told that a flush has failed is told after the mark is durable, or the metadata
//! store has failed too (M4).

use super::{Volume, VolumeShared};
use crate::error::Error;
use crate::format::{Key, NodeRow};
use crate::local::WaitQueue;
use crate::meta::Durability;
use crate::types::ResourceId;
use atoll_reactor::spawn_detached;
use std::cell::Cell;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No fault, or its mark is being written.
    Unwritten,
    /// It is durable, or it cannot be written.
    Ended,
    /// An earlier run wrote it: nothing was done with the volume in this one.
    Found,
}

/// The mark of a volume in its node's row.
pub(super) struct FaultMark {
    state: Cell<State>,
    ended: WaitQueue,
}

impl FaultMark {
    /// As the row of a volume that is opened has it.
    pub(super) fn opened(id: ResourceId, row: &NodeRow, shared: &VolumeShared) -> FaultMark {
        if row.faulted {
            tracing::error!(volume = %id, "a flush failed in an earlier run; the volume answers no I/O");
            shared.faulted.store(true, Ordering::Release);
        }
        FaultMark {
            state: Cell::new(match row.faulted {
                true => State::Found,
                false => State::Unwritten,
            }),
            ended: WaitQueue::default(),
        }
    }
}

impl Volume {
    /// Sticky: nothing more is acknowledged.
    pub(super) fn set_fault(&self, error: &Error) {
        if self.shared.faulted.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(volume = %self.id, %error, "flush failed; the volume answers no more I/O");
        if let Some(volume) = self.me.upgrade() {
            spawn_detached(async move {
                volume.write_mark().await;
                volume.mark.state.set(State::Ended);
                volume.mark.ended.notify();
            });
        }
    }

    async fn write_mark(&self) {
        // Rows that are being written now are written before, later ones carry the mark on.
        let _rows = self.row_changes.close().await;
        let head = self.head();
        let row = NodeRow {
            faulted: true,
            ..head.row()
        };
        // A head that is not in the store yet comes with what makes it one.
        let mut batch = self.switching.not_durable();
        // It takes no more room than the row that it replaces.
        batch.set_frees(true);
        batch.put_row(Key::node(head.id()), &row);
        match self.meta.commit(batch, Durability::Synced).await {
            Ok(()) => head.row_written(row),
            Err(error) => {
                tracing::error!(volume = %self.id, %error, "the failure could not be noted for later starts");
            }
        }
    }

    /// After a failure that may have set the fault: waits until it is on record.
    pub(super) async fn fault_noted(&self) {
        let noted = || {
            let open = self.shared.is_faulted() && self.mark.state.get() == State::Unwritten;
            (!open).then_some(())
        };
        self.mark.ended.until(noted).await;
    }

    /// It was faulted when it was opened, so that nothing of this run is left to be made durable.
    pub(crate) fn is_untouched(&self) -> bool {
        self.mark.state.get() == State::Found
    }

    /// Its last changes were given up with an earlier opening in this run.
    pub(crate) fn stay_faulted(&self) {
        self.mark.state.set(State::Found);
        self.shared.faulted.store(true, Ordering::Release);
    }

    /// It is deleted although it could not be retired: nothing of it is committed any more.
    pub(crate) async fn abandon(&self, error: &Error) {
        // From now on its row is not the volume's to write.
        self.fault_noted().await;
        self.mark.state.set(State::Ended);
        if !self.shared.faulted.swap(true, Ordering::AcqRel) {
            tracing::warn!(volume = %self.id, %error, "deleted without its last changes");
        }
    }
}

//! Task management (RFC 7143 §11.5, SAM-5 7): aborted commands get no answer, what they had begun at the store runs to
//! its end, and the function is answered only after that, so that nothing it ended takes effect later (§4.2.3.3). A store
//! that does not answer is waited for so long and no longer: the initiator must be able to go on with other commands.

use super::commands::is_unit;
use super::limits::ABORT_PATIENCE;
use super::link::Link;
use super::session::Session;
use super::state::{CoreState, TargetId, on_core};
use super::tasks::RunNumber;
use crate::iscsi::pdu::{Lun, TaskManagementFunction, TaskManagementResponseCode, Tsih};
use crate::iscsi::{TaskHandle, TaskManagementHandle};
use crate::scsi::UnitAttention;
use atoll_reactor::{Instant, now, spawn_detached, timeout_at};
use std::rc::Rc;

/// Which sessions of the target a function reaches besides the one that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// None.
    Own,
    /// All; those that lose commands get a unit attention.
    Clear,
    /// All; the unit's reset tells them.
    Reset,
    /// All, which are then disconnected.
    Disconnect,
}

impl Link {
    /// A task management request has arrived.
    pub(super) fn manage(
        self: &Rc<Self>,
        request: TaskManagementHandle,
        function: TaskManagementFunction,
        lun: Lun,
        referenced: Option<TaskHandle>,
    ) {
        use TaskManagementFunction as Function;
        use TaskManagementResponseCode as Code;
        let Some(session) = self.unit_session() else {
            return self.managed(request, Code::FunctionRejected);
        };
        let reach = match function {
            Function::AbortTask => {
                let mut runs = Vec::new();
                let aborted = referenced.is_some_and(|task| self.abort(task, &mut runs));
                self.make_room();
                if !aborted {
                    return self.managed(request, Code::TaskDoesNotExist);
                }
                let link = self.clone();
                return spawn_detached(async move {
                    link.until_ended(&runs, now() + ABORT_PATIENCE).await;
                    link.managed(request, Code::FunctionComplete);
                });
            }
            Function::AbortTaskSet => Reach::Own,
            Function::ClearTaskSet => Reach::Clear,
            Function::LogicalUnitReset | Function::TargetWarmReset => Reach::Reset,
            Function::TargetColdReset => Reach::Disconnect,
            Function::ClearAca | Function::TaskReassign | Function::Other(_) => {
                return self.managed(request, Code::FunctionNotSupported);
            }
        };
        let addresses_unit = matches!(
            function,
            Function::AbortTaskSet | Function::ClearTaskSet | Function::LogicalUnitReset
        );
        if addresses_unit && !is_unit(lun) {
            return self.managed(request, Code::LunDoesNotExist);
        }
        // Before anything that came later is looked at.
        let runs = self.abort_all();
        let link = self.clone();
        spawn_detached(async move { link.reach(&session, request, reach, runs).await });
    }

    async fn reach(
        self: Rc<Self>,
        session: &Session,
        request: TaskManagementHandle,
        reach: Reach,
        runs: Vec<RunNumber>,
    ) {
        let Some(unit) = &session.unit else { return };
        let target = unit.target.target.clone();
        if matches!(reach, Reach::Reset | Reach::Disconnect) {
            tracing::info!(target = target.iqn, initiator = session.initiator, "reset");
            target.unit.reset();
        }
        let (own, id) = (session.tsih, target.id);
        let patience = now() + ABORT_PATIENCE;
        if reach != Reach::Own {
            for core in 0..self.state.shared.cores.len() {
                let ended = on_core(&self.state.shared, core, move |state| async move {
                    clear(&state, id, own, reach, patience).await;
                });
                if let Err(error) = ended.await {
                    tracing::warn!(%error, "a task management function did not reach a core");
                    return;
                }
            }
        }
        self.until_ended(&runs, patience).await;
        self.managed(request, TaskManagementResponseCode::FunctionComplete);
        if reach == Reach::Disconnect {
            disconnect(&self.state, id).await;
        }
    }

    fn managed(&self, request: TaskManagementHandle, response: TaskManagementResponseCode) {
        // The connection may have ended meanwhile.
        let _ = self
            .protocol
            .borrow_mut()
            .complete_task_management(request, response);
        self.output.notify();
    }

    /// Aborts a command; false if it has been answered already.
    fn abort(&self, task: TaskHandle, runs: &mut Vec<RunNumber>) -> bool {
        let known = self.tasks.abort(task, runs);
        if known && let Some(session) = &*self.session.borrow() {
            session.count(|counters| counters.aborted += 1);
        }
        let forgotten = self.protocol.borrow_mut().abort_task(task).is_ok();
        self.steps.notify();
        known || forgotten
    }

    /// Aborts all commands; what still runs of them is to be waited for.
    pub(super) fn abort_all(self: &Rc<Self>) -> Vec<RunNumber> {
        let mut runs = Vec::new();
        for task in self.tasks.handles() {
            self.abort(task, &mut runs);
        }
        // Only now: nothing that is to be aborted is begun with the room of the others.
        self.make_room();
        runs
    }

    /// The protocol core has forgotten its tasks, or the transport is gone: so do we.
    pub(super) fn end_tasks(&self) {
        for task in self.tasks.handles() {
            self.tasks.abort(task, &mut Vec::new());
            if let Some(session) = &*self.session.borrow() {
                session.count(|counters| counters.aborted += 1);
            }
        }
    }

    /// Until the runs have ended, but no longer than `patience`. After that the mapper keeps their blocks.
    async fn until_ended(&self, runs: &[RunNumber], patience: Instant) {
        let ended = || (!self.tasks.still_runs(runs)).then_some(());
        if timeout_at(patience, self.ended.until(ended)).await.is_err() {
            tracing::warn!(peer = %self.peer(), "commands are aborted while a store does not answer to them");
        }
    }
}

/// Aborts the commands of this core's other sessions of the target, and waits for their end.
async fn clear(
    state: &Rc<CoreState>,
    target: TargetId,
    own: Tsih,
    reach: Reach,
    patience: Instant,
) {
    let mut waits = Vec::new();
    for link in state.links_of(Some(target)) {
        if link.tsih() == Some(own) {
            continue;
        }
        let lost = !link.tasks.handles().is_empty();
        let runs = link.abort_all();
        if reach == Reach::Clear
            && lost
            && let Some(session) = link.unit_session()
            && let Some(unit) = &session.unit
        {
            let condition = UnitAttention::CommandsCleared;
            unit.nexus.borrow_mut().raise(condition);
        }
        waits.push((link, runs));
    }
    for (link, runs) in waits {
        link.until_ended(&runs, patience).await;
    }
}

async fn disconnect(state: &Rc<CoreState>, target: TargetId) {
    for core in 0..state.shared.cores.len() {
        let done = on_core(&state.shared, core, move |state| async move {
            for link in state.links_of(Some(target)) {
                link.drop_session();
            }
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "a target's sessions were not all ended");
        }
    }
}

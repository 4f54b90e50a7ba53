//! The table of one connection's commands: at which stage each is, what memory is held for them, and which aborted
//! ones still run on the volume. What happens to a command is in `commands`.

use super::limits::STEP_BYTES;
use super::volume::{Payload, Sink};
use crate::iscsi::TaskHandle;
use crate::scsi::{Command, VolumeOp};
use atoll_mapper::{Cancel, CancelSlots};
use atoll_reactor::Instant;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;

/// Names one run of a command on the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunNumber(u64);

/// What a command is counted as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Other,
}

/// What is known of a command while it lives.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) handle: TaskHandle,
    pub(super) command: Command,
    pub(super) kind: Kind,
    pub(super) arrived: Instant,
    /// Bytes of data that the initiator offers; 0 unless it is a write.
    pub(super) offered: u32,
    /// Bytes that the initiator takes; 0 unless it is a read.
    pub(super) takes: u32,
    /// Bytes that the command moves when it ends well, besides parameter data returned.
    pub(super) transfer: u64,
}

pub(super) enum Stage {
    /// Its parameter list is arriving.
    Parameters(Vec<u8>),
    /// It waits for memory.
    Queued { op: VolumeOp, cost: usize },
    /// Its payload is arriving.
    Payload { payload: Payload, sink: Sink },
    /// It runs on the volume.
    Running(RunNumber),
    /// It is done in steps.
    Steps {
        run: RunNumber,
        /// Of a write whose next step's data is arriving, and where in the data of the command that begins.
        payload: Option<(Payload, u64)>,
        /// All of it is there.
        arrived: bool,
    },
}

impl Stage {
    /// Of a command that has begun on the volume, or may have.
    fn run(&self) -> Option<RunNumber> {
        match self {
            Stage::Running(run) | Stage::Steps { run, .. } => Some(*run),
            Stage::Parameters(_) | Stage::Queued { .. } | Stage::Payload { .. } => None,
        }
    }
}

pub(super) struct Entry {
    pub(super) task: Task,
    pub(super) stage: Stage,
    /// Bytes that are held for it.
    pub(super) held: usize,
}

/// All commands of a connection.
#[derive(Default)]
pub(super) struct TaskTable {
    /// By the handle's index.
    entries: RefCell<Vec<Option<Entry>>>,
    /// By the handle's index too; made when the first command runs.
    cancels: OnceCell<CancelSlots>,
    /// Those that wait for memory, in order; some may be gone.
    queue: RefCell<VecDeque<TaskHandle>>,
    /// Runs whose command was aborted.
    aborted: RefCell<Vec<RunNumber>>,
    next_run: Cell<u64>,
    /// A command is done in steps; one at a time.
    stepping: Cell<bool>,
    /// Bytes held for commands.
    held: Cell<usize>,
    /// The part of them that comes back without anything being received: of what runs on the volume.
    returning: Cell<usize>,
}

impl TaskTable {
    pub(super) fn insert(&self, entry: Entry) {
        let mut entries = self.entries.borrow_mut();
        let index = entry.task.handle.index();
        if entries.len() <= index {
            entries.resize_with(index + 1, || None);
        }
        self.held.set(self.held.get() + entry.held);
        entries[index] = Some(entry);
    }

    /// Takes a command out, and what is held for it with it.
    pub(super) fn remove(&self, handle: TaskHandle) -> Option<Entry> {
        let mut entries = self.entries.borrow_mut();
        let place = entries.get_mut(handle.index())?;
        let entry = place.take_if(|entry| entry.task.handle == handle)?;
        self.held.set(self.held.get() - entry.held);
        Some(entry)
    }

    pub(super) fn with<T>(
        &self,
        handle: TaskHandle,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(handle.index())?.as_mut();
        entry.filter(|entry| entry.task.handle == handle).map(look)
    }

    /// Puts a command into the line for memory.
    pub(super) fn enqueue(&self, task: Task, op: VolumeOp, cost: usize) {
        self.queue.borrow_mut().push_back(task.handle);
        self.insert(Entry {
            task,
            stage: Stage::Queued { op, cost },
            held: 0,
        });
    }

    /// What a waiting command wants to hold; `None` if it does not wait.
    pub(super) fn cost(&self, handle: TaskHandle) -> Option<usize> {
        self.with(handle, |entry| match entry.stage {
            Stage::Queued { cost, .. } => Some(cost),
            _ => None,
        })?
    }

    /// The first command in the line and its cost.
    pub(super) fn first_in_line(&self) -> Option<(TaskHandle, usize)> {
        loop {
            let handle = *self.queue.borrow().front()?;
            match self.cost(handle) {
                Some(cost) => return Some((handle, cost)),
                // It was aborted, or let in before its turn.
                None => self.queue.borrow_mut().pop_front(),
            };
        }
    }

    /// Bytes held for commands.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// Whether held bytes come back without anything being received.
    pub(super) fn returns_some(&self) -> bool {
        self.returning.get() > 0
    }

    /// The command runs from now on, until its token says that it was aborted. `most` commands may run at a time.
    pub(super) fn begin_run(&self, task: Task, held: usize, most: usize) -> (RunNumber, Cancel) {
        self.returning.set(self.returning.get() + held);
        let begun = self.begin(task, most);
        self.insert(Entry {
            task,
            stage: Stage::Running(begun.0),
            held,
        });
        begun
    }

    /// The same for a command that is done in steps, each of which holds [`STEP_BYTES`].
    pub(super) fn begin_steps(&self, task: Task, most: usize) -> (RunNumber, Cancel) {
        self.stepping.set(true);
        let begun = self.begin(task, most);
        let stage = Stage::Steps {
            run: begun.0,
            payload: None,
            arrived: false,
        };
        let held = STEP_BYTES as usize;
        self.insert(Entry { task, stage, held });
        begun
    }

    fn begin(&self, task: Task, most: usize) -> (RunNumber, Cancel) {
        let cancels = self.cancels.get_or_init(|| CancelSlots::new(most));
        let run = RunNumber(self.next_run.get());
        self.next_run.set(run.0 + 1);
        (run, cancels.token(task.handle.index()))
    }

    /// Whether a command that waits for memory is one that can be done in steps.
    pub(super) fn has_steps(&self, handle: TaskHandle) -> bool {
        let kind = |entry: &mut Entry| {
            matches!(
                entry.stage,
                Stage::Queued {
                    op: VolumeOp::Read { .. } | VolumeOp::Write { .. },
                    ..
                }
            )
        };
        self.with(handle, kind) == Some(true)
    }

    /// Whether one is being done in steps.
    pub(super) fn is_stepping(&self) -> bool {
        self.stepping.get()
    }

    /// The next step's data is to come, and begins so many bytes from the start; false if the command was aborted.
    pub(super) fn await_step(
        &self,
        handle: TaskHandle,
        run: RunNumber,
        next: Payload,
        begins: u64,
    ) -> bool {
        self.with_step(handle, run, |payload, arrived| {
            *payload = Some((next, begins));
            *arrived = false;
        })
        .is_some()
    }

    /// The step's data once all of it is there: `Some(None)` when the command was aborted, `None` before.
    #[allow(clippy::option_option, reason = "what `Signal::until` asks for")]
    pub(super) fn take_step(&self, handle: TaskHandle, run: RunNumber) -> Option<Option<Payload>> {
        let taken = self.with_step(handle, run, |payload, arrived| match *arrived {
            true => payload.take(),
            false => None,
        });
        match taken {
            None => Some(None),
            Some(None) => None,
            Some(Some((payload, _))) => Some(Some(payload)),
        }
    }

    fn with_step<T>(
        &self,
        handle: TaskHandle,
        run: RunNumber,
        change: impl FnOnce(&mut Option<(Payload, u64)>, &mut bool) -> T,
    ) -> Option<T> {
        self.with(handle, |entry| match &mut entry.stage {
            Stage::Steps {
                run: number,
                payload,
                arrived,
            } if *number == run => Some(change(payload, arrived)),
            _ => None,
        })?
    }

    /// Whether a step runs on the volume, so that its memory comes back without anything being received.
    pub(super) fn step_runs(&self, runs: bool) {
        let step = STEP_BYTES as usize;
        let returning = self.returning.get();
        self.returning.set(match runs {
            true => returning + step,
            false => returning - step,
        });
    }

    /// Whether the run has not ended and was not aborted.
    pub(super) fn is_running(&self, handle: TaskHandle, run: RunNumber) -> bool {
        self.with(handle, |entry| entry.stage.run()) == Some(Some(run))
    }

    /// The run has ended. True if its command is to be answered, false if it was aborted meanwhile.
    pub(super) fn end_run(&self, handle: TaskHandle, run: RunNumber, held: usize) -> bool {
        self.returning.set(self.returning.get() - held);
        self.end(handle, run, held)
    }

    /// The same for steps.
    pub(super) fn end_steps(&self, handle: TaskHandle, run: RunNumber) -> bool {
        self.stepping.set(false);
        self.end(handle, run, STEP_BYTES as usize)
    }

    fn end(&self, handle: TaskHandle, run: RunNumber, held: usize) -> bool {
        if self.is_running(handle, run) {
            self.remove(handle);
            return true;
        }
        self.held.set(self.held.get() - held);
        self.aborted.borrow_mut().retain(|number| *number != run);
        false
    }

    /// Forgets a command; false if there is none. One that runs is cancelled: what of it has begun at the store goes on,
    /// its memory is held, and its number is added to `runs`, to be waited for.
    pub(super) fn abort(&self, handle: TaskHandle, runs: &mut Vec<RunNumber>) -> bool {
        let Some(entry) = self.remove(handle) else {
            return false;
        };
        if let Some(run) = entry.stage.run() {
            if let Some(cancels) = self.cancels.get() {
                cancels.cancel(handle.index());
            }
            self.held.set(self.held.get() + entry.held);
            self.aborted.borrow_mut().push(run);
            runs.push(run);
        }
        true
    }

    /// Whether nothing runs any more.
    pub(super) fn is_quiet(&self) -> bool {
        let runs = |entry: &Entry| entry.stage.run().is_some();
        self.aborted.borrow().is_empty() && !self.entries.borrow().iter().flatten().any(runs)
    }

    /// Whether one of these aborted runs has not ended.
    pub(super) fn still_runs(&self, runs: &[RunNumber]) -> bool {
        let aborted = self.aborted.borrow();
        runs.iter().any(|run| aborted.contains(run))
    }

    /// All commands that are not answered.
    pub(super) fn handles(&self) -> Vec<TaskHandle> {
        let entries = self.entries.borrow();
        let live = entries.iter().flatten().map(|entry| entry.task.handle);
        live.collect()
    }
}

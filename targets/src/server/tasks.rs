//! The table of one connection's commands: at which stage each is, what memory is held for them, and which aborted
//! ones still run on the volume. What happens to a command is in `commands`.

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
        let cancels = self.cancels.get_or_init(|| CancelSlots::new(most));
        let cancel = cancels.token(task.handle.index());
        let run = RunNumber(self.next_run.get());
        self.next_run.set(run.0 + 1);
        self.returning.set(self.returning.get() + held);
        self.insert(Entry {
            task,
            stage: Stage::Running(run),
            held,
        });
        (run, cancel)
    }

    /// The run has ended. True if its command is to be answered, false if it was aborted meanwhile.
    pub(super) fn end_run(&self, handle: TaskHandle, run: RunNumber, held: usize) -> bool {
        self.returning.set(self.returning.get() - held);
        let live = self.with(
            handle,
            |entry| matches!(entry.stage, Stage::Running(number) if number == run),
        );
        if live == Some(true) {
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
        if let Stage::Running(run) = entry.stage {
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
        let runs = |entry: &Entry| matches!(entry.stage, Stage::Running(_));
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

//! Long reads and writes for which the memory is not there: done in steps that fit into what the connection has for
//! sure, one after the other. It is slow, and needs nobody else's memory. Commands that fit run whole, in `commands`.

use super::limits::{GUARANTEED_BYTES, STEP_BYTES};
use super::link::Link;
use super::session::Session;
use super::tasks::{RunNumber, Stage, Task};
use super::volume::{self, Output, Payload, Sink, Work};
use crate::iscsi::TaskHandle;
use crate::scsi::{ByteCount, ByteOffset, ByteRange, VolumeError, VolumeOp};
use atoll_mapper::{Cancel, Segments};
use atoll_reactor::{SharedBuf, spawn_detached};
use std::rc::Rc;

/// Output that may be left of a read's last step when its next one begins.
const LEFT_BYTES: usize = STEP_BYTES as usize / 4;

/// How a command is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// All of its memory is there.
    Whole,
    /// In steps.
    Steps,
}

/// One command that is done in steps.
struct Steps {
    link: Rc<Link>,
    session: Rc<Session>,
    task: Task,
    run: RunNumber,
    cancel: Cancel,
    range: ByteRange,
    fua: bool,
}

impl Link {
    /// How a command that waits for memory can go on now.
    pub(super) fn way_of(&self, handle: TaskHandle, cost: usize) -> Option<Way> {
        if self.fits(cost) {
            return Some(Way::Whole);
        }
        let used = self.settle();
        match self.tasks.has_steps(handle) {
            true => {
                let room = used + STEP_BYTES as usize <= GUARANTEED_BYTES;
                (room && !self.tasks.is_stepping()).then_some(Way::Steps)
            }
            // It may never be more than its fair share otherwise.
            false => (used == 0 && cost <= self.share.spare()).then_some(Way::Whole),
        }
    }

    /// Begins the steps of a command whose [`Link::way_of`] they are.
    pub(super) fn step(self: &Rc<Self>, handle: TaskHandle) {
        let Some(entry) = self.tasks.remove(handle) else {
            return;
        };
        let (Stage::Queued { op, .. }, Some(session)) = (entry.stage, self.unit_session()) else {
            return;
        };
        let (range, fua, writes) = match op {
            VolumeOp::Read { range, fua, .. } => (range, fua, false),
            VolumeOp::Write { range, fua, .. } => (range, fua, true),
            _ => return debug_assert!(false, "only reads and writes have steps"),
        };
        let most = self.state.shared.config.most_commands();
        let (run, cancel) = self.tasks.begin_steps(entry.task, most);
        let steps = Steps {
            link: self.clone(),
            session,
            task: entry.task,
            run,
            cancel,
            range,
            fua,
        };
        if writes {
            // At once: unsolicited data may be what is received next.
            steps.ask(0);
            spawn_detached(async move {
                let outcome = steps.write().await;
                steps.end(outcome);
            });
        } else {
            spawn_detached(async move {
                let outcome = steps.read().await;
                steps.end(outcome);
            });
        }
    }
}

impl Steps {
    /// The step that begins so many bytes from the start.
    fn part(&self, done: u64) -> ByteRange {
        ByteRange {
            start: ByteOffset(self.range.start.0 + done),
            length: ByteCount((self.range.length.0 - done).min(STEP_BYTES)),
        }
    }

    async fn run(&self, work: Work) -> Result<Segments, VolumeError> {
        let Some(unit) = &self.session.unit else {
            return Err(VolumeError::Aborted);
        };
        let table = &self.link.tasks;
        table.step_runs(true);
        let outcome = volume::run(&unit.target.target.volume, self.cancel.clone(), work).await;
        table.step_runs(false);
        outcome.map(|output| match output {
            Output::Data(data) => data,
            // Only what has no steps makes one.
            Output::Response(_) => Segments::new(),
        })
    }

    /// Makes room for the next step's data and asks for it.
    fn ask(&self, done: u64) {
        let part = self.part(done);
        let handle = self.task.handle;
        let payload = Payload::new(part);
        if !self.link.tasks.await_step(handle, self.run, payload, done) {
            return;
        }
        let end = u32::try_from(done + part.length.0).unwrap_or(u32::MAX);
        let mut protocol = self.link.protocol.borrow_mut();
        // A task that is gone needs none.
        let _ = match done {
            0 => protocol.expect_data_out(handle, end),
            _ => protocol.extend_data_out(handle, end),
        };
        drop(protocol);
        self.link.output.notify();
    }

    /// `None` if it was aborted.
    async fn write(&self) -> Option<Result<Segments, VolumeError>> {
        let mut done = 0;
        let (handle, total) = (self.task.handle, self.range.length.0);
        loop {
            let arrived = || self.link.tasks.take_step(handle, self.run);
            let payload = self.link.steps.until(arrived).await?;
            let sink = Sink::Write { fua: false };
            let written = self.run(Work::Data { payload, sink });
            if let Err(error) = written.await {
                return Some(Err(error));
            }
            done += self.part(done).length.0;
            if done == total {
                break;
            }
            self.ask(done);
        }
        Some(match self.fua {
            true => self.run(Work::Flush).await,
            false => Ok(Segments::new()),
        })
    }

    /// The data of the last step; `None` if it was aborted.
    async fn read(&self) -> Option<Result<Segments, VolumeError>> {
        let mut done = 0;
        loop {
            let range = self.part(done);
            let fua = self.fua && done == 0;
            let outcome = self.run(Work::Read { range, fua }).await;
            let (Ok(data), true) = (&outcome, done + range.length.0 < self.range.length.0) else {
                return Some(outcome);
            };
            self.send(data)?;
            let count = range.length.0;
            self.session.count(|counters| counters.read_bytes += count);
            done += count;
            let (table, handle) = (&self.link.tasks, self.task.handle);
            let left = || match table.is_running(handle, self.run) {
                false => Some(false),
                true => (self.link.output_bytes() <= LEFT_BYTES).then_some(true),
            };
            if !self.link.steps.until(left).await {
                return None;
            }
        }
    }

    /// `None` if the command is gone.
    fn send(&self, data: &[SharedBuf]) -> Option<()> {
        let mut protocol = self.link.protocol.borrow_mut();
        protocol.send_data_in(self.task.handle, data).ok()?;
        self.link.output.notify();
        Some(())
    }

    fn end(&self, outcome: Option<Result<Segments, VolumeError>>) {
        let live = self.link.tasks.end_steps(self.task.handle, self.run);
        if let (true, Some(outcome)) = (live, outcome) {
            let outcome = outcome.map(Output::Data);
            self.link.finish(&self.session, &self.task, outcome);
        }
        if self.task.command.writes_medium()
            && let Some(unit) = &self.session.unit
        {
            unit.target.target.look_at_room();
        }
        self.link.ended.notify();
        self.link.make_room();
    }
}

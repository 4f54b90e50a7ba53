//! Commands from arrival to answer: parsed, their data gathered, memory found for them, run on the volume as tasks of
//! their own that nothing cancels, answered, counted. The protocol's other requests are in `dispatch`.

use super::limits::{MAX_HELD_BYTES, VOLUME_CHUNK_BYTES, VOLUME_CHUNKS};
use super::link::Link;
use super::session::Session;
use super::steps::Way;
use super::tasks::{Entry, Kind, Stage, Task};
use super::volume::{self, Output, Payload, Sink, Work};
use crate::iscsi::{self, Outcome, TaskHandle};
use crate::scsi::{
    self, Action, ByteCount, ByteRange, Command, DataOutNeed, Fill, Lun, LunAddress, Request,
    Response, SenseBytes, SenseFormat, Status, VolumeError, VolumeOp,
};
use atoll_reactor::{SharedBuf, now, spawn_detached};
use std::rc::Rc;

/// The logical units of every target.
const LUNS: [Lun; 1] = [match Lun::new(0) {
    Some(lun) => lun,
    None => panic!("0 is a logical unit number"),
}];

/// Of a command for which there is no memory, and none comes back before it is answered (SAM-5 5.3.1).
fn task_set_full() -> Response {
    Response {
        status: Status::TaskSetFull,
        ..Response::good()
    }
}

impl Task {
    fn new(command: &iscsi::Command, parsed: Command) -> Task {
        let expected = command.expected_data_transfer_length;
        Task {
            handle: command.task,
            command: parsed,
            kind: match parsed {
                Command::Read(_) => Kind::Read,
                Command::Write(_) | Command::WriteAndVerify(_) => Kind::Write,
                _ => Kind::Other,
            },
            arrived: now(),
            offered: if command.write { expected } else { 0 },
            takes: if command.read { expected } else { 0 },
            transfer: 0,
        }
    }
}

/// Whether a request addresses LUN 0.
pub(super) fn is_unit(lun: iscsi::pdu::Lun) -> bool {
    LunAddress::decode(lun.0) == LunAddress::Unit(LUNS[0])
}

impl Link {
    /// A command has arrived.
    pub(super) fn begin_command(self: &Rc<Self>, command: &iscsi::Command) {
        let parsed = match scsi::parse(&command.cdb) {
            Ok(parsed) => parsed,
            Err(sense) => return self.refuse(command.task, &sense.into()),
        };
        let Some(session) = self.unit_session().filter(|_| is_unit(command.lun)) else {
            return self.refuse(command.task, &scsi::start_absent(&parsed, &LUNS));
        };
        let mut task = Task::new(command, parsed);
        let block = session.block_size();
        if task.kind == Kind::Read {
            task.transfer = parsed.data_in_limit(block).0;
        }
        let need = match command.write {
            true => parsed.data_out(block),
            false => DataOutNeed::None,
        };
        match need {
            DataOutNeed::Parameters(ByteCount(length)) => {
                task.transfer = length;
                let held = usize::try_from(length).unwrap_or(usize::MAX);
                if !self.fits(held) {
                    return self.answer(&session, &task, task_set_full(), &[]);
                }
                self.tasks.insert(Entry {
                    task,
                    stage: Stage::Parameters(Vec::new()),
                    held,
                });
                self.expect(task.handle, length);
            }
            DataOutNeed::Payload(ByteCount(length)) => {
                task.transfer = length;
                self.start(&session, task, &[]);
            }
            DataOutNeed::None => {
                if command.write {
                    // What comes all the same is swallowed.
                    self.expect(task.handle, 0);
                }
                self.start(&session, task, &[]);
            }
        }
    }

    /// Says how much data is wanted.
    fn expect(&self, handle: TaskHandle, length: u64) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // A task that is gone needs none.
        let _ = self.protocol.borrow_mut().expect_data_out(handle, length);
    }

    /// Data of a command has arrived.
    pub(super) fn take_data(&self, handle: TaskHandle, offset: u32, bytes: &[u8]) {
        self.tasks.with(handle, |entry| match &mut entry.stage {
            Stage::Parameters(list) => {
                debug_assert_eq!(list.len(), offset as usize);
                list.extend_from_slice(bytes);
            }
            Stage::Payload { payload, .. } => payload.put(offset as usize, bytes),
            Stage::Steps {
                payload: Some((payload, begins)),
                ..
            } => payload.put(offset as usize - *begins as usize, bytes),
            Stage::Queued { .. } | Stage::Running(_) | Stage::Steps { .. } => {}
        });
    }

    /// All data of a command is there.
    pub(super) fn data_complete(self: &Rc<Self>, handle: TaskHandle) {
        let gathered = |entry: &mut Entry| {
            if let Stage::Steps { arrived, .. } = &mut entry.stage {
                *arrived = true;
                self.steps.notify();
            }
            matches!(entry.stage, Stage::Parameters(_) | Stage::Payload { .. })
        };
        if self.tasks.with(handle, gathered) != Some(true) {
            return;
        }
        let Some(entry) = self.tasks.remove(handle) else {
            return;
        };
        match (entry.stage, self.unit_session()) {
            (Stage::Parameters(list), Some(session)) => self.start(&session, entry.task, &list),
            (Stage::Payload { payload, sink }, Some(session)) => {
                let work = Work::Data { payload, sink };
                self.run(&session, entry.task, entry.held, work);
            }
            _ => {}
        }
    }

    /// The command meets the logical unit.
    fn start(self: &Rc<Self>, session: &Rc<Session>, task: Task, data_out: &[u8]) {
        let Some(unit) = &session.unit else { return };
        let request = Request {
            command: &task.command,
            offered: ByteCount(u64::from(task.offered)),
            data_out,
            luns: &LUNS,
        };
        let action = {
            let mut nexus = unit.nexus.borrow_mut();
            unit.target.target.unit.start(&mut nexus, &request)
        };
        match action {
            Action::Done(response) => self.answer(session, &task, response, &[]),
            Action::Volume(mut op) => {
                let cost = cost(&mut op, task.takes, session.block_size().bytes());
                match cost {
                    Some(cost) => {
                        self.tasks.enqueue(task, op, cost);
                        self.admit();
                    }
                    // A read of which the initiator takes nothing.
                    None => self.answer(session, &task, Response::good(), &[]),
                }
            }
        }
    }

    /// Lets commands go on for which there is memory.
    fn admit(self: &Rc<Self>) {
        while let Some((handle, cost)) = self.tasks.first_in_line() {
            match self.way_of(handle, cost) {
                Some(way) => self.go(handle, way),
                None => {
                    self.wait_for_memory();
                    break;
                }
            }
        }
        self.settle();
    }

    fn go(self: &Rc<Self>, handle: TaskHandle, way: Way) {
        match way {
            Way::Whole => self.proceed(handle),
            Way::Steps => self.step(handle),
        }
    }

    /// Has the line looked at again when other connections have given memory back.
    fn wait_for_memory(self: &Rc<Self>) {
        if self.waits_for_memory.replace(true) {
            return;
        }
        let link = self.clone();
        spawn_detached(async move {
            let ready = || match link.tasks.first_in_line() {
                Some((handle, cost)) => link.way_of(handle, cost).map(drop),
                None => Some(()),
            };
            link.state.memory.freed.until(ready).await;
            link.waits_for_memory.set(false);
            link.make_room();
        });
    }

    /// Bytes that are queued to be sent or on their way out.
    pub(super) fn output_bytes(&self) -> usize {
        self.protocol.borrow().queued_output() + self.sending.get()
    }

    /// Accounts for what the connection holds now, and tells how much that is.
    pub(super) fn settle(&self) -> usize {
        let used = self.tasks.held() + self.output_bytes();
        self.share.settle(used);
        used
    }

    pub(super) fn fits(&self, cost: usize) -> bool {
        let used = self.settle();
        (used == 0 || used + cost <= MAX_HELD_BYTES) && self.share.allows(used + cost)
    }

    /// Data is due for a command that waits for memory, and nothing is read before that is decided. True if it was.
    pub(super) fn decide(self: &Rc<Self>) -> bool {
        let undecided = self.protocol.borrow().undecided();
        let Some(handle) = undecided else {
            return false;
        };
        let Some(cost) = self.tasks.cost(handle) else {
            self.expect(handle, 0);
            return true;
        };
        if let Some(way) = self.way_of(handle, cost) {
            self.go(handle, way);
            self.settle();
            return true;
        }
        if self.tasks.returns_some() || self.output_bytes() > 0 {
            return false;
        }
        // All memory is held by writes whose data lies behind this command's.
        if let Some(entry) = self.tasks.remove(handle)
            && let Some(session) = self.unit_session()
        {
            self.answer(&session, &entry.task, task_set_full(), &[]);
        }
        true
    }

    /// A command that waited has its memory.
    fn proceed(self: &Rc<Self>, handle: TaskHandle) {
        let Some(entry) = self.tasks.remove(handle) else {
            return;
        };
        let (Stage::Queued { op, cost }, Some(session)) = (entry.stage, self.unit_session()) else {
            return;
        };
        let task = entry.task;
        let work = match op {
            VolumeOp::Write { range, fua, .. } => {
                return self.gather(task, cost, Payload::new(range), Sink::Write { fua });
            }
            VolumeOp::WriteAndVerify { range, compare } => {
                let sink = Sink::WriteAndVerify { compare };
                return self.gather(task, cost, Payload::new(range), sink);
            }
            VolumeOp::Compare { range } => {
                return self.gather(task, cost, Payload::new(range), Sink::Compare);
            }
            VolumeOp::CompareAndWrite { range, fua } => {
                let sink = Sink::CompareAndWrite { fua };
                return self.gather(task, cost, Payload::twice(range), sink);
            }
            VolumeOp::OrWrite { range, fua } => {
                return self.gather(task, cost, Payload::new(range), Sink::OrWrite { fua });
            }
            VolumeOp::Read { range, fua, .. } => Work::Read { range, fua },
            VolumeOp::Verify { range, pattern } => Work::Verify { range, pattern },
            VolumeOp::Flush => Work::Flush,
            VolumeOp::Unmap(ranges) => Work::Unmap(ranges),
            VolumeOp::WriteSame { range, fill } => Work::Fill { range, fill },
            VolumeOp::LbaStatus(request) => Work::LbaStatus(request),
            VolumeOp::LogRoom(request) => Work::LogRoom(request),
        };
        self.run(&session, task, cost, work);
    }

    /// Takes a command's data, to be run when all is there.
    fn gather(&self, task: Task, held: usize, payload: Payload, sink: Sink) {
        let (handle, length) = (task.handle, payload.len());
        self.tasks.insert(Entry {
            task,
            stage: Stage::Payload { payload, sink },
            held,
        });
        self.expect(handle, length);
    }

    /// Runs a command on the volume, to its end or until it is aborted, whatever becomes of the connection.
    fn run(self: &Rc<Self>, session: &Rc<Session>, task: Task, held: usize, work: Work) {
        let most = self.state.shared.config.most_commands();
        let (number, cancel) = self.tasks.begin_run(task, held, most);
        let (link, session) = (self.clone(), session.clone());
        spawn_detached(async move {
            let Some(unit) = &session.unit else { return };
            let outcome = volume::run(&unit.target.target.volume, cancel, work).await;
            if link.tasks.end_run(task.handle, number, held) {
                link.finish(&session, &task, outcome);
            }
            if task.command.writes_medium() {
                unit.target.target.look_at_room();
            }
            link.ended.notify();
            link.make_room();
        });
    }

    /// Answers a command that has run.
    pub(super) fn finish(
        &self,
        session: &Session,
        task: &Task,
        outcome: Result<Output, VolumeError>,
    ) {
        match outcome {
            Ok(Output::Data(data)) => self.answer(session, task, Response::good(), &data),
            Ok(Output::Response(response)) => self.answer(session, task, response, &[]),
            Err(error) => self.answer(session, task, error.into(), &[]),
        }
    }

    /// Something was sent or has ended: what waits for memory may go on.
    pub(super) fn make_room(self: &Rc<Self>) {
        self.settle();
        self.steps.notify();
        if self.tasks.first_in_line().is_some() {
            self.admit();
            self.pump(&mut [].as_slice());
        }
        self.input.notify();
    }

    /// Answers a command with what it came to, and counts it.
    fn answer(&self, session: &Session, task: &Task, response: Response, data: &[SharedBuf]) {
        let good = response.status == Status::Good;
        let returned = response.data_in.len() as u64;
        // What the initiator's length had no room for is told of failed writes too (RFC 7143 §11.4.5.1).
        let cut_short = task.offered > 0 && u64::from(task.offered) < task.transfer;
        let transfer = match good || cut_short {
            true => task.transfer + returned,
            false => 0,
        };
        session.count(|counters| {
            let latency = now().since(task.arrived);
            counters.errors += u64::from(!good);
            match task.kind {
                Kind::Read => {
                    counters.reads += 1;
                    counters.read_bytes += data.iter().map(|s| s.len() as u64).sum::<u64>();
                    counters.read_latency += latency;
                }
                Kind::Write => {
                    counters.writes += 1;
                    let written = if good { transfer } else { 0 };
                    counters.written_bytes += written.min(u64::from(task.offered));
                    counters.write_latency += latency;
                }
                Kind::Other => counters.others += 1,
            }
        });
        let sense = response.sense.map(|sense| session.encode_sense(&sense));
        if response.data_in.is_empty() {
            self.complete(task.handle, response.status, sense, transfer, data);
        } else {
            let data = [SharedBuf::from(response.data_in)];
            self.complete(task.handle, response.status, sense, transfer, &data);
        }
    }

    /// Answers a command that never reached the unit.
    fn refuse(&self, handle: TaskHandle, response: &Response) {
        let sense = response.sense.map(|sense| match self.unit_session() {
            Some(session) => session.encode_sense(&sense),
            None => sense.encode(SenseFormat::Fixed),
        });
        if let Some(session) = &*self.session.borrow() {
            session.count(|counters| {
                counters.others += 1;
                counters.errors += u64::from(response.status != Status::Good);
            });
        }
        let transfer = response.data_in.len() as u64;
        let data: Vec<SharedBuf> = match transfer {
            0 => Vec::new(),
            _ => vec![SharedBuf::from(response.data_in.clone())],
        };
        self.complete(handle, response.status, sense, transfer, &data);
    }

    fn complete(
        &self,
        handle: TaskHandle,
        status: Status,
        sense: Option<SenseBytes>,
        transfer_length: u64,
        data: &[SharedBuf],
    ) {
        let outcome = Outcome {
            status: status.code(),
            sense: sense.as_ref().map_or(&[], SenseBytes::as_slice),
            transfer_length,
        };
        // The task may have ended with the connection.
        let _ = self.protocol.borrow_mut().complete(handle, outcome, data);
        self.output.notify();
    }
}

/// Bytes that an operation holds while it runs, after a read was cut to the blocks that the initiator takes part of;
/// `None` if that leaves nothing.
fn cost(op: &mut VolumeOp, takes: u32, block: u32) -> Option<usize> {
    let bytes = match op {
        VolumeOp::Read { range, .. } => {
            let takes = u64::from(takes).next_multiple_of(u64::from(block));
            range.length = range.length.min(ByteCount(takes));
            if range.length == ByteCount(0) {
                return None;
            }
            range.length.0
        }
        VolumeOp::Write { range, .. } => range.length.0,
        // The data, and what is read of the volume at a time.
        VolumeOp::WriteAndVerify { range, .. }
        | VolumeOp::Compare { range }
        | VolumeOp::OrWrite { range, .. } => range.length.0 + read_at_a_time(*range),
        VolumeOp::CompareAndWrite { range, .. } => 3 * range.length.0,
        VolumeOp::Verify { range, .. } => read_at_a_time(*range),
        VolumeOp::WriteSame {
            range,
            fill: Fill::Pattern(_),
        } => range.length.0.min(VOLUME_CHUNK_BYTES),
        VolumeOp::Flush
        | VolumeOp::Unmap(_)
        | VolumeOp::WriteSame { .. }
        | VolumeOp::LbaStatus(_)
        | VolumeOp::LogRoom(_) => 0,
    };
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Bytes of the volume that a comparison holds at a time.
fn read_at_a_time(range: ByteRange) -> u64 {
    range
        .length
        .0
        .min(VOLUME_CHUNK_BYTES * VOLUME_CHUNKS as u64)
}

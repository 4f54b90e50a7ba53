//! The streaming parser: cuts any split of the byte stream into headers and data segments, checks
//! lengths and digests, and hands finished PDUs to `dispatch`. Data of commands is never gathered here.
use super::tasks::TaskHandle;
use super::{Connection, Event, State, Timestamp, Waiting};
use crate::iscsi::digest::{Crc32c, DIGEST_LENGTH, DigestMode, crc32c};
use crate::iscsi::error::{CloseReason, Violation};
use crate::iscsi::limits::{BHS_LENGTH, DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, MAX_AHS_LENGTH};
use crate::iscsi::login::LoginStatus;
use crate::iscsi::pdu::{Bhs, Opcode};

const HEADER_LENGTH: usize = BHS_LENGTH + MAX_AHS_LENGTH + DIGEST_LENGTH;
const TRAILER_LENGTH: usize = 3 + DIGEST_LENGTH;

/// Where the data segment of the current PDU goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nowhere.
    Discard,
    /// Into memory, for text and pings: bounded by our MaxRecvDataSegmentLength.
    Collect(Vec<u8>),
    /// To the server, as data of a task from this offset.
    Task(TaskHandle, u32),
}

impl Sink {
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Discard | Self::Task(..) => 0,
            Self::Collect(collected) => collected.capacity(),
        }
    }
}

#[derive(Debug)]
enum Stage {
    Header,
    Data { left: u32 },
    Trailer { filled: usize },
}

pub(super) struct Receiver {
    stage: Stage,
    pub(super) header: Box<[u8; HEADER_LENGTH]>,
    filled: usize,
    pub(super) sink: Sink,
    crc: Option<Crc32c>,
    trailer: [u8; TRAILER_LENGTH],
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    pub fn new() -> Self {
        Self {
            stage: Stage::Header,
            header: Box::new([0; HEADER_LENGTH]),
            filled: 0,
            sink: Sink::Discard,
            crc: None,
            trailer: [0; TRAILER_LENGTH],
        }
    }

    pub fn bhs(&self) -> Bhs {
        let mut bytes = [0; BHS_LENGTH];
        bytes.copy_from_slice(&self.header[..BHS_LENGTH]);
        Bhs(bytes)
    }

    pub fn ahs(&self) -> &[u8] {
        &self.header[BHS_LENGTH..BHS_LENGTH + self.bhs().ahs_length()]
    }
}

fn take<'b>(input: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// Consumes input until something happens and reports it. Call again, also with empty input, until
    /// it returns `None`. Input that is then left is not wanted yet (see `wants_read`): offer it again
    /// after the server has answered, completed or sent something.
    pub fn handle<'b>(&mut self, now: Timestamp, input: &mut &'b [u8]) -> Option<Event<'b>> {
        loop {
            if let Some(event) = self.pending_event() {
                return Some(event);
            }
            if matches!(self.state, State::Closing) {
                *input = &[];
                return None;
            }
            if input.is_empty() || !self.wants_read() {
                return None;
            }
            self.timers.received(now);
            match self.step(now, input) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(violation) => self.violated(now, violation),
            }
        }
    }

    fn pending_event<'b>(&mut self) -> Option<Event<'b>> {
        if let Some(reason) = self.closed.take() {
            return Some(Event::Closed(reason));
        }
        if std::mem::take(&mut self.entered_full_feature) {
            return Some(Event::FullFeaturePhase(self.parameters));
        }
        while let Some(task) = self.ready.pop_front() {
            if self
                .tasks
                .get(task)
                .is_some_and(|task| task.deferred.is_none())
            {
                return Some(Event::DataOutComplete { task });
            }
        }
        None
    }

    /// The task whose data is due although the server has not said how much it wants: nothing is read
    /// before `expect_data_out`, `complete` or `abort_task`.
    #[must_use]
    pub fn undecided(&self) -> Option<TaskHandle> {
        let (Stage::Data { .. }, Sink::Task(handle, _)) =
            (&self.receiver.stage, &self.receiver.sink)
        else {
            return None;
        };
        let task = self.tasks.get(*handle)?;
        let undecided = task.data_out.wanted.is_none() && task.deferred.is_none();
        undecided.then_some(*handle)
    }

    fn violated(&mut self, now: Timestamp, violation: Violation) {
        if matches!(self.state, State::Login(_)) {
            self.fail_login(now, LoginStatus::InitiatorError);
        } else {
            let bhs = self.receiver.bhs();
            self.reject(&bhs, violation.reject_reason());
            self.close(now, CloseReason::Violation(violation));
        }
    }

    fn step<'b>(
        &mut self,
        now: Timestamp,
        input: &mut &'b [u8],
    ) -> Result<Option<Event<'b>>, Violation> {
        match self.receiver.stage {
            Stage::Header => self.header(now, input),
            Stage::Data { left } => self.data(now, input, left),
            Stage::Trailer { filled } => self.trailer(now, input, filled),
        }
    }

    fn header<'b>(
        &mut self,
        now: Timestamp,
        input: &mut &'b [u8],
    ) -> Result<Option<Event<'b>>, Violation> {
        let digest = match self.state {
            State::Login(_) => DigestMode::None,
            _ => self.parameters.header_digest,
        };
        let receiver = &mut self.receiver;
        let mut needed = BHS_LENGTH;
        if receiver.filled >= BHS_LENGTH {
            needed += receiver.bhs().ahs_length() + digest.length();
        }
        let taken = take(input, needed - receiver.filled);
        receiver.header[receiver.filled..][..taken.len()].copy_from_slice(taken);
        receiver.filled += taken.len();
        if receiver.filled < BHS_LENGTH {
            return Ok(None);
        }
        let covered = BHS_LENGTH + receiver.bhs().ahs_length();
        if receiver.filled < covered + digest.length() {
            return Ok(None);
        }
        if digest == DigestMode::Crc32c {
            let (bytes, wire) = receiver.header[..receiver.filled].split_at(covered);
            if crc32c(bytes) != *wire {
                return Err(Violation::HeaderDigest);
            }
        }
        receiver.filled = 0;
        self.header_complete(now)
    }

    fn header_complete<'b>(&mut self, now: Timestamp) -> Result<Option<Event<'b>>, Violation> {
        let bhs = self.receiver.bhs();
        let length = bhs.data_segment_length();
        let (limit, digest) = match self.state {
            State::Login(_) => (DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH, DigestMode::None),
            _ => (
                self.config.max_recv_data_segment_length,
                self.parameters.data_digest,
            ),
        };
        if length > limit {
            return Err(Violation::DataSegmentLength { length, limit });
        }
        if matches!(self.state, State::Login(_)) && bhs.opcode() != Opcode::LoginRequest {
            self.fail_login(now, LoginStatus::InvalidDuringLogin);
            return Ok(None);
        }
        let (sink, event) = self.begin_pdu(&bhs)?;
        let receiver = &mut self.receiver;
        receiver.sink = sink;
        receiver.crc = (digest == DigestMode::Crc32c).then(Crc32c::new);
        receiver.stage = Stage::Data { left: length };
        if length > 0 {
            return Ok(event);
        }
        // A PDU without data is complete with its header; a command has no second event then.
        let end = self.end_pdu(now)?;
        Ok(event.or(end))
    }

    fn data<'b>(
        &mut self,
        now: Timestamp,
        input: &mut &'b [u8],
        left: u32,
    ) -> Result<Option<Event<'b>>, Violation> {
        let bytes = take(input, left as usize);
        let taken = bytes.len() as u32;
        let receiver = &mut self.receiver;
        if let Some(crc) = &mut receiver.crc {
            crc.update(bytes);
        }
        let event = match &mut receiver.sink {
            Sink::Discard => None,
            Sink::Collect(collected) => {
                collected.extend_from_slice(bytes);
                None
            }
            Sink::Task(task, offset) => {
                let (task, start) = (*task, *offset);
                *offset += taken;
                self.tasks.get(task).and_then(|state| {
                    let wanted = state.data_out.wanted.unwrap_or(0).saturating_sub(start);
                    let bytes = &bytes[..bytes.len().min(wanted as usize)];
                    let deliver = state.deferred.is_none() && !bytes.is_empty();
                    deliver.then_some(Event::DataOut {
                        task,
                        offset: start,
                        bytes,
                    })
                })
            }
        };
        self.receiver.stage = Stage::Data { left: left - taken };
        if taken < left {
            return Ok(event);
        }
        self.receiver.stage = Stage::Trailer { filled: 0 };
        if self.trailer_length() > 0 {
            return Ok(event);
        }
        let end = self.end_pdu(now)?;
        Ok(event.or(end))
    }

    fn trailer_length(&self) -> usize {
        let length = self.receiver.bhs().data_segment_length() as usize;
        let digest = if self.receiver.crc.is_some() {
            DIGEST_LENGTH
        } else {
            0
        };
        length.next_multiple_of(4) - length + digest
    }

    fn trailer<'b>(
        &mut self,
        now: Timestamp,
        input: &mut &'b [u8],
        filled: usize,
    ) -> Result<Option<Event<'b>>, Violation> {
        let needed = self.trailer_length();
        let receiver = &mut self.receiver;
        let taken = take(input, needed - filled);
        receiver.trailer[filled..][..taken.len()].copy_from_slice(taken);
        let filled = filled + taken.len();
        receiver.stage = Stage::Trailer { filled };
        if filled < needed {
            return Ok(None);
        }
        if let Some(mut crc) = receiver.crc.take() {
            let (padding, wire) = receiver.trailer[..needed].split_at(needed - DIGEST_LENGTH);
            crc.update(padding);
            if crc.wire() != *wire {
                return Err(Violation::DataDigest);
            }
        }
        self.end_pdu(now)
    }

    fn end_pdu<'b>(&mut self, now: Timestamp) -> Result<Option<Event<'b>>, Violation> {
        let bhs = self.receiver.bhs();
        self.receiver.stage = Stage::Header;
        self.receiver.crc = None;
        let sink = std::mem::replace(&mut self.receiver.sink, Sink::Discard);
        debug_assert!(matches!(self.waiting, Waiting::No));
        self.finish_pdu(now, &bhs, sink)
    }
}

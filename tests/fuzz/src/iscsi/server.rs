//! A server around a connection: answers every event in one of the ways that the options choose, and asserts what the
//! core promises its server: data in order and once, tasks reported once, bounds on memory, events and output.
use std::sync::OnceLock;

use atoll_targets::iscsi::pdu::{Lun, TaskManagementFunction, TaskManagementResponseCode, Tsih};
use atoll_targets::iscsi::{
    CloseReason, Command, Connection, Duration, Event, LoginAccept, LoginStatus, Outcome,
    TargetRecord, TaskHandle, TaskManagementHandle, Timestamp, limits,
};

use super::check::Checker;
use super::state::{QUEUE_DEPTH, State};
use super::{START, option};

/// What reads return; a server would return no more than the CDB asks for either.
static PATTERN: [u8; 4096] = [0xa5; 4096];
/// CHECK CONDITION and some sense data.
const FAILED: Outcome<'static> = Outcome {
    status: 2,
    sense: &[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0],
    transfer_length: 0,
};
const MAX_TASKS: usize = (QUEUE_DEPTH + limits::MAX_IMMEDIATE_TASKS) as usize;

/// Held memory that needs no input: a fresh connection, its login, the tables of its tasks.
const HELD_AT_REST: usize = 24 * 1024;
/// Held memory per byte of input: collected text, echoed pings, and the room that vectors grow into.
const HELD_PER_BYTE: usize = 6;
/// Held memory per PDU: a task, its answer, or its R2Ts; a piece of a list of targets.
const HELD_PER_PDU: usize = 6 * 1024;
/// Events per PDU: a command, its data's end, its failure; each piece of data is one more.
const EVENTS_PER_PDU: u64 = 3;
/// PDUs sent per PDU received: the R2Ts of one task, or the data and status of a read.
const SENT_PER_PDU: u64 = 16;
/// What the commands of a state's prefix may still cause.
const OPEN: u64 = 64;

/// What the server knows of a task.
#[derive(Clone, Copy, Default)]
struct Progress {
    live: bool,
    wanted: u32,
    received: u32,
}

pub struct Server {
    connection: Connection<&'static [u8]>,
    options: u8,
    now: Timestamp,
    tasks: [Progress; MAX_TASKS],
    held: Vec<TaskHandle>,
    held_management: Vec<TaskManagementHandle>,
    logout_waits: bool,
    /// `Closed` was reported.
    closed: bool,
    taken_before_end: Option<usize>,
    prefix: usize,
    fed: usize,
    pieces: u64,
    events: u64,
    checker: Checker,
}

fn targets() -> &'static [TargetRecord] {
    static TARGETS: OnceLock<Vec<TargetRecord>> = OnceLock::new();
    TARGETS.get_or_init(|| {
        let record = |number| TargetRecord {
            name: format!("iqn.2026-11.io.atoll:volume-{number}"),
            portals: vec![("127.0.0.1:3260".into(), 1), ("[::1]:3260".into(), 1)],
        };
        (0..12).map(record).collect()
    })
}

impl Server {
    /// A server whose connection is in `state`; from here on `options` count.
    pub fn in_state(state: State, options: u8) -> Server {
        let mut server = Server {
            connection: Connection::new(state.config(), START),
            options: option::HOLD,
            now: START,
            tasks: [Progress::default(); MAX_TASKS],
            held: Vec::new(),
            held_management: Vec::new(),
            logout_waits: false,
            closed: false,
            taken_before_end: None,
            prefix: 0,
            fed: 0,
            pieces: 0,
            events: 0,
            checker: Checker::new(),
        };
        let prefix = state.prefix();
        server.feed(&prefix.login);
        server.feed(&prefix.requests);
        match state {
            State::LogoutAsked => server.connection.request_logout(START, 5),
            State::Closing => server.connection.drop_session(START),
            _ => assert!(!server.closed, "{state:?} is not reached"),
        }
        assert_eq!(server.logout_waits, state == State::LogoutBegun);
        server.options = options;
        server.prefix = server.fed;
        server
    }

    /// Bytes after the prefix that the core has taken, up to its end.
    pub fn taken(&self) -> usize {
        let taken = self.taken_before_end.unwrap_or(self.fed);
        taken.saturating_sub(self.prefix)
    }

    /// Whether the connection has ended.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Tasks that are open, for the test of the states.
    pub fn open_tasks(&self) -> usize {
        self.connection.tasks().count()
    }

    /// Memory that the connection holds.
    pub fn held_bytes(&self) -> usize {
        self.connection.held_bytes()
    }

    /// What the core sent, for the test of the states.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Feeds bytes until the core wants no more of them, answers events, takes output.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut input = piece;
        self.pieces += 1;
        loop {
            let before = (input.len(), self.events);
            while let Some(event) = self.connection.handle(self.now, &mut input) {
                self.events += 1;
                if matches!(event, Event::Closed(_)) {
                    self.taken_before_end = Some(self.fed + piece.len() - input.len());
                }
                self.react(event);
            }
            assert!(self.connection.undecided().is_none());
            let lazy = self.options & option::LAZY != 0;
            let sent = if lazy && input.is_empty() {
                0
            } else {
                self.drain()
            };
            if input.is_empty() || self.logout_waits {
                break;
            }
            let moved = before != (input.len(), self.events) || sent > 0;
            assert!(moved, "the core waits for nothing and takes nothing");
        }
        assert!(!self.logout_waits || !self.connection.wants_read());
        self.fed += piece.len();
    }

    /// Takes all output and checks it.
    fn drain(&mut self) -> usize {
        let mut taken = 0;
        while let Some(chunk) = self.connection.poll_transmit(self.now) {
            assert!(!chunk.bytes().is_empty(), "an empty chunk");
            taken += chunk.bytes().len();
            self.checker.take(chunk.bytes());
        }
        assert_eq!(self.connection.queued_output(), 0);
        taken
    }

    fn react(&mut self, event: Event<'_>) {
        let now = self.now;
        match event {
            Event::Login(_) if self.options & option::REFUSE != 0 => {
                let refused = self.connection.refuse_login(now, LoginStatus::NotFound);
                refused.expect("a login waits");
            }
            Event::Login(_) => {
                let accept = LoginAccept {
                    tsih: Tsih(7),
                    target_portal_group_tag: 1,
                    target_alias: Some("fuzzed".into()),
                };
                let accepted = self.connection.accept_login(now, accept);
                accepted.expect("a login waits");
            }
            Event::FullFeaturePhase(parameters) => self.checker.negotiated(&parameters),
            Event::SendTargets(_) => {
                let answered = self.connection.answer_send_targets(targets());
                answered.expect("a text request waits");
            }
            Event::Command(command) => self.command(&command),
            Event::DataOut {
                task,
                offset,
                bytes,
            } => {
                let progress = &mut self.tasks[task.index()];
                assert!(progress.live, "data of a task that has ended");
                assert_eq!(offset, progress.received, "data comes in order and once");
                progress.received += bytes.len() as u32;
                assert!(
                    progress.received <= progress.wanted,
                    "more data than wanted"
                );
            }
            Event::DataOutComplete { task } => {
                let progress = self.tasks[task.index()];
                assert!(progress.live, "the end of data of a task that has ended");
                assert_eq!(progress.received, progress.wanted, "data is complete");
                self.complete(task, u64::from(progress.wanted), &[]);
            }
            Event::TaskFailed { task, .. } => {
                self.end(task);
                let late = self.connection.complete(task, FAILED, &[]);
                late.expect_err("the core has ended the task");
            }
            Event::TaskManagement {
                request,
                function,
                lun,
                referenced,
            } => self.manage(request, function, lun, referenced),
            Event::Logout(_) if self.options & option::HOLD != 0 => self.logout_waits = true,
            Event::Logout(_) => self.log_out(),
            Event::Closed(reason) => self.close(&reason),
        }
    }

    fn close(&mut self, reason: &CloseReason) {
        assert!(!self.closed, "closed twice: {reason}");
        assert_eq!(
            self.connection.tasks().count(),
            0,
            "tasks go with the connection"
        );
        self.closed = true;
        self.logout_waits = false;
        self.held.clear();
        self.held_management.clear();
    }

    fn command(&mut self, command: &Command) {
        let task = command.task;
        let progress = &mut self.tasks[task.index()];
        assert!(!progress.live, "a slot that is in use");
        let expected = command.expected_data_transfer_length;
        *progress = Progress {
            live: true,
            ..Progress::default()
        };
        if command.write {
            if self.options & option::EARLY != 0 {
                return self.fail(task);
            }
            let half = self.options & option::HALF != 0;
            let wanted = if half { expected / 2 } else { expected };
            progress.wanted = wanted;
            let comes = self.connection.expect_data_out(task, wanted);
            assert_eq!(comes, Ok(wanted));
        } else if self.options & option::HOLD != 0 {
            self.held.push(task);
        } else {
            self.read(task, expected, command.read);
        }
    }

    fn read(&mut self, task: TaskHandle, expected: u32, read: bool) {
        // As the CDB would have it: sometimes less than the initiator expects, sometimes more.
        let length = if read {
            (expected as usize).min(PATTERN.len())
        } else {
            0
        };
        let (head, tail) = PATTERN[..length].split_at(length / 3);
        self.complete(task, length as u64, &[head, tail]);
    }

    fn complete(&mut self, task: TaskHandle, transfer_length: u64, data: &[&'static [u8]]) {
        self.end(task);
        let outcome = Outcome {
            status: 0,
            sense: &[],
            transfer_length,
        };
        let completed = self.connection.complete(task, outcome, data);
        completed.expect("the task is open");
    }

    fn fail(&mut self, task: TaskHandle) {
        self.end(task);
        let completed = self.connection.complete(task, FAILED, &[]);
        completed.expect("the task is open");
    }

    fn end(&mut self, task: TaskHandle) {
        let live = std::mem::take(&mut self.tasks[task.index()].live);
        assert!(live, "a task ends once");
        self.held.retain(|held| *held != task);
    }

    fn abort(&mut self, task: TaskHandle) {
        self.end(task);
        self.connection.abort_task(task).expect("the task is open");
    }

    fn manage(
        &mut self,
        request: TaskManagementHandle,
        function: TaskManagementFunction,
        lun: Lun,
        referenced: Option<TaskHandle>,
    ) {
        let named = function == TaskManagementFunction::AbortTask;
        assert_eq!(referenced.is_some(), named, "{function:?}");
        let all = matches!(
            function,
            TaskManagementFunction::TargetWarmReset | TaskManagementFunction::TargetColdReset
        );
        let concerned = |(task, own): &(TaskHandle, Lun)| match referenced {
            Some(one) => *task == one,
            None => all || *own == lun,
        };
        if self.options & option::HOLD != 0 {
            return self.held_management.push(request);
        }
        let ended: Vec<_> = self.connection.tasks().filter(concerned).collect();
        ended.into_iter().for_each(|(task, _)| self.abort(task));
        self.answer_management(request);
    }

    fn answer_management(&mut self, request: TaskManagementHandle) {
        let done = TaskManagementResponseCode::FunctionComplete;
        let answered = self.connection.complete_task_management(request, done);
        answered.expect("the request waits");
    }

    fn log_out(&mut self) {
        let open: Vec<_> = self.connection.tasks().collect();
        open.into_iter().for_each(|(task, _)| self.abort(task));
        self.logout_waits = false;
        let done = self.connection.complete_logout(self.now);
        done.expect("a logout waits");
    }

    /// The clock goes on.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        if self
            .connection
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.connection.handle_timeout(self.now);
            // Output that is not taken in time is dropped, whole or not.
            if self.connection.is_finished() {
                self.checker.cut_off();
            }
            // What ended by itself is told now.
            self.feed(&[]);
        }
    }

    /// Holds memory, events and output against what came.
    pub fn check_bounds(&self) {
        // Every PDU has a header, so that this many came at most.
        let pdus = (self.fed / limits::BHS_LENGTH) as u64 + 1;
        let held = self.connection.held_bytes();
        let most = HELD_AT_REST + HELD_PER_BYTE * self.fed + HELD_PER_PDU * pdus as usize;
        assert!(
            held <= most,
            "{held} bytes are held after {} came",
            self.fed
        );
        assert!(self.connection.tasks().count() <= MAX_TASKS);
        let most = EVENTS_PER_PDU * pdus + 2 * self.pieces;
        assert!(self.events <= most, "{} events of {pdus} PDUs", self.events);
        let most = SENT_PER_PDU * pdus + OPEN;
        assert!(
            self.checker.sent() <= most,
            "{} PDUs for {pdus}",
            self.checker.sent()
        );
    }

    /// Answers what is open, ends the session, and checks that nothing is left.
    pub fn finish(mut self) {
        self.feed(&[]);
        self.options &= !option::HOLD;
        if self.logout_waits {
            self.log_out();
            self.feed(&[]);
        }
        for request in std::mem::take(&mut self.held_management) {
            self.answer_management(request);
        }
        while let Some(task) = self.held.last().copied() {
            self.read(task, PATTERN.len() as u32, true);
        }
        self.feed(&[]);
        self.drain();
        self.check_bounds();
        if self.options & option::DROP != 0 && !self.closed {
            self.connection.drop_session(self.now);
            self.feed(&[]);
            self.drain();
            assert!(self.closed && self.connection.is_finished());
        }
        assert_eq!(self.connection.is_finished(), self.closed);
        self.checker.end();
    }
}

//! One iSCSI connection, which is one session (MaxConnections=1), as a state machine: bytes and the
//! time in, events, output chunks and a deadline out. It reads no clock, owns no socket, runs no SCSI.
mod data_out;
mod dispatch;
mod memory;
mod negotiation;
mod output;
mod receive;
mod respond;
mod tasks;
mod timers;

use std::collections::VecDeque;

use super::Duration;
use super::error::{CallError, CloseReason, Violation};
use super::limits;
use super::login::{Login, LoginIdentity, LoginStatus};
use super::pdu::{
    Cid, InitiatorTaskTag, LogoutReason, Lun, SequenceNumbers, TargetTransferTag, TaskAttribute,
    TaskManagementFunction,
};
use super::serial::{CmdSn, StatSn};
use super::text::{Assembler, Negotiator, Offers, Parameters};
use output::Output;
pub use output::{Chunk, Inline};
use receive::Receiver;
pub use respond::Outcome;
pub use tasks::TaskHandle;
use tasks::Tasks;

/// A reading of the server's monotonic clock: time since any fixed instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub Duration);

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// What an administrator may set for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the target brings into the negotiation.
    pub offers: Offers,
    /// MaxRecvDataSegmentLength of the target, bytes, 512 to 2^24 - 1.
    pub max_recv_data_segment_length: u32,
    /// Non-immediate commands in flight, 1 to [`limits::MAX_QUEUE_DEPTH`].
    pub queue_depth: u32,
    /// Time from creation to full feature phase.
    pub login_timeout: Duration,
    /// Silence before a ping.
    pub ping_interval: Duration,
    /// Silence after a ping before the end.
    pub ping_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            offers: Offers::default(),
            max_recv_data_segment_length: limits::TARGET_MAX_RECV_DATA_SEGMENT_LENGTH,
            queue_depth: limits::DEFAULT_QUEUE_DEPTH,
            login_timeout: limits::LOGIN_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            ping_timeout: limits::PING_TIMEOUT,
        }
    }
}

impl Config {
    /// Values outside their range are brought to its nearest end.
    fn clamped(mut self) -> Self {
        let length =
            |value: u32| value.clamp(limits::MIN_SEGMENT_LENGTH, limits::MAX_SEGMENT_LENGTH);
        self.max_recv_data_segment_length = length(self.max_recv_data_segment_length);
        self.queue_depth = self.queue_depth.clamp(1, limits::MAX_QUEUE_DEPTH);
        let offers = &mut self.offers;
        offers.max_burst_length = length(offers.max_burst_length);
        offers.first_burst_length = length(offers.first_burst_length).min(offers.max_burst_length);
        offers.max_outstanding_r2t = offers
            .max_outstanding_r2t
            .clamp(1, limits::MAX_OUTSTANDING_R2T);
        self
    }
}

/// A SCSI command for the server to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name in all further calls.
    pub task: TaskHandle,
    /// Logical unit, opaque.
    pub lun: Lun,
    /// The first 16 bytes of the CDB.
    pub cdb: [u8; 16],
    /// The rest of a longer CDB.
    pub extended_cdb: Option<Box<[u8]>>,
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// Bytes that the initiator expects to be transferred.
    pub expected_data_transfer_length: u32,
    /// It expects data from the target.
    pub read: bool,
    /// It has data for the target: call `expect_data_out` or `complete`.
    pub write: bool,
    /// Delivered outside the order of CmdSN.
    pub immediate: bool,
}

/// Names one task management request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskManagementHandle(InitiatorTaskTag);

/// What an initiator asks of SendTargets (§13.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetScope {
    /// Every target that the initiator may see.
    All,
    /// The target of that name.
    Named(String),
    /// The target of this session.
    Current,
}

/// One target in the answer to SendTargets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    /// Its name.
    pub name: String,
    /// `address:port` (IPv6 in brackets) and the portal group tag.
    pub portals: Vec<(String, u16)>,
}

/// What `handle` reports. Data is borrowed from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// Answer with `accept_login` or `refuse_login`; nothing is read until then.
    Login(LoginIdentity),
    /// Login is complete.
    FullFeaturePhase(Parameters),
    /// Answer with `answer_send_targets`; nothing is read until then.
    SendTargets(TargetScope),
    /// Run it, then `complete`.
    Command(Command),
    /// Copy the bytes to `offset` of the task's data. Not yet verified by a data digest: do not act on
    /// them before `DataOutComplete`.
    DataOut {
        /// Whose.
        task: TaskHandle,
        /// First byte's offset in the data of the command.
        offset: u32,
        /// The bytes, within what `expect_data_out` asked for.
        bytes: &'b [u8],
    },
    /// All data that `expect_data_out` asked for is there and verified.
    DataOutComplete {
        /// Whose.
        task: TaskHandle,
    },
    /// The task has ended: its data came out of sequence. Forget it; the connection answers.
    TaskFailed {
        /// Whose.
        task: TaskHandle,
        /// What was wrong.
        violation: Violation,
    },
    /// Do it, `abort_task` what it ends, then `complete_task_management`.
    TaskManagement {
        /// For the answer.
        request: TaskManagementHandle,
        /// What to do.
        function: TaskManagementFunction,
        /// Logical unit, opaque.
        lun: Lun,
        /// The task, for ABORT TASK; always present there.
        referenced: Option<TaskHandle>,
    },
    /// The initiator leaves: end its tasks, then `complete_logout`; nothing is read until then.
    Logout(LogoutReason),
    /// The end: all tasks are gone; send what `poll_transmit` still has, then close the transport.
    Closed(CloseReason),
}

/// Where a connection is in its life.
#[derive(Debug)]
enum State {
    Login(Box<Login>),
    FullFeature { discovery: bool },
    Closing,
}

/// A request that only the server can answer; nothing is read before it has.
#[derive(Debug)]
enum Waiting {
    No,
    Login,
    SendTargets,
    Logout(LogoutReason, InitiatorTaskTag),
}

/// Text requests in full feature phase.
#[derive(Debug, Default)]
struct TextExchange {
    assembler: Assembler,
    /// Tag by which the initiator continues.
    tag: Option<TargetTransferTag>,
    tags_used: u32,
    answer: VecDeque<u8>,
    /// Tag, LUN, F of the request being answered.
    request: Option<(InitiatorTaskTag, Lun, bool)>,
}

/// One connection. `P` is the payload of reads: a cheaply cloned, refcounted view of bytes.
#[derive(Debug)]
pub struct Connection<P> {
    config: Config,
    state: State,
    waiting: Waiting,
    parameters: Parameters,
    negotiator: Option<Negotiator>,
    cid: Cid,
    receiver: Receiver,
    output: Output<P>,
    tasks: Tasks,
    ready: VecDeque<TaskHandle>,
    entered_full_feature: bool,
    closed: Option<CloseReason>,
    management: Vec<InitiatorTaskTag>,
    text: TextExchange,
    /// The login request being answered: tag and ISID.
    login_header: Option<super::pdu::LoginRequest>,
    stat_sn: StatSn,
    exp_cmd_sn: CmdSn,
    max_cmd_sn: CmdSn,
    timers: timers::Timers,
}

impl<P: AsRef<[u8]> + Clone> Connection<P> {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(config: Config, now: Timestamp) -> Self {
        let config = config.clamped();
        let login = Login::new(config.offers, config.max_recv_data_segment_length);
        Self {
            config,
            state: State::Login(Box::new(login)),
            waiting: Waiting::No,
            parameters: Parameters::default(),
            negotiator: None,
            cid: Cid(0),
            receiver: Receiver::new(),
            output: Output::new(),
            tasks: Tasks::default(),
            ready: VecDeque::new(),
            entered_full_feature: false,
            closed: None,
            management: Vec::new(),
            text: TextExchange::default(),
            login_header: None,
            stat_sn: StatSn(0),
            exp_cmd_sn: CmdSn(0),
            max_cmd_sn: CmdSn(0),
            timers: timers::Timers::new(now, config.login_timeout),
        }
    }

    /// The next piece of output, in order. Keep it until the transport has taken all its bytes.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Chunk<P>> {
        let chunk = self.output.pop()?;
        self.timers.sent(now);
        Some(chunk)
    }

    /// Bytes that `poll_transmit` still holds.
    #[must_use]
    pub fn queued_output(&self) -> usize {
        self.output.queued_bytes()
    }

    /// Whether `handle` would consume input now. When false do not read the socket: the peer is to be
    /// slowed down, or an answer of the server is owed.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.output.is_full() && matches!(self.waiting, Waiting::No) && self.undecided().is_none()
    }

    /// Whether the connection has ended and all output was taken: close the transport.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Closing) && self.output.is_empty()
    }

    /// The handles and logical units of all tasks that the server has not completed.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskHandle, Lun)> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.deferred.is_none())
            .map(|(handle, task)| (handle, task.lun))
    }

    fn numbers(&self) -> SequenceNumbers {
        SequenceNumbers {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
        }
    }

    /// The numbers of a PDU that carries a status, which consumes a StatSN.
    fn status_numbers(&mut self) -> SequenceNumbers {
        let numbers = self.numbers();
        self.stat_sn = self.stat_sn.next();
        numbers
    }

    /// Ends the connection: tasks go, output stays, the event follows.
    fn close(&mut self, now: Timestamp, reason: CloseReason) {
        if matches!(self.state, State::Closing) {
            return;
        }
        self.state = State::Closing;
        self.waiting = Waiting::No;
        self.tasks.clear();
        self.ready.clear();
        self.management.clear();
        self.receiver = Receiver::new();
        self.text = TextExchange::default();
        self.closed = Some(reason);
        self.timers.closing(now);
    }
}

//! The states of a connection, each with the legal PDUs that lead there, and what is known of one that is there: the
//! CmdSN due, the tags of commands and transfers that are open.
use std::sync::OnceLock;

use atoll_targets::iscsi::Config;
use atoll_targets::iscsi::pdu::{
    Cid, DataOut, InitiatorTaskTag, Isid, LoginRequest, LogoutReason, LogoutRequest, Lun,
    ScsiCommand, Stage, TargetTransferTag, TaskAttribute, TaskManagementFunction,
    TaskManagementRequest, TextRequest, Tsih,
};
use atoll_targets::iscsi::serial::{CmdSn, DataSn, StatSn};
use atoll_targets::iscsi::text::Offers;

/// CmdSN of the first request; the numbers wrap soon after.
pub const FIRST_CMD_SN: u32 = 0xffff_fffa;
/// MaxRecvDataSegmentLength of the target here: small, so that a mutated length is soon out of it or soon over.
pub const SEGMENT: u32 = 16 * 1024;
/// Commands in flight here.
pub const QUEUE_DEPTH: u32 = 32;
/// The logical unit of all commands.
pub const LUN: Lun = Lun([0, 1, 0, 0, 0, 0, 0, 0]);
/// Tags of the commands that are open in a state count from here.
pub const FIRST_TAG: u32 = 0x100;
const MAX_BURST: u32 = 1024;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Before the first request.
    Security,
    /// Security negotiation is over.
    Operational,
    /// Full feature phase, normal session, nothing outstanding.
    Idle,
    /// Reads and task management requests wait for the server.
    Commands,
    /// R2Ts are outstanding, unsolicited data is due, a failed write has data in flight.
    Transfers,
    /// Half of a text was collected.
    TextCollected,
    /// Half of an answer was sent.
    TextAnswered,
    /// Discovery session.
    Discovery,
    /// The target has asked for the logout, and commands are outstanding.
    LogoutAsked,
    /// The initiator has asked for the logout, and the server has not answered.
    LogoutBegun,
    /// As `Transfers`, with both digests.
    Digests,
    /// The connection is at its end, with output that was not taken.
    Closing,
}

impl State {
    pub fn has_digests(self) -> bool {
        self == State::Digests
    }

    pub fn is_login(self) -> bool {
        matches!(self, State::Security | State::Operational)
    }

    pub fn config(self) -> Config {
        let offers = Offers {
            max_burst_length: MAX_BURST,
            first_burst_length: 512,
            ..Offers::default()
        };
        Config {
            offers,
            max_recv_data_segment_length: SEGMENT,
            queue_depth: QUEUE_DEPTH,
            ..Config::default()
        }
    }

    /// What leads here. Requests of the full feature phase begin at the returned offset: from there on digests are due.
    pub fn prefix(self) -> &'static Prefix {
        static ALL: [OnceLock<Prefix>; 12] = [const { OnceLock::new() }; 12];
        ALL[self as usize].get_or_init(|| Prefix::of(self))
    }
}

/// The legal PDUs that lead to a state.
pub struct Prefix {
    /// Login.
    pub login: Vec<u8>,
    /// Requests of the full feature phase, with digests where they are negotiated.
    pub requests: Vec<u8>,
    /// CmdSN due next.
    pub cmd_sn: u32,
}

/// Header and data, padded.
pub fn plain(header: [u8; 48], data: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(48 + data.len().next_multiple_of(4), 0);
    bytes
}

/// A login request.
pub fn login(current_stage: Stage, next_stage: Stage, text: &str) -> Vec<u8> {
    let request = LoginRequest {
        immediate: true,
        transit: next_stage != current_stage,
        is_continued: false,
        current_stage,
        next_stage,
        version_max: 0,
        version_min: 0,
        isid: Isid([0x80, 1, 2, 3, 4, 5]),
        tsih: Tsih::NONE,
        initiator_task_tag: InitiatorTaskTag(1),
        cid: Cid(0),
        cmd_sn: CmdSn(FIRST_CMD_SN),
        exp_stat_sn: StatSn(0),
        data_segment_length: text.len() as u32,
    };
    plain(request.encode().0, text.as_bytes())
}

/// The keys of every normal login.
pub const NAMES: &str =
    "InitiatorName=iqn.2026-01.test:a\0TargetName=iqn.2026-11.io.atoll:demo\0SessionType=Normal\0";
const DISCOVERY: &str = "InitiatorName=iqn.2026-01.test:a\0SessionType=Discovery\0";

/// A SCSI command that carries `data_segment_length` bytes at once.
pub fn command(
    tag: u32,
    cmd_sn: u32,
    write: bool,
    is_final: bool,
    (expected, data_segment_length): (u32, u32),
) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final,
        read: !write,
        write,
        attribute: TaskAttribute::Simple,
        ahs_length: 0,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(tag),
        expected_data_transfer_length: expected,
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: StatSn(0),
        cdb: [
            if write { 0x2a } else { 0x28 },
            0,
            0,
            0,
            0,
            8,
            0,
            0,
            8,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ],
        data_segment_length,
    }
}

/// A text request.
pub fn text(tag: u32, cmd_sn: u32, ttt: u32, is_continued: bool, text: &str) -> Vec<u8> {
    let request = TextRequest {
        immediate: false,
        is_final: !is_continued,
        is_continued,
        lun: Lun::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag(ttt),
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: StatSn(0),
        data_segment_length: text.len() as u32,
    };
    plain(request.encode().0, text.as_bytes())
}

/// Data of a write.
pub fn data_out(
    tag: u32,
    ttt: u32,
    is_final: bool,
    (data_sn, offset, length): (u32, u32, u32),
) -> Vec<u8> {
    let pdu = DataOut {
        is_final,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag(ttt),
        exp_stat_sn: StatSn(0),
        data_sn: DataSn(data_sn),
        buffer_offset: offset,
        data_segment_length: length,
    };
    plain(pdu.encode().0, &vec![0x5a; length as usize])
}

/// A task management request.
pub fn management(
    tag: u32,
    cmd_sn: u32,
    function: TaskManagementFunction,
    referenced: u32,
) -> Vec<u8> {
    let request = TaskManagementRequest {
        immediate: false,
        function,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag(tag),
        referenced_task_tag: InitiatorTaskTag(referenced),
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: StatSn(0),
        ref_cmd_sn: CmdSn(FIRST_CMD_SN),
        exp_data_sn: DataSn(0),
    };
    plain(request.encode().0, &[])
}

/// A logout request.
pub fn logout(tag: u32, cmd_sn: u32) -> Vec<u8> {
    let request = LogoutRequest {
        immediate: false,
        reason: LogoutReason::CloseSession,
        initiator_task_tag: InitiatorTaskTag(tag),
        cid: Cid(0),
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: StatSn(0),
    };
    plain(request.encode().0, &[])
}

impl Prefix {
    fn of(state: State) -> Prefix {
        use Stage::{FullFeaturePhase, OperationalNegotiation, SecurityNegotiation};
        let login = match state {
            State::Security => Vec::new(),
            State::Operational => login(SecurityNegotiation, OperationalNegotiation, NAMES),
            State::Discovery => login(OperationalNegotiation, FullFeaturePhase, DISCOVERY),
            _ => {
                let digests = match state.has_digests() {
                    true => "HeaderDigest=CRC32C\0DataDigest=CRC32C\0",
                    false => "",
                };
                let text = format!(
                    "{NAMES}{digests}InitialR2T=No\0ImmediateData=Yes\0MaxRecvDataSegmentLength=512\0\
                     MaxBurstLength=1024\0FirstBurstLength=512\0MaxOutstandingR2T=3\0"
                );
                login(OperationalNegotiation, FullFeaturePhase, &text)
            }
        };
        let (requests, count) = requests(state);
        let requests = match state.has_digests() {
            true => super::with_digests(&requests),
            false => requests,
        };
        Prefix {
            login,
            requests,
            cmd_sn: FIRST_CMD_SN.wrapping_add(count),
        }
    }
}

/// The requests of the full feature phase, and how many CmdSNs they take.
fn requests(state: State) -> (Vec<u8>, u32) {
    let sn = |n: u32| FIRST_CMD_SN.wrapping_add(n);
    let tag = |n: u32| FIRST_TAG + n;
    let read = |n| {
        plain(
            command(tag(n), sn(n), false, true, (2048, 0)).encode().0,
            &[],
        )
    };
    match state {
        State::Security | State::Operational | State::Idle | State::Discovery => (Vec::new(), 0),
        State::Commands | State::LogoutAsked | State::Closing => {
            let clear = TaskManagementFunction::ClearTaskSet;
            let requests = [
                read(0),
                read(1),
                read(2),
                management(tag(3), sn(3), clear, u32::MAX),
            ];
            (requests.concat(), 4)
        }
        State::LogoutBegun => ([read(0), read(1), logout(tag(2), sn(2))].concat(), 3),
        State::TextCollected => (text(tag(0), sn(0), u32::MAX, true, "SendTar"), 1),
        State::TextAnswered => (text(tag(0), sn(0), u32::MAX, false, "SendTargets=\0"), 1),
        State::Transfers | State::Digests => {
            // Two PDUs of the first of its three R2Ts are missing; unsolicited data is due; one has failed early.
            let solicited = command(tag(0), sn(0), true, true, (8192, 0)).encode().0;
            let unsolicited = command(tag(1), sn(1), true, false, (4096, 128)).encode().0;
            let failed = command(tag(2), sn(2), true, false, (4096, 0)).encode().0;
            let first = data_out(tag(0), transfer_tag(0, 0), false, (0, 0, 256));
            let out_of_order = data_out(tag(2), u32::MAX, false, (7, 0, 64));
            let requests = [
                plain(solicited, &[]),
                plain(unsolicited, &[0x5a; 128]),
                plain(failed, &[]),
                first,
                out_of_order,
                read(3),
            ];
            (requests.concat(), 4)
        }
    }
}

/// The core's tag of R2T number `index` of the task in `slot`; a test holds it against the core.
pub const fn transfer_tag(slot: u32, index: u32) -> u32 {
    slot << 16 | index
}

/// The core's tag of the first text exchange.
pub const TEXT_TAG: u32 = 0xfffd_0001;

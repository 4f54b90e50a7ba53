//! The rules of requests other than commands, one test each: task management, pings, text, logout,
//! refusals, and what the target says unasked.
use super::initiator::{Initiator, login_header, plain};
use super::model::Target;
use super::rules::{logged_in, rejected};
use crate::iscsi::limits::{PING_INTERVAL, PING_TIMEOUT};
use crate::iscsi::pdu::*;
use crate::iscsi::serial::{CmdSn, DataSn, StatSn};
use crate::iscsi::{CloseReason, Config, Duration};

#[test]
fn unsuitable_requests_are_rejected_and_the_connection_lives() {
    let mut initiator = logged_in("");
    let both = ScsiCommand {
        read: true,
        ..initiator.command(true, 512)
    };
    rejected(
        &mut initiator,
        &plain(&both.encode(), &[]),
        RejectReason::CommandNotSupported,
    );
    let untagged = ScsiCommand {
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        ..initiator.command(false, 512)
    };
    rejected(
        &mut initiator,
        &plain(&untagged.encode(), &[]),
        RejectReason::InvalidPduField,
    );
    let snack = SnackRequest {
        kind: 0,
        lun: Lun::default(),
        initiator_task_tag: InitiatorTaskTag(1),
        target_transfer_tag: TargetTransferTag::RESERVED,
        exp_stat_sn: StatSn(0),
        beg_run: 0,
        run_length: 0,
    };
    rejected(
        &mut initiator,
        &plain(&snack.encode(), &[]),
        RejectReason::SnackReject,
    );
    let mut unknown = [0; 48];
    unknown[0] = 0x1e;
    rejected(&mut initiator, &unknown, RejectReason::CommandNotSupported);
    initiator.target.hold = true;
    let held = initiator.command(false, 512);
    initiator.exchange(&plain(&held.encode(), &[]));
    let again = ScsiCommand {
        initiator_task_tag: held.initiator_task_tag,
        ..initiator.command(false, 512)
    };
    rejected(
        &mut initiator,
        &plain(&again.encode(), &[]),
        RejectReason::TaskInProgress,
    );
    initiator.target.hold = false;
    assert_eq!(initiator.read(512).0.len(), 512);
}

fn abort(
    initiator: &mut Initiator,
    function: TaskManagementFunction,
    referenced: InitiatorTaskTag,
) -> TaskManagementResponseCode {
    let request = TaskManagementRequest {
        immediate: true,
        function,
        lun: Lun::default(),
        initiator_task_tag: InitiatorTaskTag(9999),
        referenced_task_tag: referenced,
        cmd_sn: initiator.cmd_sn,
        exp_stat_sn: StatSn(0),
        ref_cmd_sn: CmdSn(0),
        exp_data_sn: DataSn(0),
    };
    let answers = initiator.exchange(&plain(&request.encode(), &[]));
    TaskManagementResponse::decode(&answers[0].bhs).response
}

#[test]
fn task_management_is_answered_and_an_aborted_task_is_silent() {
    use TaskManagementFunction as Function;
    use TaskManagementResponseCode as Code;
    let mut initiator = logged_in("ImmediateData=No\0");
    let command = initiator.command(true, 1024);
    let r2t = R2t::decode(&initiator.exchange(&plain(&command.encode(), &[]))[0].bhs);
    assert_eq!(
        abort(
            &mut initiator,
            Function::AbortTask,
            command.initiator_task_tag
        ),
        Code::FunctionComplete
    );
    assert_eq!(initiator.target.connection.tasks().count(), 0);
    let late = initiator.data_out(&command, r2t.target_transfer_tag, &[1; 1024], 0, 1024);
    assert!(
        initiator.exchange(&late).is_empty(),
        "late data is swallowed"
    );
    assert_eq!(
        abort(
            &mut initiator,
            Function::AbortTask,
            command.initiator_task_tag
        ),
        Code::TaskDoesNotExist
    );
    assert_eq!(
        abort(
            &mut initiator,
            Function::LogicalUnitReset,
            InitiatorTaskTag::RESERVED
        ),
        Code::FunctionComplete
    );
    assert_eq!(
        abort(&mut initiator, Function::TaskReassign, InitiatorTaskTag(1)),
        Code::TaskReassignmentNotSupported
    );
    assert_eq!(
        abort(&mut initiator, Function::Other(99), InitiatorTaskTag(1)),
        Code::FunctionNotSupported
    );
}

pub fn nop_out(initiator: &Initiator, tag: InitiatorTaskTag, length: u32) -> NopOut {
    NopOut {
        immediate: true,
        lun: Lun::default(),
        initiator_task_tag: tag,
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: initiator.cmd_sn,
        exp_stat_sn: StatSn(0),
        data_segment_length: length,
    }
}

#[test]
fn pings_are_echoed() {
    let mut initiator = logged_in("");
    let ping = nop_out(&initiator, InitiatorTaskTag(5), 7);
    let answers = initiator.exchange(&plain(&ping.encode(), b"atoll42"));
    assert_eq!(
        NopIn::decode(&answers[0].bhs).initiator_task_tag,
        InitiatorTaskTag(5)
    );
    assert_eq!(answers[0].data, b"atoll42");
    let answer = nop_out(&initiator, InitiatorTaskTag::RESERVED, 0);
    assert!(initiator.exchange(&plain(&answer.encode(), &[])).is_empty());
}

#[test]
fn a_silent_initiator_is_pinged_then_dropped() {
    let mut initiator = logged_in("");
    let start = initiator.target.now;
    let due = initiator.target.connection.poll_timeout().unwrap();
    assert_eq!(due, start + PING_INTERVAL);
    initiator.target.connection.handle_timeout(due);
    initiator.target.now = due;
    initiator.target.drain();
    let ping = NopIn::decode(&initiator.received()[0].bhs);
    assert_ne!(ping.target_transfer_tag, TargetTransferTag::RESERVED);
    let answer = nop_out(&initiator, InitiatorTaskTag::RESERVED, 0);
    initiator.exchange(&plain(&answer.encode(), &[]));
    let due = initiator.target.connection.poll_timeout().unwrap();
    assert_eq!(due, start + PING_INTERVAL + PING_INTERVAL);
    initiator.target.connection.handle_timeout(due);
    initiator
        .target
        .connection
        .handle_timeout(due + PING_TIMEOUT);
    initiator.target.feed(&[]);
    assert_eq!(initiator.target.log.last().unwrap(), "Closed(PeerSilent)");
}

#[test]
fn an_initiator_is_asked_to_log_out_and_dropped_when_it_does_not() {
    let mut initiator = logged_in("");
    let now = initiator.target.now;
    initiator.target.connection.request_logout(now, 3);
    initiator.target.drain();
    let message = AsyncMessage::decode(&initiator.received()[0].bhs);
    assert_eq!(
        (message.event, message.parameters),
        (AsyncEvent::LogoutRequest, [0, 0, 3])
    );
    let due = initiator.target.connection.poll_timeout().unwrap();
    assert_eq!(due, now + Duration::from_secs(3));
    initiator.target.connection.handle_timeout(due);
    initiator.target.feed(&[]);
    assert_eq!(
        initiator.target.log.last().unwrap(),
        "Closed(LogoutTimeout)"
    );
}

#[test]
fn a_dropped_session_is_told() {
    let mut initiator = logged_in("");
    initiator
        .target
        .connection
        .drop_session(initiator.target.now);
    initiator.target.drain();
    assert_eq!(
        AsyncMessage::decode(&initiator.received()[0].bhs).event,
        AsyncEvent::DropSession
    );
    initiator.target.feed(&[]);
    assert_eq!(
        initiator.target.log.last().unwrap(),
        &format!("Closed({:?})", CloseReason::Dropped)
    );
}

fn logout(initiator: &mut Initiator, reason: LogoutReason, cid: u16) -> LogoutResponseCode {
    let request = LogoutRequest {
        immediate: true,
        reason,
        initiator_task_tag: InitiatorTaskTag(77),
        cid: Cid(cid),
        cmd_sn: initiator.cmd_sn,
        exp_stat_sn: StatSn(0),
    };
    LogoutResponse::decode(&initiator.exchange(&plain(&request.encode(), &[]))[0].bhs).response
}

#[test]
fn logout_is_answered_and_ends_the_connection() {
    let mut initiator = logged_in("");
    assert_eq!(
        logout(&mut initiator, LogoutReason::CloseConnection, 5),
        LogoutResponseCode::CidNotFound
    );
    let recovery = logout(&mut initiator, LogoutReason::RemoveConnectionForRecovery, 0);
    assert_eq!(recovery, LogoutResponseCode::RecoveryNotSupported);
    assert_eq!(
        logout(&mut initiator, LogoutReason::CloseSession, 0),
        LogoutResponseCode::Closed
    );
    assert_eq!(
        initiator.target.log.last().unwrap(),
        "Closed(Logout(CloseSession))"
    );
    assert!(
        initiator.exchange(&[0; 96]).is_empty(),
        "what follows is ignored"
    );
}

fn text_request(initiator: &mut Initiator, tag: TargetTransferTag, text: &str) -> Vec<u8> {
    let request = TextRequest {
        immediate: false,
        is_final: true,
        is_continued: false,
        lun: Lun::default(),
        initiator_task_tag: InitiatorTaskTag(50),
        target_transfer_tag: tag,
        cmd_sn: initiator.cmd_sn,
        exp_stat_sn: StatSn(0),
        data_segment_length: text.len() as u32,
    };
    initiator.cmd_sn = initiator.cmd_sn.next();
    plain(&request.encode(), text.as_bytes())
}

const LIST: &str = "TargetName=iqn.2026-11.io.atoll:demo\0TargetAddress=127.0.0.1:3260,1\0TargetAddress=[::1]:3260,1\0";

#[test]
fn discovery_answers_send_targets_and_refuses_commands() {
    let mut initiator = Initiator::new(Target::new(Config::default()));
    let keys = "InitiatorName=iqn.2026-01.test:a\0SessionType=Discovery\0";
    let header = login_header(keys, Stage::OperationalNegotiation, Stage::FullFeaturePhase);
    initiator.exchange(&plain(&header.encode(), keys.as_bytes()));
    let bytes = text_request(
        &mut initiator,
        TargetTransferTag::RESERVED,
        "SendTargets=All\0",
    );
    let answers = initiator.exchange(&bytes);
    let response = TextResponse::decode(&answers[0].bhs);
    assert!(response.is_final && response.target_transfer_tag == TargetTransferTag::RESERVED);
    assert_eq!(String::from_utf8_lossy(&answers[0].data), LIST);
    let bytes = text_request(
        &mut initiator,
        TargetTransferTag::RESERVED,
        "SendTargets=\0",
    );
    rejected(&mut initiator, &bytes, RejectReason::ProtocolError);
    let command = initiator.command(false, 512);
    rejected(
        &mut initiator,
        &plain(&command.encode(), &[]),
        RejectReason::ProtocolError,
    );
}

#[test]
fn long_text_answers_leave_in_pieces() {
    let mut initiator = logged_in("MaxRecvDataSegmentLength=512\0");
    let text: String = (0..30).map(|i| format!("X-test.key{i:02}=1\0")).collect();
    let bytes = text_request(&mut initiator, TargetTransferTag::RESERVED, &text);
    let mut answers = initiator.exchange(&bytes);
    let mut collected = Vec::new();
    loop {
        let response = TextResponse::decode(&answers[0].bhs);
        collected.extend_from_slice(&answers[0].data);
        if response.is_final {
            break;
        }
        assert!(response.is_continued && answers[0].data.len() == 512);
        let bytes = text_request(&mut initiator, response.target_transfer_tag, "");
        answers = initiator.exchange(&bytes);
    }
    assert_eq!(
        String::from_utf8(collected).unwrap(),
        text.replace("=1", "=NotUnderstood")
    );
    let bytes = text_request(&mut initiator, TargetTransferTag(1), "");
    rejected(&mut initiator, &bytes, RejectReason::ProtocolError);
}

//! The rules of commands in full feature phase, one test each: their order, sequences of data, digests,
//! back-pressure. Other requests are in `requests`.
use super::initiator::{Initiator, plain};
use super::model::Target;
use super::requests::nop_out;
use crate::iscsi::limits::MAX_IMMEDIATE_TASKS;
use crate::iscsi::pdu::*;
use crate::iscsi::serial::{CmdSn, DataSn, StatSn};
use crate::iscsi::text::Offers;
use crate::iscsi::{CallError, Config, Outcome, Timestamp, Violation};

const UNSOLICITED: &str = "InitialR2T=No\0ImmediateData=Yes\0";

pub fn logged_in(keys: &str) -> Initiator {
    let mut initiator = Initiator::new(Target::new(Config::default()));
    initiator.login(keys);
    initiator
}

/// The connection ended with this violation, after a Reject with its reason that carries the header.
pub fn assert_violation(initiator: &mut Initiator, bytes: &[u8], violation: &Violation) {
    let answers = initiator.exchange(bytes);
    let last = answers.last().expect("a Reject");
    assert_eq!(Reject::decode(&last.bhs).reason, violation.reject_reason());
    assert_eq!((last.bhs.opcode(), last.data.len()), (Opcode::Reject, 48));
    let line = initiator.target.log.last().unwrap();
    assert!(line.contains(&format!("{violation:?}")), "{line}");
    assert!(initiator.target.connection.is_finished());
}

pub fn rejected(initiator: &mut Initiator, bytes: &[u8], reason: RejectReason) {
    let answers = initiator.exchange(bytes);
    let [answer] = &answers[..] else {
        panic!("{} answers", answers.len())
    };
    assert_eq!(answer.bhs.opcode(), Opcode::Reject);
    assert_eq!(Reject::decode(&answer.bhs).reason, reason);
    assert_eq!(answer.data, bytes[..48]);
}

#[test]
fn commands_outside_the_window_are_ignored_and_the_next_one_works() {
    for wrong in [
        CmdSn(0xffff_ffef),
        CmdSn(0xffff_fff0).plus(128),
        CmdSn(0x7000_0000),
    ] {
        let mut initiator = logged_in("");
        let command = ScsiCommand {
            cmd_sn: wrong,
            ..initiator.command(false, 0)
        };
        assert!(
            initiator
                .exchange(&plain(&command.encode(), &[]))
                .is_empty()
        );
        initiator.cmd_sn = CmdSn(0xffff_fff0);
        assert_eq!(initiator.read(512).0.len(), 512);
    }
}

#[test]
fn a_gap_in_cmd_sn_ends_the_connection() {
    let mut initiator = logged_in("");
    let got = CmdSn(0xffff_fff0).plus(2);
    let command = ScsiCommand {
        cmd_sn: got,
        ..initiator.command(false, 0)
    };
    let gap = Violation::CommandGap {
        got,
        expected: CmdSn(0xffff_fff0),
    };
    assert_violation(&mut initiator, &plain(&command.encode(), &[]), &gap);
}

#[test]
fn the_window_closes_with_the_queue_full_and_opens_with_each_response() {
    let config = Config {
        queue_depth: 2,
        ..Config::default()
    };
    let mut initiator = Initiator::new(Target::new(config));
    initiator.login("");
    initiator.target.hold = true;
    for _ in 0..3 {
        let command = initiator.command(false, 512);
        assert!(
            initiator
                .exchange(&plain(&command.encode(), &[]))
                .is_empty()
        );
    }
    assert_eq!(
        initiator.target.held.len(),
        2,
        "the third was outside the window"
    );
    let task = initiator.target.held[0];
    initiator.target.read(task, 512);
    initiator.target.drain();
    let answer = DataIn::decode(&initiator.received()[0].bhs);
    assert_eq!(answer.numbers.exp_cmd_sn, CmdSn(0xffff_fff2));
    assert_eq!(answer.numbers.max_cmd_sn, CmdSn(0xffff_fff2));
    let outcome = Outcome {
        status: 0,
        sense: &[],
        transfer_length: 0,
    };
    assert_eq!(
        initiator.target.connection.complete(task, outcome, &[]),
        Err(CallError::TaskGone)
    );
}

#[test]
fn immediate_commands_are_limited_and_do_not_move_the_window() {
    let mut initiator = logged_in("");
    initiator.target.hold = true;
    for _ in 0..MAX_IMMEDIATE_TASKS {
        let command = ScsiCommand {
            immediate: true,
            ..initiator.command(false, 512)
        };
        assert!(
            initiator
                .exchange(&plain(&command.encode(), &[]))
                .is_empty()
        );
    }
    let command = ScsiCommand {
        immediate: true,
        ..initiator.command(false, 512)
    };
    rejected(
        &mut initiator,
        &plain(&command.encode(), &[]),
        RejectReason::ImmediateCommandReject,
    );
    initiator.target.hold = false;
    initiator.cmd_sn = CmdSn(0xffff_fff0);
    assert_eq!(initiator.read(512).0.len(), 512);
}

/// CHECK CONDITION, ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR; the next command is served.
fn assert_task_failed(initiator: &mut Initiator, answers: &[super::initiator::Pdu]) {
    let [answer] = answers else {
        panic!("{} answers", answers.len())
    };
    let response = ScsiResponse::decode(&answer.bhs);
    assert_eq!(
        (answer.bhs.opcode(), response.status),
        (Opcode::ScsiResponse, 2)
    );
    assert_eq!(
        (answer.data[4], answer.data[14], answer.data[15]),
        (0x0b, 0x47, 0x05)
    );
    assert!(initiator.target.written.is_empty());
    assert_eq!(initiator.read(512).0.len(), 512);
}

/// What iscsi-test-cu's DataSN family sends: 0 0, 27, -1, and 1 0.
#[test]
fn wrong_data_sn_fails_the_task_and_the_connection_lives() {
    for (numbers, bad) in [
        (&[0u32, 0][..], 1),
        (&[27], 0),
        (&[u32::MAX], 0),
        (&[1, 0], 0),
    ] {
        let mut initiator = logged_in(UNSOLICITED);
        let length = 512 * numbers.len() as u32;
        let command = ScsiCommand {
            is_final: false,
            ..initiator.command(true, length)
        };
        let mut bytes = plain(&command.encode(), &[]);
        for (index, number) in numbers.iter().enumerate() {
            let pdu = data_out(
                &command,
                TargetTransferTag::RESERVED,
                *number,
                512 * index as u32,
                512,
                index + 1 == numbers.len(),
            );
            bytes.extend(plain(&pdu.encode(), &[1; 512]));
        }
        let answers = initiator.exchange(&bytes);
        assert_task_failed(&mut initiator, &answers);
        let violation = Violation::DataSequence {
            got: DataSn(numbers[bad]),
            expected: DataSn(bad as u32),
        };
        assert!(
            initiator
                .target
                .log
                .iter()
                .any(|line| line.contains(&format!("{violation:?}")))
        );
        assert!(initiator.target.written.is_empty());
    }
}

fn data_out(
    command: &ScsiCommand,
    tag: TargetTransferTag,
    sn: u32,
    offset: u32,
    length: u32,
    is_final: bool,
) -> DataOut {
    DataOut {
        is_final,
        lun: command.lun,
        initiator_task_tag: command.initiator_task_tag,
        target_transfer_tag: tag,
        exp_stat_sn: StatSn(0),
        data_sn: DataSn(sn),
        buffer_offset: offset,
        data_segment_length: length,
    }
}

#[test]
fn wrong_tags_and_lengths_of_data_end_the_connection() {
    type Change = fn(&mut DataOut);
    let table: [(Change, Violation); 4] = [
        (|pdu| pdu.target_transfer_tag.0 ^= 1, Violation::TransferTag),
        (|pdu| pdu.lun.0[1] = 9, Violation::TransferTag),
        (|pdu| pdu.is_final = false, Violation::TransferLength),
        (
            |pdu| pdu.target_transfer_tag = TargetTransferTag::RESERVED,
            Violation::UnsolicitedData,
        ),
    ];
    for (change, violation) in table {
        let mut initiator = logged_in("ImmediateData=No\0");
        let command = initiator.command(true, 1024);
        let r2t = R2t::decode(&initiator.exchange(&plain(&command.encode(), &[]))[0].bhs);
        assert_eq!(
            (r2t.buffer_offset, r2t.desired_data_transfer_length),
            (0, 1024)
        );
        let mut pdu = data_out(&command, r2t.target_transfer_tag, 0, 0, 1024, true);
        change(&mut pdu);
        assert_violation(
            &mut initiator,
            &plain(&pdu.encode(), &[1; 1024]),
            &violation,
        );
    }
    for (length, is_final) in [(1028, true), (512, true)] {
        let mut initiator = logged_in("ImmediateData=No\0");
        let command = initiator.command(true, 1024);
        let r2t = R2t::decode(&initiator.exchange(&plain(&command.encode(), &[]))[0].bhs);
        let pdu = data_out(&command, r2t.target_transfer_tag, 0, 0, length, is_final);
        assert_violation(
            &mut initiator,
            &plain(&pdu.encode(), &vec![1; length as usize]),
            &Violation::TransferLength,
        );
    }
}

#[test]
fn a_wrong_buffer_offset_fails_the_task_after_all_its_transfers_have_passed() {
    let mut initiator = logged_in("ImmediateData=No\0MaxBurstLength=512\0MaxOutstandingR2T=2\0");
    let command = initiator.command(true, 2048);
    let answers = initiator.exchange(&plain(&command.encode(), &[]));
    let tags: Vec<_> = answers
        .iter()
        .map(|pdu| R2t::decode(&pdu.bhs).target_transfer_tag)
        .collect();
    let wrong = data_out(&command, tags[0], 0, 4, 512, true);
    assert!(
        initiator
            .exchange(&plain(&wrong.encode(), &[1; 512]))
            .is_empty()
    );
    let second = data_out(&command, tags[1], 0, 512, 512, true);
    let answers = initiator.exchange(&plain(&second.encode(), &[1; 512]));
    assert_task_failed(&mut initiator, &answers);
}

#[test]
fn unsolicited_data_that_was_not_negotiated_ends_the_connection() {
    for (keys, is_final, length) in [
        ("ImmediateData=No\0", true, 512),
        ("InitialR2T=Yes\0", false, 0),
        ("FirstBurstLength=512\0", true, 516),
        (UNSOLICITED, true, 2048),
    ] {
        let mut initiator = logged_in(keys);
        let command = ScsiCommand {
            is_final,
            data_segment_length: length,
            ..initiator.command(true, 1024)
        };
        let bytes = plain(&command.encode(), &vec![0; length as usize]);
        assert_violation(&mut initiator, &bytes, &Violation::UnsolicitedData);
    }
    let mut initiator = logged_in("");
    let command = ScsiCommand {
        is_final: false,
        ..initiator.command(false, 512)
    };
    assert_violation(
        &mut initiator,
        &plain(&command.encode(), &[]),
        &Violation::CommandFlags,
    );
}

#[test]
fn a_failed_write_answers_after_its_data_has_passed() {
    let mut initiator = logged_in(UNSOLICITED);
    let command = ScsiCommand {
        is_final: false,
        data_segment_length: 4,
        ..initiator.command(true, 1024)
    };
    let bytes = plain(&command.encode(), &[1; 4]);
    let connection = &mut initiator.target.connection;
    let mut input = bytes.as_slice();
    let now = Timestamp::default();
    let mut task = None;
    while let Some(event) = connection.handle(now, &mut input) {
        if let crate::iscsi::Event::Command(command) = event {
            task = Some(command.task);
        }
    }
    assert_eq!(
        input.len(),
        4,
        "data waits until the server has said what it wants"
    );
    assert!(!connection.wants_read());
    let outcome = Outcome {
        status: 2,
        sense: &[0x70, 0, 5],
        transfer_length: 0,
    };
    connection.complete(task.unwrap(), outcome, &[]).unwrap();
    assert_eq!(
        connection.complete(task.unwrap(), outcome, &[]),
        Err(CallError::TaskGone)
    );
    let rest = input.to_vec();
    assert!(initiator.exchange(&rest).is_empty());
    let pdu = data_out(&command, TargetTransferTag::RESERVED, 0, 4, 1020, true);
    let answers = initiator.exchange(&plain(&pdu.encode(), &[1; 1020]));
    let response = ScsiResponse::decode(&answers[0].bhs);
    assert_eq!(
        (response.status, response.residual),
        (2, Residual::Underflow(1024))
    );
    assert_eq!(answers[0].data, [0, 3, 0x70, 0, 5]);
}

#[test]
fn corrupt_digests_end_the_connection() {
    for (at, violation) in [(9, Violation::HeaderDigest), (60, Violation::DataDigest)] {
        let mut initiator =
            logged_in("HeaderDigest=CRC32C\0DataDigest=CRC32C\0ImmediateData=Yes\0");
        let command = ScsiCommand {
            data_segment_length: 510,
            ..initiator.command(true, 510)
        };
        let mut bytes = initiator.pdu(&command.encode(), &[3; 510]);
        bytes[at] ^= 0x10;
        assert_violation(&mut initiator, &bytes, &violation);
        assert!(initiator.target.written.is_empty());
    }
}

#[test]
fn oversized_segments_are_refused_before_they_arrive() {
    let mut initiator = logged_in("");
    let ping = nop_out(&initiator, InitiatorTaskTag(5), 262_145);
    let violation = Violation::DataSegmentLength {
        length: 262_145,
        limit: 262_144,
    };
    assert_violation(&mut initiator, &ping.encode().0, &violation);
}

#[test]
fn extended_cdbs_reach_the_server() {
    let mut initiator = logged_in("");
    let command = ScsiCommand {
        ahs_length: 8,
        ..initiator.command(false, 0)
    };
    let bytes = [
        command.encode().0.to_vec(),
        vec![0, 5, 1, 0, 0xaa, 0xbb, 0xcc, 0xdd],
    ]
    .concat();
    initiator.exchange(&bytes);
    assert!(
        initiator
            .target
            .log
            .last()
            .unwrap()
            .contains("extended_cdb: Some([170, 187, 204, 221])")
    );
}

#[test]
fn a_peer_that_does_not_take_its_output_is_not_read() {
    let mut initiator = logged_in("");
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        bytes.extend(nop_out(&initiator, InitiatorTaskTag(5), 0).encode().0);
    }
    let connection = &mut initiator.target.connection;
    let mut input = bytes.as_slice();
    assert_eq!(connection.handle(Timestamp::default(), &mut input), None);
    assert!(!input.is_empty() && !connection.wants_read());
    assert!(connection.queued_output() < 8 << 20);
    while connection.poll_transmit(Timestamp::default()).is_some() {}
    assert!(connection.wants_read());
}

#[test]
fn several_r2ts_are_outstanding_when_negotiated() {
    let offers = Offers {
        max_outstanding_r2t: 3,
        ..Offers::default()
    };
    let mut initiator = Initiator::new(Target::new(Config {
        offers,
        ..Config::default()
    }));
    initiator.login("MaxOutstandingR2T=8\0MaxBurstLength=1024\0ImmediateData=No\0");
    let command = initiator.command(true, 10_000);
    let answers = initiator.exchange(&plain(&command.encode(), &[]));
    let ranges: Vec<(u32, u32)> = answers
        .iter()
        .map(|answer| R2t::decode(&answer.bhs))
        .map(|r2t| (r2t.buffer_offset, r2t.desired_data_transfer_length))
        .collect();
    assert_eq!(ranges, [(0, 1024), (1024, 1024), (2048, 1024)]);
}

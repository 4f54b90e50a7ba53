//! A million mutated PDUs in each state of a connection: no panic, memory and work bounded by what came. The states
//! are what they are called, and floods of legal PDUs end at the limits.
use atoll_fuzz::iscsi::mutator::Mutator;
use atoll_fuzz::iscsi::server::Server;
use atoll_fuzz::iscsi::state::{
    SEGMENT, State, command, data_out, management, plain, text, transfer_tag,
};
use atoll_fuzz::iscsi::{option, stream};
use atoll_fuzz::random::cases;
use atoll_targets::iscsi::limits::MAX_QUEUED_OUTPUT;
use atoll_targets::iscsi::pdu::{
    InitiatorTaskTag, Lun, NopOut, TargetTransferTag, TaskManagementFunction,
};
use atoll_targets::iscsi::serial::{CmdSn, StatSn};

const PDUS: u64 = 1_000_000;

fn million(state: State) {
    let mutator = Mutator::new(state);
    let mut input = Vec::new();
    cases(&format!("{state:?}: mutated PDUs"), PDUS, |random| {
        mutator.input(random, &mut input);
        stream(state, &input)
    });
}

macro_rules! states {
    ($($name:ident = $state:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            million(State::$state);
        }
    )*};
}

states! {
    mutated_pdus_in_security_negotiation_never_panic_and_stay_bounded = Security,
    mutated_pdus_in_operational_negotiation_never_panic_and_stay_bounded = Operational,
    mutated_pdus_in_an_idle_session_never_panic_and_stay_bounded = Idle,
    mutated_pdus_with_commands_outstanding_never_panic_and_stay_bounded = Commands,
    mutated_pdus_with_transfers_outstanding_never_panic_and_stay_bounded = Transfers,
    mutated_pdus_after_half_a_text_never_panic_and_stay_bounded = TextCollected,
    mutated_pdus_after_half_an_answer_never_panic_and_stay_bounded = TextAnswered,
    mutated_pdus_in_a_discovery_session_never_panic_and_stay_bounded = Discovery,
    mutated_pdus_after_the_target_asked_for_the_logout_never_panic_and_stay_bounded = LogoutAsked,
    mutated_pdus_after_a_logout_request_never_panic_and_stay_bounded = LogoutBegun,
    mutated_pdus_with_digests_never_panic_and_stay_bounded = Digests,
    mutated_pdus_at_the_end_never_panic_and_stay_bounded = Closing,
}

#[test]
fn each_state_is_what_it_is_called() {
    let open = [
        (State::Idle, 0),
        (State::Commands, 3),
        (State::LogoutAsked, 3),
        (State::LogoutBegun, 2),
        (State::TextCollected, 0),
        // The failed write is not the server's any more.
        (State::Transfers, 3),
        (State::Digests, 3),
        (State::Closing, 0),
    ];
    for (state, tasks) in open {
        let server = Server::in_state(state, option::HOLD);
        assert_eq!(server.open_tasks(), tasks, "{state:?}");
    }
    for state in [State::Transfers, State::Digests] {
        let server = Server::in_state(state, option::HOLD);
        let due: Vec<u32> = (0..3).map(|index| transfer_tag(0, index)).collect();
        assert_eq!(server.checker().transfers(), due, "{state:?}");
    }
}

/// Requests of each flood.
const FLOOD: u32 = 20_000;
/// Queued output, and two megabytes for all the rest.
const FLOOD_HELD: usize = MAX_QUEUED_OUTPUT + (2 << 20);

fn nop_out(tag: u32, cmd_sn: u32, data: &[u8]) -> Vec<u8> {
    let ping = NopOut {
        immediate: false,
        lun: Lun::default(),
        initiator_task_tag: InitiatorTaskTag(tag),
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(cmd_sn),
        exp_stat_sn: StatSn(0),
        data_segment_length: data.len() as u32,
    };
    plain(ping.encode().0, data)
}

/// Delivered at once, outside of the window.
fn immediate(mut request: Vec<u8>) -> Vec<u8> {
    request[0] |= 0x40;
    request
}

/// The initiator takes output only when it must, and the server answers nothing.
#[test]
fn floods_of_legal_requests_end_at_the_limits() {
    type Request = fn(u32, u32) -> Vec<u8>;
    let read = |tag, sn| plain(command(tag, sn, false, true, (512, 0)).encode().0, &[]);
    let floods: [(&str, Request); 9] = [
        ("long pings with short echoes", |tag, sn| {
            nop_out(tag, sn, &[7; SEGMENT as usize])
        }),
        ("text without an end", |tag, sn| {
            text(
                tag,
                sn,
                0xfffd_0000 | (tag + 1) & 0xffff,
                true,
                &"a".repeat(8000),
            )
        }),
        ("texts begun", |tag, sn| {
            text(tag, sn, u32::MAX, true, &"a".repeat(8000))
        }),
        ("lists of targets", |tag, sn| {
            text(tag, sn, u32::MAX, false, "SendTargets=\0")
        }),
        ("reads", read),
        ("immediate reads", |tag, sn| {
            immediate(plain(
                command(tag, sn, false, true, (512, 0)).encode().0,
                &[],
            ))
        }),
        ("task management", |tag, sn| {
            let function = TaskManagementFunction::ClearTaskSet;
            immediate(management(tag, sn, function, u32::MAX))
        }),
        ("writes", |tag, sn| {
            plain(command(tag, sn, true, true, (1 << 30, 0)).encode().0, &[])
        }),
        ("failed writes", |tag, sn| {
            let write = plain(command(tag, sn, true, false, (512, 0)).encode().0, &[]);
            [write, data_out(tag, u32::MAX, false, (9, 0, 64))].concat()
        }),
    ];
    for (name, request) in floods {
        let mut server = Server::in_state(State::Idle, option::HOLD | option::LAZY);
        let (mut most, first) = (0, State::Idle.prefix().cmd_sn);
        for number in 0..FLOOD {
            server.feed(&request(number, first.wrapping_add(number)));
            most = most.max(server.held_bytes());
            assert!(most <= FLOOD_HELD, "{name}: {most} bytes after {number}");
        }
        assert!(!server.closed(), "{name}");
        println!("{name}: at most {most} bytes held");
        server.finish();
    }
}

//! The login phase on a connection: stages, refusals with their status, continuation, time-out.
use super::initiator::{Initiator, NAMES, login_header, plain};
use super::model::Target;
use crate::iscsi::limits::{LOGIN_TIMEOUT, MAX_LOGIN_REQUESTS};
use crate::iscsi::pdu::*;
use crate::iscsi::serial::{CmdSn, StatSn};
use crate::iscsi::{
    CloseReason, Config, Connection, Duration, Event, LoginStatus, SessionKind, Timestamp,
};

const SECURITY: Stage = Stage::SecurityNegotiation;
const OPERATIONAL: Stage = Stage::OperationalNegotiation;
const FULL: Stage = Stage::FullFeaturePhase;

fn fresh() -> Initiator {
    Initiator::new(Target::new(Config::default()))
}

fn send(initiator: &mut Initiator, header: LoginRequest, text: &str) -> (LoginResponse, String) {
    let answers = initiator.exchange(&plain(&header.encode(), text.as_bytes()));
    let [answer] = &answers[..] else {
        panic!("{} answers", answers.len())
    };
    (
        LoginResponse::decode(&answer.bhs),
        String::from_utf8(answer.data.clone()).unwrap(),
    )
}

#[test]
fn both_stages_lead_to_full_feature_phase() {
    let mut initiator = fresh();
    let text = format!("{NAMES}AuthMethod=CHAP,None\0");
    let (response, answer) = send(
        &mut initiator,
        login_header(&text, SECURITY, OPERATIONAL),
        &text,
    );
    assert_eq!(
        (response.status, response.transit, response.next_stage),
        ([0, 0], true, OPERATIONAL)
    );
    assert_eq!(
        (response.tsih, response.numbers.exp_cmd_sn),
        (Tsih::NONE, CmdSn(0xffff_fff0))
    );
    assert_eq!(answer, "TargetPortalGroupTag=1\0AuthMethod=None\0");
    let text = "HeaderDigest=None\0MaxRecvDataSegmentLength=65536\0";
    let (response, answer) = send(&mut initiator, login_header(text, OPERATIONAL, FULL), text);
    assert_eq!(
        (response.transit, response.next_stage, response.tsih),
        (true, FULL, Tsih(7))
    );
    assert_eq!(
        answer,
        "HeaderDigest=None\0MaxRecvDataSegmentLength=262144\0"
    );
    assert!(initiator.target.log[1].starts_with("FullFeaturePhase"));
}

#[test]
fn security_may_go_straight_to_full_feature_phase() {
    let mut initiator = fresh();
    let (response, answer) = send(&mut initiator, login_header(NAMES, SECURITY, FULL), NAMES);
    assert_eq!(
        (response.status, response.next_stage, response.tsih),
        ([0, 0], FULL, Tsih(7))
    );
    assert!(answer.contains("MaxRecvDataSegmentLength=262144\0"));
}

#[test]
fn text_goes_on_over_several_requests() {
    let mut initiator = fresh();
    let (head, tail) = NAMES.split_at(20);
    let header = LoginRequest {
        transit: false,
        is_continued: true,
        ..login_header(head, OPERATIONAL, SECURITY)
    };
    let (response, answer) = send(&mut initiator, header, head);
    assert_eq!((response.transit, answer.as_str()), (false, ""));
    let (response, _) = send(&mut initiator, login_header(tail, OPERATIONAL, FULL), tail);
    assert_eq!((response.transit, response.next_stage), (true, FULL));
}

#[test]
fn an_initiator_that_is_not_ready_stays_in_its_stage() {
    let mut initiator = fresh();
    let header = LoginRequest {
        transit: false,
        ..login_header(NAMES, OPERATIONAL, SECURITY)
    };
    assert!(!send(&mut initiator, header, NAMES).0.transit);
    let (response, answer) = send(&mut initiator, login_header("", OPERATIONAL, FULL), "");
    assert_eq!(
        (response.transit, response.numbers.stat_sn, answer.as_str()),
        (true, StatSn(1), "")
    );
}

type Change = fn(LoginRequest) -> LoginRequest;

#[test]
fn broken_logins_are_refused_with_their_status() {
    let plain_names = NAMES.to_string();
    let without_target = "InitiatorName=iqn.2026-01.test:a\0".to_string();
    let chap = format!("{NAMES}AuthMethod=CHAP\0");
    let table: [(&str, &str, Change, LoginStatus); 9] = [
        (
            "version",
            &plain_names,
            |h| LoginRequest {
                version_min: 1,
                version_max: 1,
                ..h
            },
            LoginStatus::UnsupportedVersion,
        ),
        (
            "T and C",
            &plain_names,
            |h| LoginRequest {
                is_continued: true,
                ..h
            },
            LoginStatus::InitiatorError,
        ),
        (
            "stage 2",
            &plain_names,
            |h| LoginRequest {
                next_stage: Stage::Reserved,
                ..h
            },
            LoginStatus::InitiatorError,
        ),
        (
            "CSG 3",
            &plain_names,
            |h| LoginRequest {
                current_stage: FULL,
                ..h
            },
            LoginStatus::InitiatorError,
        ),
        (
            "backwards",
            &plain_names,
            |h| LoginRequest {
                next_stage: SECURITY,
                ..h
            },
            LoginStatus::InitiatorError,
        ),
        ("no names", "", |h| h, LoginStatus::MissingParameter),
        (
            "no target",
            &without_target,
            |h| h,
            LoginStatus::MissingParameter,
        ),
        (
            "CHAP only",
            &chap,
            |h| LoginRequest {
                current_stage: SECURITY,
                next_stage: OPERATIONAL,
                ..h
            },
            LoginStatus::AuthenticationFailure,
        ),
        (
            "no zero byte",
            "InitiatorName=iqn.a",
            |h| h,
            LoginStatus::InitiatorError,
        ),
    ];
    for (what, text, change, status) in table {
        let mut initiator = fresh();
        let header = change(login_header(text, OPERATIONAL, FULL));
        let (response, answer) = send(&mut initiator, header, text);
        assert_eq!(
            (response.status, response.transit, answer.as_str()),
            (status.wire(), false, ""),
            "{what}"
        );
        assert_eq!(
            initiator.target.log,
            [format!(
                "{:?}",
                Event::Closed(CloseReason::LoginRefused(status))
            )],
            "{what}"
        );
        assert!(initiator.target.connection.is_finished(), "{what}");
    }
}

#[test]
fn the_session_must_not_change_during_login() {
    let mut initiator = fresh();
    let header = LoginRequest {
        transit: false,
        ..login_header(NAMES, OPERATIONAL, SECURITY)
    };
    send(&mut initiator, header, NAMES);
    let header = LoginRequest {
        cid: Cid(9),
        ..login_header("", OPERATIONAL, FULL)
    };
    assert_eq!(
        send(&mut initiator, header, "").0.status,
        LoginStatus::InitiatorError.wire()
    );
}

#[test]
fn endless_logins_end() {
    let mut initiator = fresh();
    let header = LoginRequest {
        transit: false,
        ..login_header(NAMES, OPERATIONAL, SECURITY)
    };
    send(&mut initiator, header, NAMES);
    for round in 1..=MAX_LOGIN_REQUESTS {
        let header = LoginRequest {
            transit: false,
            ..login_header("", OPERATIONAL, SECURITY)
        };
        let refused = send(&mut initiator, header, "").0.status != [0, 0];
        assert_eq!(refused, round == MAX_LOGIN_REQUESTS);
    }
}

#[test]
fn anything_but_login_is_refused_during_login() {
    let mut initiator = fresh();
    let command = initiator.command(false, 512);
    let (response, _) = {
        let answers = initiator.exchange(&plain(&command.encode(), &[]));
        (LoginResponse::decode(&answers[0].bhs), ())
    };
    assert_eq!(response.status, LoginStatus::InvalidDuringLogin.wire());
    assert_eq!(response.initiator_task_tag, command.initiator_task_tag);
}

#[test]
fn the_server_decides_and_nothing_is_read_before_it_has() {
    let now = Timestamp::default();
    let mut connection = Connection::<Vec<u8>>::new(Config::default(), now);
    let header = login_header(NAMES, OPERATIONAL, FULL);
    let bytes = [plain(&header.encode(), NAMES.as_bytes()), vec![0xff; 10]].concat();
    let mut input = bytes.as_slice();
    let Some(Event::Login(identity)) = connection.handle(now, &mut input) else {
        panic!("no login")
    };
    assert_eq!(identity.initiator_name, "iqn.2026-01.test:a");
    assert_eq!(
        identity.session,
        SessionKind::Normal {
            target_name: "iqn.2026-11.io.atoll:demo".into()
        }
    );
    assert!(!connection.wants_read());
    assert_eq!(connection.handle(now, &mut input), None);
    assert_eq!(input.len(), 10);
    connection.refuse_login(now, LoginStatus::NotFound).unwrap();
    assert!(connection.refuse_login(now, LoginStatus::NotFound).is_err());
    let response = Bhs(connection.poll_transmit(now).unwrap().bytes()[..48]
        .try_into()
        .unwrap());
    assert_eq!(LoginResponse::decode(&response).status, [2, 3]);
    let closed = Event::Closed(CloseReason::LoginRefused(LoginStatus::NotFound));
    assert_eq!(connection.handle(now, &mut input), Some(closed));
}

#[test]
fn a_login_that_takes_too_long_ends() {
    let mut connection = Connection::<Vec<u8>>::new(Config::default(), Timestamp::default());
    let due = connection.poll_timeout().unwrap();
    assert_eq!(due, Timestamp(LOGIN_TIMEOUT));
    connection.handle_timeout(Timestamp(LOGIN_TIMEOUT - Duration::from_nanos(1)));
    assert_eq!(connection.handle(due, &mut &[][..]), None);
    connection.handle_timeout(due);
    assert_eq!(
        connection.handle(due, &mut &[][..]),
        Some(Event::Closed(CloseReason::LoginTimeout))
    );
    assert!(connection.is_finished());
}

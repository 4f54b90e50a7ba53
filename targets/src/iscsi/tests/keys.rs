//! Each key of RFC 7143 §13: what is offered, what is answered, what results.
use crate::iscsi::digest::DigestMode;
use crate::iscsi::text::{Key, Negotiator, Offers, Phase, RULES, TextError};

fn answer(phase: Phase, pairs: &[(&str, &str)]) -> Result<(String, Negotiator), TextError> {
    let mut negotiator = Negotiator::new(Offers::default());
    let mut text = Vec::new();
    negotiator.answer_all(phase, pairs, &mut text)?;
    Ok((
        String::from_utf8(text).unwrap().replace('\0', ";"),
        negotiator,
    ))
}

#[test]
fn every_operational_offer_has_its_answer() {
    let table = [
        ("HeaderDigest", "None", "None"),
        ("HeaderDigest", "CRC32C", "CRC32C"),
        ("HeaderDigest", "None,CRC32C", "None"),
        ("HeaderDigest", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "MD5,None", "None"),
        ("HeaderDigest", "MD5", "Reject"),
        ("DataDigest", "CRC32C,None", "CRC32C"),
        ("MaxConnections", "8", "1"),
        ("MaxConnections", "0", "Reject"),
        ("InitialR2T", "No", "No"),
        ("InitialR2T", "Yes", "Yes"),
        ("InitialR2T", "yes", "Reject"),
        ("ImmediateData", "No", "No"),
        ("ImmediateData", "Yes", "Yes"),
        ("MaxBurstLength", "16776192", "1048576"),
        ("MaxBurstLength", "0x2000", "8192"),
        ("MaxBurstLength", "511", "Reject"),
        ("MaxBurstLength", "16777216", "Reject"),
        ("FirstBurstLength", "1000000", "262144"),
        ("FirstBurstLength", "512", "512"),
        ("DefaultTime2Wait", "0", "2"),
        ("DefaultTime2Wait", "30", "30"),
        ("DefaultTime2Wait", "3601", "Reject"),
        ("DefaultTime2Retain", "20", "0"),
        ("MaxOutstandingR2T", "1", "1"),
        ("MaxOutstandingR2T", "64", "4"),
        ("DataPDUInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "No", "Yes"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"),
        ("TaskReporting", "FastAbort,RFC3720", "RFC3720"),
        ("TaskReporting", "FastAbort", "Reject"),
        ("iSCSIProtocolLevel", "2", "1"),
        ("IFMarker", "Yes", "No"),
        ("OFMarker", "No", "No"),
        ("IFMarkInt", "2048~8192", "Reject"),
        ("OFMarkInt", "2048", "Reject"),
        ("AuthMethod", "None", "Reject"),
        ("SendTargets", "All", "Reject"),
        ("X-com.example.thing", "1", "NotUnderstood"),
        ("initialR2T", "No", "NotUnderstood"),
    ];
    for (key, offer, expected) in table {
        let (text, _) = answer(Phase::Operational, &[(key, offer)]).unwrap();
        assert_eq!(text, format!("{key}={expected};"), "offer {offer}");
    }
}

#[test]
fn declarations_have_no_answer_and_are_kept() {
    let pairs = [
        ("InitiatorName", "iqn.2026-01.test:a"),
        ("InitiatorAlias", "(none)"),
        ("TargetName", "iqn.2026-11.io.atoll:demo"),
        ("SessionType", "Normal"),
        ("MaxRecvDataSegmentLength", "32768"),
    ];
    let (text, negotiator) = answer(Phase::Operational, &pairs).unwrap();
    assert_eq!(text, "");
    assert_eq!(
        negotiator.initiator_name.as_deref(),
        Some("iqn.2026-01.test:a")
    );
    assert_eq!(negotiator.initiator_alias.as_deref(), Some("(none)"));
    assert_eq!(
        negotiator.target_name.as_deref(),
        Some("iqn.2026-11.io.atoll:demo")
    );
    assert!(!negotiator.discovery);
    assert_eq!(negotiator.parameters.max_recv_data_segment_length, 32768);
}

#[test]
fn illegal_declarations_and_senders_are_errors() {
    for (key, value) in [
        ("InitiatorName", "somebody"),
        ("TargetName", ""),
        ("SessionType", "Special"),
        ("MaxRecvDataSegmentLength", "100"),
    ] {
        let error = answer(Phase::Operational, &[(key, value)]).unwrap_err();
        assert_eq!(error, TextError::IllegalValue(key));
    }
    for key in ["TargetAlias", "TargetAddress", "TargetPortalGroupTag"] {
        assert_eq!(
            answer(Phase::Operational, &[(key, "1")]).unwrap_err(),
            TextError::WrongSender(key)
        );
        assert_eq!(
            answer(Phase::Operational, &[(key, "NotUnderstood")])
                .unwrap()
                .0,
            ""
        );
    }
}

#[test]
fn a_key_negotiated_twice_is_an_error() {
    for rule in RULES
        .iter()
        .filter(|rule| rule.name == "InitialR2T" || rule.name == "IFMarker")
    {
        let twice = [(rule.name, "Yes"), (rule.name, "Yes")];
        assert_eq!(
            answer(Phase::Operational, &twice).unwrap_err(),
            TextError::Duplicate(rule.name)
        );
    }
}

#[test]
fn authentication_offers_must_contain_none() {
    assert_eq!(
        answer(Phase::Security, &[("AuthMethod", "CHAP,None")])
            .unwrap()
            .0,
        "AuthMethod=None;"
    );
    assert_eq!(
        answer(Phase::Security, &[("AuthMethod", "CHAP")]).unwrap_err(),
        TextError::NoAuthMethod
    );
}

#[test]
fn keys_of_normal_sessions_are_irrelevant_in_discovery() {
    let pairs = [
        ("MaxBurstLength", "8192"),
        ("HeaderDigest", "None"),
        ("SessionType", "Discovery"),
    ];
    let (text, negotiator) = answer(Phase::Operational, &pairs).unwrap();
    assert_eq!(text, "MaxBurstLength=Irrelevant;HeaderDigest=None;");
    assert!(negotiator.discovery);
}

#[test]
fn first_burst_never_exceeds_a_burst_agreed_before_it() {
    let pairs = [("MaxBurstLength", "8192"), ("FirstBurstLength", "65536")];
    let (text, negotiator) = answer(Phase::Operational, &pairs).unwrap();
    assert_eq!(text, "MaxBurstLength=8192;FirstBurstLength=8192;");
    assert_eq!(negotiator.parameters.first_burst_length, 8192);
}

#[test]
fn operational_keys_are_refused_outside_their_stage_and_digests_stay_off() {
    for phase in [Phase::Security, Phase::FullFeature] {
        let (text, negotiator) = answer(phase, &[("HeaderDigest", "CRC32C")]).unwrap();
        assert_eq!(text, "HeaderDigest=Reject;");
        assert_eq!(negotiator.parameters.header_digest, DigestMode::None);
    }
}

#[test]
fn the_table_has_each_key_once_in_order() {
    for (index, rule) in RULES.iter().enumerate() {
        assert_eq!(rule.key as usize, index);
        assert_eq!(Key::find(rule.name).unwrap().key, rule.key);
    }
}

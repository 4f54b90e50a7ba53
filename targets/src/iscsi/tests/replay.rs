//! Real initiators' bytes, in any split, lead to the same events and the same answers.
use super::Random;
use super::model::Target;
use crate::iscsi::Config;
use crate::iscsi::pdu::{Bhs, Opcode, R2t, TargetTransferTag};
use crate::iscsi::text::Offers;

macro_rules! stream {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!(
                "../../../../tests/vectors/iscsi/replay/",
                $name,
                ".bin"
            ))
            .as_slice(),
        )
    };
}

pub const STREAMS: [(&str, &[u8]); 7] = [
    stream!("libiscsi-0"),
    stream!("libiscsi-1"),
    stream!("libiscsi-2"),
    stream!("libiscsi-3"),
    stream!("linux-0"),
    stream!("linux-1"),
    stream!("qemu-0"),
];

/// What the target of the captures answered.
pub fn config() -> Config {
    let offers = Offers {
        initial_r2t: true,
        max_burst_length: 262_144,
        first_burst_length: 65536,
        max_outstanding_r2t: 1,
        ..Offers::default()
    };
    Config {
        offers,
        ..Config::default()
    }
}

/// The PDUs of a stream without digests.
pub fn pdus(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !stream.is_empty() {
        let bhs = Bhs(stream[..48].try_into().unwrap());
        let length = 48 + bhs.ahs_length() + bhs.data_segment_length().next_multiple_of(4) as usize;
        let (pdu, rest) = stream.split_at(length);
        found.push(pdu);
        stream = rest;
    }
    found
}

/// The stream with the transfer tags that this target gives, and what comes of it PDU by PDU.
pub fn patched(stream: &[u8]) -> (Vec<u8>, Target) {
    let mut target = Target::new(config());
    let mut patched = Vec::new();
    let mut tag = TargetTransferTag::RESERVED;
    let mut seen = 0;
    for pdu in pdus(stream) {
        let mut pdu = pdu.to_vec();
        let bhs = Bhs(pdu[..48].try_into().unwrap());
        if bhs.opcode() == Opcode::DataOut && pdu[20..24] != [0xff; 4] {
            pdu[20..24].copy_from_slice(&tag.0.to_be_bytes());
        }
        target.feed(&pdu);
        for answer in pdus(&target.output[seen..]) {
            let bhs = Bhs(answer[..48].try_into().unwrap());
            if bhs.opcode() == Opcode::R2t {
                tag = R2t::decode(&bhs).target_transfer_tag;
            }
        }
        seen = target.output.len();
        patched.extend(pdu);
    }
    (patched, target)
}

#[test]
fn real_initiators_are_served_without_a_complaint() {
    for (name, stream) in STREAMS {
        let (_, target) = patched(stream);
        let answered = |what: &str| {
            target
                .log
                .iter()
                .filter(|line| line.starts_with(what))
                .count()
        };
        assert_eq!(answered("Login"), 1, "{name}");
        assert_eq!(answered("FullFeaturePhase"), 1, "{name}");
        let complaints = pdus(&target.output)
            .iter()
            .filter(|pdu| pdu[0] & 0x3f == 0x3f)
            .count();
        assert_eq!(complaints, 0, "{name}: {:#?}", target.log.last());
        let logouts = pdus(stream).iter().filter(|pdu| pdu[0] & 0x3f == 6).count();
        assert_eq!(answered("Closed(Logout"), logouts, "{name}");
        let commands = pdus(stream).iter().filter(|pdu| pdu[0] & 0x3f == 1).count();
        assert_eq!(answered("Command"), commands, "{name}");
    }
}

#[test]
fn any_split_of_the_stream_gives_the_same_events_and_answers() {
    for (name, stream) in STREAMS {
        let (stream, whole) = patched(stream);
        for seed in 0..24u64 {
            let mut random = Random(seed);
            let most = [1, 3, 47, 48, 49, 1000, 8192, 100_000][seed as usize % 8];
            if most < 40 && stream.len() > 10_000 && seed > 8 {
                continue;
            }
            let mut target = Target::new(config());
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(1 + random.below(most)));
                target.feed(piece);
                rest = later;
            }
            assert_eq!(target.log, whole.log, "{name} seed {seed}");
            assert!(
                target.output == whole.output,
                "{name} seed {seed}: output differs"
            );
        }
    }
}

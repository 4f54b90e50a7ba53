//! Data gets through whole, whatever was negotiated, and residuals say what did not.
use super::Random;
use super::initiator::Initiator;
use super::model::{Target, pattern};
use crate::iscsi::Config;
use crate::iscsi::pdu::Residual;
use crate::iscsi::text::Offers;

fn logged_in(keys: &str, offers: Offers) -> Initiator {
    let mut initiator = Initiator::new(Target::new(Config {
        offers,
        ..Config::default()
    }));
    initiator.login(keys);
    initiator
}

fn random_bytes(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.next() as u8).collect()
}

#[test]
fn writes_and_reads_survive_every_way_of_sending_data() {
    for case in 0..64u64 {
        let yes_no = |bit: u64| if case >> bit & 1 == 1 { "Yes" } else { "No" };
        let digest = |bit: u64| {
            if case >> bit & 1 == 1 {
                "CRC32C,None"
            } else {
                "None"
            }
        };
        let r2ts = 1 + (case >> 4 & 1) * 3;
        let keys = format!(
            "InitialR2T={}\0ImmediateData={}\0HeaderDigest={}\0DataDigest={}\0MaxOutstandingR2T={r2ts}\0\
             MaxBurstLength=16384\0FirstBurstLength=12000\0MaxRecvDataSegmentLength=5000\0",
            yes_no(0),
            yes_no(1),
            digest(2),
            digest(3),
        );
        let mut initiator = logged_in(&keys, Offers::default());
        initiator.first_burst = 12000;
        // A server short of memory takes and gives data in steps, which no initiator sees.
        initiator.target.step = (case >> 5 == 1).then_some(12000);
        assert_eq!(initiator.initial_r2t, case & 1 == 1, "case {case}");
        assert_eq!(initiator.immediate_data, case & 2 == 2, "case {case}");
        let mut random = Random(case);
        for length in [0, 1, 3, 512, 8192, 8193, 12000, 12001, 16384, 28384, 28385] {
            let length = length + random.below(2) * random.below(70_000);
            let data = random_bytes(&mut random, length);
            let response = initiator.write(&data);
            assert_eq!(
                (response.status, response.residual),
                (0, Residual::None),
                "case {case} length {length}"
            );
            assert!(
                initiator.target.written.pop().unwrap() == data,
                "case {case} length {length}"
            );
            let (read, residual) = initiator.read(length as u32);
            assert_eq!(residual, Residual::None);
            assert!(
                read.iter().copied().eq((0..length).map(pattern)),
                "case {case} length {length}"
            );
        }
    }
}

/// What iscsi-test-cu's residual family asks: both directions, expected length zero, too small, too large.
#[test]
fn residuals_say_what_was_not_transferred() {
    for keys in [
        "InitialR2T=Yes\0ImmediateData=No\0",
        "InitialR2T=No\0ImmediateData=Yes\0",
        "InitialR2T=No\0ImmediateData=No\0",
    ] {
        let mut initiator = logged_in(keys, Offers::default());
        for (expected, transfer, residual) in [
            (0, 512, Residual::Overflow(512)),
            (10_000, 512, Residual::Underflow(9488)),
            (200, 512, Residual::Overflow(312)),
            (512, 1024, Residual::Overflow(512)),
            (1024, 512, Residual::Underflow(512)),
            (512, 512, Residual::None),
        ] {
            initiator.target.transfer_length = Some(transfer);
            let data = random_bytes(&mut Random(9), expected as usize);
            let response = initiator.write(&data);
            assert_eq!((response.status, response.residual), (0, residual));
            let written = initiator.target.written.pop().unwrap();
            assert_eq!(written, data[..expected.min(transfer) as usize]);
            if expected > 0 {
                let (read, read_residual) = initiator.read(expected);
                assert_eq!(
                    (read.len() as u32, read_residual),
                    (expected.min(transfer), residual)
                );
            }
        }
    }
}

#[test]
fn more_commands_than_the_window_flow_through_it() {
    let mut initiator = logged_in("", Offers::default());
    for _ in 0..1000 {
        assert_eq!(initiator.read(512).0.len(), 512);
    }
}

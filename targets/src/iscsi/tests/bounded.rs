//! No bytes from a peer panic, hang or grow memory: mutated real streams and noise, seeds printed.
use super::Random;
use super::initiator::Initiator;
use super::model::Target;
use super::replay::{STREAMS, config, patched};
use crate::iscsi::limits::{DEFAULT_QUEUE_DEPTH, MAX_IMMEDIATE_TASKS, MAX_QUEUED_OUTPUT};

fn mutate(random: &mut Random, stream: &mut Vec<u8>) {
    for _ in 0..1 + random.below(6) {
        let at = random.below(stream.len());
        match random.below(4) {
            0 => stream[at] = random.next() as u8,
            1 => stream[at] ^= 1 << random.below(8),
            2 => {
                stream.remove(at);
            }
            _ => {
                let end = (at + 4).min(stream.len());
                stream[at..end].fill(if random.below(2) == 0 { 0xff } else { 0 });
            }
        }
    }
}

fn run(random: &mut Random, stream: &[u8], seed: u64) {
    let mut target = Target::new(config());
    target.hold = random.below(4) == 0;
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.len().min(1 + random.below(4096)));
        target.feed(piece);
        rest = later;
        let tasks = target.connection.tasks().count();
        assert!(
            tasks <= (DEFAULT_QUEUE_DEPTH + MAX_IMMEDIATE_TASKS) as usize,
            "seed {seed}"
        );
        assert!(
            target.connection.queued_output() <= 2 * MAX_QUEUED_OUTPUT,
            "seed {seed}"
        );
        target.output.clear();
        target.written.clear();
    }
}

#[test]
fn mutated_streams_never_panic_and_stay_bounded() {
    let streams: Vec<Vec<u8>> = STREAMS
        .iter()
        .map(|(_, stream)| patched(stream).0)
        .map(|stream| stream[..stream.len().min(9000)].to_vec())
        .collect();
    for seed in 0..12_000u64 {
        let mut random = Random(seed);
        let mut stream = streams[random.below(streams.len())].clone();
        mutate(&mut random, &mut stream);
        run(&mut random, &stream, seed);
    }
}

#[test]
fn noise_after_a_login_never_panics_and_stays_bounded() {
    for seed in 0..4000u64 {
        let mut random = Random(seed);
        let mut initiator = Initiator::new(Target::new(config()));
        initiator.login("ImmediateData=Yes\0");
        initiator.target.hold = seed % 2 == 0;
        for _ in 0..12 {
            let mut pdu = [0u8; 48];
            pdu.iter_mut().for_each(|byte| *byte = random.next() as u8);
            pdu[0] = [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x41, 0x42, 0x44][random.below(10)];
            pdu[1] |= 0x80;
            pdu[4] = 0;
            let length = random.below(64) as u8;
            pdu[5..8].copy_from_slice(&[0, 0, length]);
            pdu[24..28].copy_from_slice(
                &initiator
                    .cmd_sn
                    .plus(random.below(2) as u32)
                    .0
                    .to_be_bytes(),
            );
            initiator.target.feed(&pdu);
            let padded = usize::from(length).next_multiple_of(4);
            let data: Vec<u8> = (0..padded).map(|_| random.next() as u8).collect();
            initiator.target.feed(&data);
        }
        assert!(
            initiator.target.connection.tasks().count() <= 12,
            "seed {seed}"
        );
    }
}

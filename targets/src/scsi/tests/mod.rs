//! Tests of the SCSI core as a server sees it: a 512-byte and a 4096-byte unit, commands as CDB bytes.

mod conditions;
mod lba_status;
mod medium;
mod parameters;
mod properties;
mod thresholds;
mod vectors;
mod verify;

use super::*;

/// Capacity of [`unit`] in blocks.
const CAPACITY: u64 = 1 << 21;

fn config(block_size: BlockSize) -> LuConfig {
    LuConfig::new(
        ResourceId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        "iqn.2026-11.io.atoll:demo",
        block_size,
        Blocks(CAPACITY),
        ByteCount(4 << 20),
    )
}

fn unit() -> LogicalUnit {
    LogicalUnit::new(config(BlockSize::B512)).expect("valid configuration")
}

/// [`unit`] with a threshold at 4096 sets of 2^12 blocks: 8 GiB.
fn pool_unit() -> LogicalUnit {
    LogicalUnit::new(LuConfig {
        threshold: Some(Threshold {
            exponent: 12,
            count: 4096,
        }),
        ..config(BlockSize::B512)
    })
    .expect("valid configuration")
}

/// A nexus that has been told of the power on.
fn ready(unit: &LogicalUnit) -> Nexus {
    let mut nexus = unit.attach();
    assert_eq!(
        sense(run(unit, &mut nexus, "000000000000", &[])),
        (0x6, 0x29, 0x00)
    );
    nexus
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| (byte as char).to_digit(16).expect("hexadecimal digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Lines of a vector file: fields separated by `|`, without comments.
fn vector_lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
}

/// Runs a CDB; the initiator offers exactly `data`.
fn run(unit: &LogicalUnit, nexus: &mut Nexus, cdb: &str, data: &[u8]) -> Action {
    run_offering(unit, nexus, cdb, data, data.len() as u64)
}

fn run_offering(
    unit: &LogicalUnit,
    nexus: &mut Nexus,
    cdb: &str,
    data: &[u8],
    offered: u64,
) -> Action {
    match parse(&hex(cdb)) {
        Err(sense) => Action::Done(sense.into()),
        Ok(command) => {
            let luns = [Lun::new(0).expect("lun")];
            let request = Request {
                command: &command,
                offered: ByteCount(offered),
                data_out: data,
                luns: &luns,
            };
            unit.start(nexus, &request)
        }
    }
}

/// Key, ASC and ASCQ of a command that ended in CHECK CONDITION.
fn sense(action: Action) -> (u8, u8, u8) {
    match action {
        Action::Done(Response {
            status: Status::CheckCondition,
            sense: Some(sense),
            data_in,
        }) => {
            assert!(data_in.is_empty());
            (sense.key as u8, sense.asc, sense.ascq)
        }
        other => panic!("expected CHECK CONDITION, got {other:?}"),
    }
}

fn good(action: Action) -> Vec<u8> {
    match action {
        Action::Done(Response {
            status: Status::Good,
            data_in,
            sense: None,
        }) => data_in,
        other => panic!("expected GOOD, got {other:?}"),
    }
}

fn op(action: Action) -> VolumeOp {
    match action {
        Action::Volume(op) => op,
        other => panic!("expected a volume operation, got {other:?}"),
    }
}

fn range(start: u64, length: u64) -> ByteRange {
    ByteRange {
        start: ByteOffset(start),
        length: ByteCount(length),
    }
}

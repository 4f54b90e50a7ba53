//! The SCSI core under any CDB and any parameter list: an answer of allowed length, or an operation that lies in the
//! volume.
use std::sync::OnceLock;

use atoll_targets::scsi::{
    Action, BlockSize, Blocks, ByteCount, ByteRange, Command, DEFAULT_MAX_UNMAP_DESCRIPTORS,
    DataOutNeed, Extent, LogicalUnit, LuConfig, Lun, LunAddress, MAX_SENSE_LENGTH, Request,
    ResourceId, Response, Sense, SenseFormat, Status, VolumeOp, parse, start_absent,
};

use crate::vectors;

const CAPACITY: u64 = 1 << 21;
const CDB_LENGTH: usize = 16;
/// Longest parameter list that a server gathers here.
const MAX_LIST: u64 = 16 * 1024;

fn units() -> &'static [LogicalUnit; 2] {
    static UNITS: OnceLock<[LogicalUnit; 2]> = OnceLock::new();
    UNITS.get_or_init(|| {
        [BlockSize::B512, BlockSize::B4096].map(|block_size| {
            let config = LuConfig::new(
                ResourceId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
                "iqn.2026-11.io.atoll:demo",
                block_size,
                Blocks(CAPACITY),
                ByteCount(4 << 20),
            );
            LogicalUnit::new(config).expect("valid configuration")
        })
    })
}

/// A byte of options, 16 bytes of CDB (as iSCSI pads them), then the Data-Out bytes that the initiator has.
pub fn command(input: &[u8]) {
    let Some((options, rest)) = input.split_first() else {
        return;
    };
    let (cdb, data) = rest.split_at(rest.len().min(CDB_LENGTH));
    let _ = Sense::decode(data).map(|sense| {
        for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
            assert!(sense.encode(format).as_slice().len() <= MAX_SENSE_LENGTH);
        }
    });
    if let Some(field) = data.first_chunk()
        && let LunAddress::Unit(lun) = LunAddress::decode(*field)
    {
        assert_eq!(Lun::new(lun.number()), Some(lun));
    }
    let Ok(command) = parse(cdb) else { return };
    let unit = &units()[usize::from(options & 1)];
    unit.reset();
    let mut nexus = unit.attach();
    // The unit attention of a new nexus is in the way of the commands that matter.
    let ready = Request {
        command: &Command::TestUnitReady,
        offered: ByteCount(0),
        data_out: &[],
        luns: &[],
    };
    unit.start(&mut nexus, &ready);
    let block = unit.config().block_size;
    let gathered = match command.data_out(block) {
        DataOutNeed::Parameters(ByteCount(most)) => {
            &data[..data
                .len()
                .min(usize::try_from(most.min(MAX_LIST)).unwrap_or(0))]
        }
        _ => &[],
    };
    let luns = [Lun::new(0).expect("lun")];
    let request = Request {
        command: &command,
        offered: ByteCount(data.len() as u64),
        data_out: gathered,
        luns: &luns,
    };
    let limit = command.data_in_limit(block);
    match unit.start(&mut nexus, &request) {
        Action::Done(response) => {
            assert!(response.data_in.len() as u64 <= limit.0, "{command:?}");
            assert_eq!(
                response.sense.is_some(),
                response.status == Status::CheckCondition
            );
            if let Some(sense) = response.sense {
                let bytes = unit.encode_sense(&sense);
                assert!(bytes.as_slice().len() <= MAX_SENSE_LENGTH);
            }
        }
        Action::Volume(op) => {
            operation(&op, block);
            let answered = answer(&op, block);
            assert!(
                answered.is_none_or(|response| response.data_in.len() as u64 <= limit.0),
                "{command:?}"
            );
        }
    }
    let absent = start_absent(&command, &luns);
    assert!(
        absent.data_in.len() as u64 <= limit.0,
        "{command:?} without a unit"
    );
}

fn inside(range: &ByteRange, block: BlockSize) {
    let bytes = u64::from(block.bytes());
    assert!(
        range.length.0 > 0 && range.length.0.is_multiple_of(bytes),
        "{range:?}"
    );
    assert!(range.start.0.is_multiple_of(bytes), "{range:?}");
    let end = range.start.0.checked_add(range.length.0);
    assert!(end.is_some_and(|end| end <= CAPACITY * bytes), "{range:?}");
}

fn operation(op: &VolumeOp, block: BlockSize) {
    match op {
        VolumeOp::Read { range, .. }
        | VolumeOp::Write { range, .. }
        | VolumeOp::WriteAndVerify { range, .. }
        | VolumeOp::Compare { range }
        | VolumeOp::CompareAndWrite { range, .. }
        | VolumeOp::OrWrite { range, .. }
        | VolumeOp::WriteSame { range, .. } => inside(range, block),
        VolumeOp::Verify { range, pattern } => {
            inside(range, block);
            let length = pattern.as_ref().map(|pattern| pattern.len());
            assert!(length.is_none_or(|length| length == block.bytes() as usize));
        }
        VolumeOp::Unmap(ranges) => {
            assert!(ranges.len() <= DEFAULT_MAX_UNMAP_DESCRIPTORS as usize);
            assert!(!ranges.is_empty());
            ranges.iter().for_each(|range| inside(range, block));
        }
        VolumeOp::LbaStatus(status) => inside(&status.range, block),
        VolumeOp::Flush | VolumeOp::LogRoom(_) => {}
    }
}

/// What the core makes of the volume's knowledge, where an operation only asks for that.
fn answer(op: &VolumeOp, block: BlockSize) -> Option<Response> {
    match op {
        VolumeOp::LbaStatus(status) => {
            let extent = |mapped| Extent {
                length: block.count(Blocks(CAPACITY / 3)),
                mapped,
            };
            Some(status.answer([true, false, true, false].map(extent).into_iter()))
        }
        VolumeOp::LogRoom(room) => Some(room.answer(ByteCount(u64::MAX), ByteCount(0))),
        _ => None,
    }
}

/// Golden CDBs with and without data; parameter lists of UNMAP and MODE SELECT.
pub fn seeds() -> Vec<Vec<u8>> {
    let input = |cdb: &[u8], data: &[u8]| {
        let mut input = vec![0];
        input.extend_from_slice(cdb);
        input.resize(1 + CDB_LENGTH, 0);
        input.extend_from_slice(data);
        input
    };
    let mut seeds: Vec<_> = vectors::cdbs().iter().map(|cdb| input(cdb, &[])).collect();
    seeds.extend(vectors::cdbs().iter().map(|cdb| input(cdb, &[0; 512])));
    // UNMAP: header, then LBA and number of blocks.
    let header = [0, 38, 0, 32, 0, 0, 0, 0];
    let ranges = [
        [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0],
    ];
    let list = [&header[..], &ranges.concat()].concat();
    seeds.push(input(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list));
    // MODE SELECT 6 and 10: header, block descriptor, control page.
    let control = [0x0a, 0x0a, 0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    let descriptor = [0, 0x20, 0, 0, 0, 0, 2, 0];
    let six = [&[0, 0, 0, 8], &descriptor[..], &control].concat();
    seeds.push(input(&[0x15, 0x10, 0, 0, six.len() as u8, 0], &six));
    let ten = [&[0, 0, 0, 0, 0, 0, 0, 8], &descriptor[..], &control].concat();
    seeds.push(input(
        &[0x55, 0x10, 0, 0, 0, 0, 0, 0, ten.len() as u8, 0],
        &ten,
    ));
    let plain = [&[0, 0, 0, 0], &control[..]].concat();
    seeds.push(input(&[0x15, 0x10, 0, 0, plain.len() as u8, 0], &plain));
    seeds
}

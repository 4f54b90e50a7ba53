//! Commands that reach the volume: ranges, limits, write protection, patterns.

use super::*;

#[test]
fn reads_of_every_size_become_byte_ranges() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let mut read = |cdb: &str| op(run(&unit, &mut nexus, cdb, &[]));
    let plain = VolumeOp::Read {
        range: range(512, 1024),
        fua: false,
        dpo: false,
    };
    for cdb in [
        "080000010200",
        "28000000000100000200",
        "a80000000001000000020000",
        "88000000000000000001000000020000",
    ] {
        assert_eq!(read(cdb), plain, "{cdb}");
    }
    assert_eq!(
        read("080000010000"),
        VolumeOp::Read {
            range: range(512, 256 * 512),
            fua: false,
            dpo: false
        }
    );
    assert_eq!(
        read("28180000000100000200"),
        VolumeOp::Read {
            range: range(512, 1024),
            fua: true,
            dpo: true
        }
    );
}

#[test]
fn ranges_end_at_the_last_block() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let mut both = |lba: u64, blocks: u32| {
        let read = run(
            &unit,
            &mut nexus,
            &format!("8800{lba:016x}{blocks:08x}0000"),
            &[],
        );
        let cdb = format!("8a00{lba:016x}{blocks:08x}0000");
        (
            read,
            run_offering(&unit, &mut nexus, &cdb, &[], u64::from(blocks) * 512),
        )
    };
    let (read, write) = both(CAPACITY - 2, 2);
    op(read);
    op(write);
    let (read, write) = both(CAPACITY, 0);
    good(read);
    good(write);
    for (lba, blocks) in [
        (CAPACITY - 1, 2),
        (CAPACITY, 1),
        (CAPACITY + 1, 0),
        (u64::MAX, 1),
        (u64::MAX, 0),
    ] {
        let (read, write) = both(lba, blocks);
        assert_eq!(sense(read), (0x5, 0x21, 0x00), "{lba} {blocks}");
        assert_eq!(sense(write), (0x5, 0x21, 0x00), "{lba} {blocks}");
    }
}

#[test]
fn more_than_the_maximum_transfer_length_is_an_invalid_field() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let most = unit.config().max_transfer.0;
    op(run(
        &unit,
        &mut nexus,
        &format!("8800{:016x}{most:08x}0000", 0),
        &[],
    ));
    let Action::Done(response) = run(
        &unit,
        &mut nexus,
        &format!("8800{:016x}{:08x}0000", 0, most + 1),
        &[],
    ) else {
        panic!("refused")
    };
    assert_eq!(response.sense, Some(Sense::invalid_cdb_field(10, None)));
}

#[test]
fn a_write_takes_the_whole_blocks_that_are_offered() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let mut write = |offered| run_offering(&unit, &mut nexus, "2a080000000100000200", &[], offered);
    let written = |length| VolumeOp::Write {
        range: range(512, length),
        fua: true,
        dpo: false,
    };
    assert_eq!(op(write(1024)), written(1024));
    assert_eq!(op(write(10_000)), written(1024));
    assert_eq!(op(write(512)), written(512));
    good(write(0));
    assert_eq!(sense(write(200)), (0x5, 0x0E, 0x03));
}

#[test]
fn a_read_only_unit_refuses_every_command_that_writes() {
    let unit = LogicalUnit::new(LuConfig {
        read_only: true,
        ..config(BlockSize::B512)
    })
    .expect("valid");
    let mut nexus = ready(&unit);
    for cdb in [
        "0a0000000100",
        "2a000000000000000100",
        "2e000000000000000100",
        "8e000000000000000000000000010000",
        "ae0000000000000000010000",
        "89000000000000000000000000010000",
        "8b000000000000000000000000010000",
        "aa0000000000000000010000",
        "8a000000000000000000000000010000",
        "41000000000000000100",
        "41080000000000000100",
        "93000000000000000000000000010000",
        "93080000000000000000000000010000",
        "42000000000000001800",
    ] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x7, 0x27, 0x00),
            "{cdb}"
        );
    }
    op(run(&unit, &mut nexus, "28000000000000000100", &[]));
    assert_eq!(
        op(run(&unit, &mut nexus, "35000000000000000000", &[])),
        VolumeOp::Flush
    );
}

#[test]
fn write_same_unmaps_only_zeros() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let mut fill = |cdb: &str, block: &[u8]| match op(run(&unit, &mut nexus, cdb, block)) {
        VolumeOp::WriteSame {
            range: filled,
            fill,
        } => {
            assert_eq!(filled, range(512, 1024));
            fill
        }
        other => panic!("{other:?}"),
    };
    let zeros = [0; 512];
    let mut pattern = zeros;
    pattern[511] = 1;
    for (plain, unmap) in [
        ("41000000000100000200", "41080000000100000200"),
        (
            "93000000000000000001000000020000",
            "93080000000000000001000000020000",
        ),
    ] {
        assert_eq!(fill(plain, &zeros), Fill::Zeros);
        assert_eq!(fill(unmap, &zeros), Fill::Unmap);
        assert_eq!(fill(plain, &pattern), Fill::Pattern(pattern.into()));
        assert_eq!(fill(unmap, &pattern), Fill::Pattern(pattern.into()));
    }
    assert_eq!(fill("93010000000000000001000000020000", &[]), Fill::Zeros);
    assert_eq!(fill("93090000000000000001000000020000", &[]), Fill::Unmap);
}

#[test]
fn write_same_refuses_wrong_counts_and_patterns() {
    let unit = unit();
    let mut nexus = ready(&unit);
    let mut end = |cdb: &str, data: &[u8]| sense(run(&unit, &mut nexus, cdb, data));
    for length in [0, 256, 1024] {
        assert_eq!(
            end("41080000000000000100", &vec![0; length]),
            (0x5, 0x0E, 0x03),
            "{length}"
        );
    }
    let block = [0; 512];
    // WSNZ, but an address beyond the end is reported first.
    assert_eq!(end("41000000000000000000", &block), (0x5, 0x24, 0x00));
    assert_eq!(end("4100ffffffff00000000", &block), (0x5, 0x21, 0x00));
    assert_eq!(end("41000020000000000100", &block), (0x5, 0x21, 0x00));
    let most = unit.config().max_write_same.0;
    assert_eq!(
        end(&format!("9300{:016x}{:08x}0000", 0, most + 1), &block),
        (0x5, 0x24, 0x00)
    );
    op(run(
        &unit,
        &mut nexus,
        &format!("9300{:016x}{most:08x}0000", 0),
        &block,
    ));
}

#[test]
fn synchronize_cache_checks_its_range_and_flushes_all() {
    let unit = unit();
    let mut nexus = ready(&unit);
    for cdb in [
        "35000000000000000000",
        "35020000001000000800",
        "91000000000000000000000000000000",
    ] {
        assert_eq!(
            op(run(&unit, &mut nexus, cdb, &[])),
            VolumeOp::Flush,
            "{cdb}"
        );
    }
    for cdb in ["35000020000000000100", "9100ffffffffffffffff000000010000"] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x5, 0x21, 0x00),
            "{cdb}"
        );
    }
}

#[test]
fn data_lengths_follow_the_cdb() {
    let lengths = |cdb: &str, block| {
        let command = parse(&hex(cdb)).expect("a supported command");
        (command.data_out(block), command.data_in_limit(block).0)
    };
    let payload = |bytes| DataOutNeed::Payload(ByteCount(bytes));
    let parameters = |bytes| DataOutNeed::Parameters(ByteCount(bytes));
    assert_eq!(
        lengths("28000000000100000200", BlockSize::B4096),
        (DataOutNeed::None, 8192)
    );
    assert_eq!(
        lengths("2a000000000100000200", BlockSize::B4096),
        (payload(8192), 0)
    );
    assert_eq!(
        lengths("0a0000010000", BlockSize::B512),
        (payload(131_072), 0)
    );
    assert_eq!(
        lengths("2a000000000100000000", BlockSize::B512),
        (DataOutNeed::None, 0)
    );
    assert_eq!(
        lengths("41000000000100000200", BlockSize::B4096),
        (parameters(4096), 0)
    );
    assert_eq!(
        lengths("93010000000000000001000000020000", BlockSize::B512),
        (DataOutNeed::None, 0)
    );
    assert_eq!(
        lengths("42000000000000001800", BlockSize::B512),
        (parameters(24), 0)
    );
    assert_eq!(
        lengths("151000001800", BlockSize::B512),
        (parameters(24), 0)
    );
    assert_eq!(
        lengths("12000000ff00", BlockSize::B512),
        (DataOutNeed::None, 255)
    );
    assert_eq!(
        lengths("25000000000000000000", BlockSize::B512),
        (DataOutNeed::None, 8)
    );
    for cdb in [
        "2e000000000100000200",
        "2f020000000100000200",
        "8b000000000000000001000000020000",
    ] {
        assert_eq!(lengths(cdb, BlockSize::B4096), (payload(8192), 0), "{cdb}");
    }
    assert_eq!(
        lengths("2f060000000100000200", BlockSize::B4096),
        (parameters(4096), 0)
    );
    assert_eq!(
        lengths("89000000000000000001000000ff0000", BlockSize::B4096),
        (payload(2 * 255 * 4096), 0)
    );
    for cdb in [
        "2f000000000100000200",
        "2f020000000100000000",
        "2f060000000100000000",
        "89000000000000000001000000000000",
        "34000000000100000200",
    ] {
        assert_eq!(
            lengths(cdb, BlockSize::B512),
            (DataOutNeed::None, 0),
            "{cdb}"
        );
    }
    assert_eq!(
        lengths("37001800000000010000", BlockSize::B512),
        (DataOutNeed::None, 256)
    );
    assert_eq!(
        lengths("4d004000000000001000", BlockSize::B512),
        (DataOutNeed::None, 16)
    );
    assert_eq!(
        lengths("9e120000000000000001000000180000", BlockSize::B4096),
        (DataOutNeed::None, 24)
    );
}

#[test]
fn volume_errors_become_the_sense_that_initiators_act_on() {
    let sense_of = |error: VolumeError| sense(Action::Done(error.into()));
    assert_eq!(sense_of(VolumeError::NoSpace), (0x7, 0x27, 0x07));
    assert_eq!(sense_of(VolumeError::ReadOnly), (0x7, 0x27, 0x00));
    assert_eq!(sense_of(VolumeError::OutOfRange), (0x5, 0x21, 0x00));
    assert_eq!(sense_of(VolumeError::MediumRead(None)), (0x3, 0x11, 0x00));
    assert_eq!(sense_of(VolumeError::MediumWrite(None)), (0x3, 0x0C, 0x00));
    assert_eq!(sense_of(VolumeError::Offline), (0x2, 0x04, 0x01));
    assert_eq!(sense_of(VolumeError::Timeout), (0xB, 0x2E, 0x02));
    assert_eq!(sense_of(VolumeError::Aborted), (0xB, 0x00, 0x00));
    let corrupt = Response::from(VolumeError::Corrupt(Some(Lba(7))));
    assert_eq!(corrupt.sense.and_then(|sense| sense.information), Some(7));
    let busy = Response::from(VolumeError::Busy);
    assert_eq!((busy.status, busy.sense), (Status::Busy, None));
}

//! VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, PRE-FETCH and READ DEFECT DATA: what is asked of the volume, and
//! every refusal.

use super::*;

fn of(unit: &LogicalUnit, cdb: &str, data: &[u8], offered: u64) -> Action {
    run_offering(unit, &mut ready(unit), cdb, data, offered)
}

#[test]
fn verify_reads_compares_each_block_or_one_with_all() {
    let unit = unit();
    let range = range(512, 1024);
    for (cdb, each, single) in [
        (
            "2f000000000100000200",
            "2f020000000100000200",
            "2f060000000100000200",
        ),
        (
            "af0000000001000000020000",
            "af0200000001000000020000",
            "af0600000001000000020000",
        ),
        (
            "8f000000000000000001000000020000",
            "8f020000000000000001000000020000",
            "8f060000000000000001000000020000",
        ),
    ] {
        let pattern = None;
        assert_eq!(
            op(of(&unit, cdb, &[], 0)),
            VolumeOp::Verify { range, pattern }
        );
        assert_eq!(op(of(&unit, each, &[], 1024)), VolumeOp::Compare { range });
        assert_eq!(op(of(&unit, each, &[], 4096)), VolumeOp::Compare { range });
        let pattern = Some([7; 512].into());
        assert_eq!(
            op(of(&unit, single, &[7; 512], 512)),
            VolumeOp::Verify { range, pattern }
        );
        // Less than is to be compared, or not one block.
        for offered in [0, 512, 1023] {
            assert_eq!(sense(of(&unit, each, &[], offered)), (0x5, 0x0E, 0x03));
        }
        for length in [0, 256, 1024] {
            let data = vec![7; length];
            let refused = of(&unit, single, &data, length as u64);
            assert_eq!(sense(refused), (0x5, 0x0E, 0x03), "{length}");
        }
    }
    for cdb in [
        "2f000000000100000000",
        "2f020000000100000000",
        "2f060000000100000000",
    ] {
        good(of(&unit, cdb, &[], 0));
    }
}

#[test]
fn write_and_verify_takes_the_whole_blocks_that_are_offered() {
    let unit = unit();
    for (cdb, compare) in [
        ("2e000000000100000200", false),
        ("2e020000000100000200", true),
        ("ae0200000001000000020000", true),
        ("8e020000000000000001000000020000", true),
    ] {
        let written = |length| VolumeOp::WriteAndVerify {
            range: range(512, length),
            compare,
        };
        assert_eq!(op(of(&unit, cdb, &[], 1024)), written(1024), "{cdb}");
        assert_eq!(op(of(&unit, cdb, &[], 512)), written(512), "{cdb}");
        assert_eq!(sense(of(&unit, cdb, &[], 700)), (0x5, 0x0E, 0x03), "{cdb}");
        good(of(&unit, cdb, &[], 0));
    }
}

#[test]
fn compare_and_write_takes_twice_its_blocks_exactly() {
    let unit = unit();
    let cdb = "89080000000000000001000000020000";
    let range = range(512, 1024);
    assert_eq!(
        op(of(&unit, cdb, &[], 2048)),
        VolumeOp::CompareAndWrite { range, fua: true }
    );
    for offered in [0, 1024, 1536, 2047, 2049, 4096] {
        let refused = of(&unit, cdb, &[], offered);
        assert_eq!(sense(refused), (0x5, 0x0E, 0x03), "{offered}");
    }
    let none = "89000000000000000001000000000000";
    good(of(&unit, none, &[], 0));
    // 256 blocks do not fit the field.
    let Action::Done(response) = of(&unit, none, &[], 512 * 512) else {
        panic!("refused")
    };
    assert_eq!(response.sense, Some(Sense::invalid_cdb_field(13, None)));
    let most = "89000000000000000000000000ff0000";
    op(of(&unit, most, &[], 2 * 255 * 512));
    let page = good(of(&unit, "1201b000ff00", &[], 0));
    assert_eq!(page[5], 255, "MAXIMUM COMPARE AND WRITE LENGTH");
}

#[test]
fn or_write_takes_all_of_its_data_or_nothing() {
    let unit = unit();
    let cdb = "8b080000000000000001000000020000";
    let range = range(512, 1024);
    assert_eq!(
        op(of(&unit, cdb, &[], 1024)),
        VolumeOp::OrWrite { range, fua: true }
    );
    for offered in [0, 512, 1023] {
        assert_eq!(sense(of(&unit, cdb, &[], offered)), (0x5, 0x0E, 0x03));
    }
    good(of(&unit, "8b000000000000000001000000000000", &[], 0));
}

#[test]
fn ranges_end_at_the_last_block_and_transfers_at_their_maximum() {
    let unit = unit();
    let end = CAPACITY;
    let most = unit.config().max_transfer.0;
    for opcode in [
        "8b00", "8e00", "8e02", "8f00", "8f02", "8f06", "8900", "9000",
    ] {
        let cdb = |lba: u64, blocks: u64| match opcode {
            "8900" => format!("{opcode}{lba:016x}000000{blocks:02x}0000"),
            _ => format!("{opcode}{lba:016x}{blocks:08x}0000"),
        };
        for (lba, blocks) in [(end - 1, 2), (end, 1), (end + 1, 0), (u64::MAX, 1)] {
            let refused = of(&unit, &cdb(lba, blocks), &[], 0);
            assert_eq!(sense(refused), (0x5, 0x21, 0x00), "{opcode} {lba} {blocks}");
        }
        if !matches!(opcode, "8900" | "9000") {
            let Action::Done(response) = of(&unit, &cdb(0, most + 1), &[], 1 << 40) else {
                panic!("{opcode}: more than the maximum")
            };
            assert_eq!(response.sense, Some(Sense::invalid_cdb_field(10, None)));
        }
    }
}

#[test]
fn pre_fetch_of_any_length_is_good_and_fetches_nothing() {
    let unit = unit();
    for cdb in [
        "34000000000100000200",
        "34020000000100000200",
        "34000000000000000000",
        "90000000000000000001000000020000",
        "90000000000000000000002000000000",
    ] {
        assert_eq!(good(of(&unit, cdb, &[], 0)), [0; 0], "{cdb}");
    }
    // 0 blocks are all from the LBA on, which must be one.
    assert_eq!(
        sense(of(&unit, "34000020000000000000", &[], 0)),
        (0x5, 0x21, 0x00)
    );
}

#[test]
fn both_defect_lists_are_empty_in_every_format() {
    let unit = unit();
    for lists in (0..=0x1F_u8).filter(|lists| lists & 7 < 6) {
        let short = format!("3700{lists:02x}00000000010000");
        assert_eq!(good(of(&unit, &short, &[], 0)), [0, lists, 0, 0]);
        let long = format!("b7{lists:02x}00000000000001000000");
        assert_eq!(good(of(&unit, &long, &[], 0)), [0, lists, 0, 0, 0, 0, 0, 0]);
    }
}

//! The threshold of the pool's space: where it is described, when it is told, and the log page of what is left.

use super::*;

const GIB: u64 = 1 << 30;

fn log_sense(unit: &LogicalUnit, cdb: &str) -> Action {
    run(unit, &mut ready(unit), cdb, &[])
}

#[test]
fn a_pool_that_gets_full_is_told_once_to_every_nexus_until_there_is_clearly_more_again() {
    let unit = pool_unit();
    let mut nexuses = [ready(&unit), ready(&unit)];
    let test = |nexus: &mut Nexus| run(&unit, nexus, "000000000000", &[]);
    unit.set_available(ByteCount(8 * GIB));
    good(test(&mut nexuses[0]));
    for available in [8 * GIB - 1, 7 * GIB, 8 * GIB, 8 * GIB - 1, 0] {
        unit.set_available(ByteCount(available));
    }
    for nexus in &mut nexuses {
        let Action::Done(response) = test(nexus) else {
            panic!("a unit attention")
        };
        let told = response.sense.expect("a unit attention");
        assert_eq!((told.key as u8, told.asc, told.ascq), (0x6, 0x38, 0x07));
        // Where the descriptor begins in mode page 1Ch/02h.
        assert_eq!(told.information, Some(16));
        good(test(nexus));
    }
    unit.set_available(ByteCount(9 * GIB));
    unit.set_available(ByteCount(7 * GIB));
    assert_eq!(sense(test(&mut nexuses[0])), (0x6, 0x38, 0x07));
    // Who comes later has nothing to be told.
    good(test(&mut ready(&unit)));
}

#[test]
fn a_unit_without_a_threshold_has_none_of_its_pages() {
    let unit = unit();
    unit.set_available(ByteCount(0));
    let mut nexus = ready(&unit);
    for cdb in ["1a000100ff00", "1a001c02ff00", "4d004c00000000010000"] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x5, 0x24, 0x00),
            "{cdb}"
        );
    }
    assert_eq!(good(run(&unit, &mut nexus, "1201b200ff00", &[]))[4], 0);
    assert_eq!(
        good(run(&unit, &mut nexus, "4d004000000000010000", &[])),
        [0, 0, 0, 1, 0]
    );
}

#[test]
fn a_default_threshold_is_a_tenth_of_the_pool_in_sets_that_32_bits_count() {
    for size in [BlockSize::B512, BlockSize::B4096] {
        for total in [1 << 20, 64 * GIB, 1 << 40, 1 << 50, 1 << 62] {
            let threshold = Threshold::of_pool(size, ByteCount(total), 10);
            let set = u64::from(size.bytes()) << threshold.exponent;
            assert!((1..=32).contains(&threshold.exponent));
            assert!(total / set <= u64::from(u32::MAX), "{total}");
            let count = u64::from(threshold.count);
            assert!(count * set <= total / 10 && total / 10 - count * set < 2 * set);
        }
    }
}

#[test]
fn the_log_page_counts_what_is_available_and_used_in_threshold_sets() {
    let unit = pool_unit();
    let ask = |pointer: u16, allocation: u16| {
        let cdb = format!("4d004c0000{pointer:04x}{allocation:04x}00");
        match op(log_sense(&unit, &cdb)) {
            VolumeOp::LogRoom(room) => good(Action::Done(
                room.answer(ByteCount(100 * GIB), ByteCount(30 * GIB + 4095)),
            )),
            other => panic!("{other:?}"),
        }
    };
    let available = "0001 03 08 00003c00 02 000000";
    let used = "0002 03 08 00008bff 02 000000";
    assert_eq!(ask(0, 256), hex(&format!("8c000018 {available} {used}")));
    assert_eq!(ask(1, 256), hex(&format!("8c000018 {available} {used}")));
    assert_eq!(ask(2, 256), hex(&format!("8c00000c {used}")));
    assert_eq!(ask(0, 4), hex("8c000018"));
    for (cdb, byte) in [
        ("4d004c00000003010000", 5), // beyond the last parameter
        ("4d004000000001010000", 5),
        ("4d004c01000000010000", 3), // a subpage
        ("4d004001000000010000", 3),
        ("4d007f00000000010000", 2), // a page
    ] {
        let Action::Done(response) = log_sense(&unit, cdb) else {
            panic!("{cdb}")
        };
        let sense = response
            .sense
            .unwrap_or_else(|| panic!("{cdb} is answered"));
        let field = sense.field.expect("field pointer");
        assert_eq!((sense.asc, field.byte), (0x24, byte), "{cdb}");
    }
}

#[test]
fn mode_select_accepts_the_threshold_pages_as_they_are_and_no_other() {
    let unit = pool_unit();
    let mut list = good(log_sense(&unit, "5a083fff000000010000"));
    list[..2].fill(0);
    let select = |list: &[u8]| {
        let cdb = format!("55100000000000{:04x}00", list.len());
        run(&unit, &mut ready(&unit), &cdb, list)
    };
    good(select(&list));
    let subpage = list
        .windows(2)
        .position(|bytes| bytes == [0x5C, 0x02])
        .expect("page 1Ch/02h");
    for (at, byte) in [
        (subpage + 1, subpage),       // another subpage
        (subpage + 3, subpage + 2),   // another length
        (subpage + 4, subpage + 4),   // SITUA
        (subpage + 16, subpage + 16), // the descriptor
        (list.len() - 1, list.len() - 1),
    ] {
        let mut wrong = list.clone();
        wrong[at] ^= 0x01;
        let Action::Done(response) = select(&wrong) else {
            panic!("{at}")
        };
        let sense = response.sense.unwrap_or_else(|| panic!("{at} is accepted"));
        let field = sense.field.expect("field pointer");
        assert_eq!((sense.asc, usize::from(field.byte)), (0x26, byte), "{at}");
    }
    let mut short = list.clone();
    short.truncate(list.len() - 1);
    assert_eq!(sense(select(&short)), (0x5, 0x1A, 0x00));
}

//! Unit attentions, the stopped state, and logical unit numbers without a logical unit.

use super::*;

const TEST_UNIT_READY: &str = "000000000000";
const READ: &str = "28000000000000000100";
const REQUEST_SENSE: &str = "030000001200";
const CONTROL_D_SENSE: &str = "00000000 0a0a 06 10 00 00 00 00 ffff 0000";

fn fixed(data: &[u8]) -> (u8, u8, u8) {
    let sense = Sense::decode(data).expect("sense data");
    (sense.key as u8, sense.asc, sense.ascq)
}

#[test]
fn a_new_nexus_hears_of_power_on_once_and_can_discover_before() {
    let unit = unit();
    let mut nexus = unit.attach();
    assert_eq!(good(run(&unit, &mut nexus, "120000002400", &[])).len(), 36);
    assert_eq!(
        good(run(&unit, &mut nexus, "a00000000000000000100000", &[])).len(),
        16
    );
    assert_eq!(sense(run(&unit, &mut nexus, READ, &[])), (0x6, 0x29, 0x00));
    op(run(&unit, &mut nexus, READ, &[]));
}

#[test]
fn request_sense_returns_and_clears_a_unit_attention() {
    let unit = unit();
    let mut nexus = unit.attach();
    assert_eq!(
        fixed(&good(run(&unit, &mut nexus, REQUEST_SENSE, &[]))),
        (0x6, 0x29, 0x00)
    );
    let data = good(run(&unit, &mut nexus, "030100001200", &[]));
    assert_eq!((data[0], fixed(&data)), (0x72, (0x0, 0x00, 0x00)));
}

#[test]
fn a_resize_is_told_to_every_nexus_and_moves_the_end() {
    let unit = unit();
    let mut nexuses = [ready(&unit), ready(&unit)];
    unit.set_capacity(Blocks(CAPACITY))
        .expect("the same capacity");
    good(run(&unit, &mut nexuses[0], TEST_UNIT_READY, &[]));
    unit.set_capacity(Blocks(8)).expect("a capacity");
    for nexus in &mut nexuses {
        assert_eq!(sense(run(&unit, nexus, READ, &[])), (0x6, 0x2A, 0x09));
        assert_eq!(
            good(run(&unit, nexus, "25000000000000000000", &[])),
            [0, 0, 0, 7, 0, 0, 2, 0]
        );
        assert_eq!(
            sense(run(&unit, nexus, "28000000000800000100", &[])),
            (0x5, 0x21, 0x00)
        );
    }
    assert_eq!(unit.set_capacity(Blocks(0)), Err(ConfigError::Capacity));
    assert_eq!(
        unit.set_capacity(Blocks(u64::MAX)),
        Err(ConfigError::Capacity)
    );
}

#[test]
fn a_mode_select_is_told_to_the_other_nexuses_only() {
    let unit = unit();
    let (mut own, mut other) = (ready(&unit), ready(&unit));
    let list = hex(CONTROL_D_SENSE);
    good(run(&unit, &mut own, "151000001000", &list));
    good(run(&unit, &mut own, TEST_UNIT_READY, &[]));
    assert_eq!(
        sense(run(&unit, &mut other, TEST_UNIT_READY, &[])),
        (0x6, 0x2A, 0x01)
    );
    assert_eq!(unit.encode_sense(&Sense::STOPPED).as_slice()[0], 0x72);
    // The same once more changes nothing.
    good(run(&unit, &mut own, "151000001000", &list));
    good(run(&unit, &mut other, TEST_UNIT_READY, &[]));
}

#[test]
fn a_reset_restores_defaults_and_supersedes_what_was_pending() {
    let unit = unit();
    let (mut own, mut other) = (ready(&unit), ready(&unit));
    good(run(&unit, &mut own, "151000001000", &hex(CONTROL_D_SENSE)));
    assert_eq!(
        op(run(&unit, &mut own, "1b0000000000", &[])),
        VolumeOp::Flush
    );
    unit.reset();
    for nexus in [&mut own, &mut other] {
        assert_eq!(
            sense(run(&unit, nexus, TEST_UNIT_READY, &[])),
            (0x6, 0x29, 0x03)
        );
        good(run(&unit, nexus, TEST_UNIT_READY, &[]));
    }
    assert_eq!(unit.encode_sense(&Sense::STOPPED).as_slice()[0], 0x70);
}

#[test]
fn conditions_raised_by_the_server_are_reported_in_order() {
    let unit = unit();
    let mut nexus = ready(&unit);
    nexus.raise(UnitAttention::CapacityChanged);
    nexus.raise(UnitAttention::CommandsCleared);
    nexus.raise(UnitAttention::ReportedLunsChanged);
    assert_eq!(sense(run(&unit, &mut nexus, READ, &[])), (0x6, 0x2F, 0x00));
    good(run(&unit, &mut nexus, "a00000000000000000100000", &[]));
    assert_eq!(sense(run(&unit, &mut nexus, READ, &[])), (0x6, 0x2A, 0x09));
    op(run(&unit, &mut nexus, READ, &[]));
}

#[test]
fn a_stopped_unit_refuses_medium_access_until_it_is_started() {
    let unit = unit();
    let mut nexus = ready(&unit);
    assert_eq!(
        op(run(&unit, &mut nexus, "1b0000000000", &[])),
        VolumeOp::Flush
    );
    for cdb in [
        TEST_UNIT_READY,
        READ,
        "2a000000000000000100",
        "2e000000000000000100",
        "2f000000000000000100",
        "34000000000000000100",
        "89000000000000000000000000010000",
        "8b000000000000000000000000010000",
        "35000000000000000000",
        "42000000000000001800",
        "41000000000000000100",
        "9e120000000000000000000000180000",
    ] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x2, 0x04, 0x02),
            "{cdb}"
        );
    }
    assert_eq!(
        fixed(&good(run(&unit, &mut nexus, REQUEST_SENSE, &[]))),
        (0x2, 0x04, 0x02)
    );
    good(run(&unit, &mut nexus, "120000002400", &[]));
    good(run(&unit, &mut nexus, "1a003f00ff00", &[]));
    // A fixed medium is neither ejected nor loaded, and the state stays.
    for cdb in ["1b0000000200", "1b0000000300"] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x5, 0x24, 0x00),
            "{cdb}"
        );
    }
    assert_eq!(
        sense(run(&unit, &mut nexus, TEST_UNIT_READY, &[])),
        (0x2, 0x04, 0x02)
    );
    good(run(&unit, &mut nexus, "1b0000000100", &[]));
    good(run(&unit, &mut nexus, TEST_UNIT_READY, &[]));
}

#[test]
fn a_lun_without_a_unit_answers_discovery_only() {
    let luns = [Lun::new(0).expect("lun"), Lun::new(300).expect("lun")];
    let start = |cdb: &str| start_absent(&parse(&hex(cdb)).expect("a supported command"), &luns);
    let inquiry = start("12000000ff00").data_in;
    assert_eq!(
        (inquiry[0], inquiry.len()),
        (0x7F, usize::from(inquiry[4]) + 5)
    );
    assert_eq!(start("12018300ff00").data_in, [0x7F, 0x83, 0, 0]);
    assert_eq!(
        start("a00000000000000000ff0000").data_in,
        hex("00000010 00000000 0000000000000000 412c000000000000")
    );
    assert_eq!(start("a00001000000000000ff0000").data_in, [0; 8]);
    let sense_data = start(REQUEST_SENSE);
    assert_eq!(
        (sense_data.status, fixed(&sense_data.data_in)),
        (Status::Good, (0x5, 0x25, 0x00))
    );
    for cdb in [
        TEST_UNIT_READY,
        READ,
        "25000000000000000000",
        "1b0000000100",
        "42000000000000000000",
    ] {
        assert_eq!(start(cdb).sense, Some(Sense::LUN_NOT_SUPPORTED), "{cdb}");
    }
}

//! Parameter lists and configurations: UNMAP, MODE SELECT, MODE SENSE's variants, the ranges of `LuConfig`.

use super::*;

/// A well-formed UNMAP parameter list.
fn unmap_list(descriptors: &[(u64, u32)]) -> Vec<u8> {
    let length = 16 * descriptors.len() as u16;
    let mut list = [
        (length + 6).to_be_bytes(),
        length.to_be_bytes(),
        [0; 2],
        [0; 2],
    ]
    .concat();
    for (lba, blocks) in descriptors {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap_cdb(length: usize) -> String {
    format!("42000000000000{length:04x}00")
}

fn unmapped(unit: &LogicalUnit, list: &[u8]) -> Action {
    run(unit, &mut ready(unit), &unmap_cdb(list.len()), list)
}

#[test]
fn unmap_names_all_ranges_or_none() {
    let unit = unit();
    assert_eq!(
        op(unmapped(&unit, &unmap_list(&[(1, 2), (5, 0), (8, 1)]))),
        VolumeOp::Unmap(vec![range(512, 1024), range(4096, 512)])
    );
    good(unmapped(&unit, &[]));
    good(unmapped(&unit, &unmap_list(&[])));
    good(unmapped(&unit, &unmap_list(&[(CAPACITY, 0)])));
    let outside = unmap_list(&[(0, 1), (CAPACITY - 1, 2)]);
    assert_eq!(sense(unmapped(&unit, &outside)), (0x5, 0x21, 0x00));
}

#[test]
fn unmap_refuses_lengths_that_contradict_each_other() {
    let unit = unit();
    let whole = unmap_list(&[(0, 1), (8, 1)]);
    for length in [1, 7, 8, 23, 39] {
        assert_eq!(
            sense(unmapped(&unit, &whole[..length])),
            (0x5, 0x1A, 0x00),
            "{length}"
        );
    }
    // The CDB promises more than the initiator sent.
    let short = run(&unit, &mut ready(&unit), &unmap_cdb(40), &whole[..24]);
    assert_eq!(sense(short), (0x5, 0x1A, 0x00));
    let mut inconsistent = whole.clone();
    inconsistent[1] = 10;
    assert_eq!(sense(unmapped(&unit, &inconsistent)), (0x5, 0x26, 0x00));
    // Part of a descriptor at the end is ignored.
    let mut partial = whole;
    partial[3] = 31;
    assert_eq!(
        op(unmapped(&unit, &partial)),
        VolumeOp::Unmap(vec![range(0, 512)])
    );
}

#[test]
fn unmap_keeps_the_limits_that_page_b0_reports() {
    let unit = unit();
    let most = unit.config().max_unmap_descriptors as usize;
    op(unmapped(&unit, &unmap_list(&vec![(0, 1); most])));
    assert_eq!(
        sense(unmapped(&unit, &unmap_list(&vec![(0, 1); most + 1]))),
        (0x5, 0x26, 0x00)
    );
    let blocks = unit.config().max_unmap.0 as u32;
    op(unmapped(&unit, &unmap_list(&[(0, blocks)])));
    assert_eq!(
        sense(unmapped(&unit, &unmap_list(&[(0, blocks), (8, 1)]))),
        (0x5, 0x26, 0x00)
    );
    let unlimited = LuConfig {
        max_unmap: Blocks(u64::from(u32::MAX)),
        ..config(BlockSize::B512)
    };
    let unlimited = LogicalUnit::new(unlimited).expect("valid");
    op(unmapped(
        &unlimited,
        &unmap_list(&[(0, CAPACITY as u32), (0, CAPACITY as u32)]),
    ));
}

fn select(unit: &LogicalUnit, form: ModeForm, list: &str) -> Action {
    let list = hex(list);
    let cdb = match form {
        ModeForm::Six => format!("15100000{:02x}00", list.len()),
        ModeForm::Ten => format!("55100000000000{:04x}00", list.len()),
    };
    run(unit, &mut ready(unit), &cdb, &list)
}

#[test]
fn mode_select_accepts_what_mode_sense_returned() {
    for size in [BlockSize::B512, BlockSize::B4096] {
        let unit = LogicalUnit::new(config(size)).expect("valid");
        for (sense_cdb, select_cdb) in [
            ("1a003f00ff00", "15100000"),
            ("5a003f0000000000ff00", "55100000000000 00"),
            ("5a103fff00000000ff00", "55100000000000 00"),
        ] {
            let mut list = good(run(&unit, &mut ready(&unit), sense_cdb, &[]));
            let header = if sense_cdb.starts_with("1a") { 1 } else { 2 };
            list[..header].fill(0);
            let cdb = format!("{select_cdb}{:02x}00", list.len());
            good(run(&unit, &mut ready(&unit), &cdb, &list));
        }
    }
}

#[test]
fn mode_select_changes_d_sense_and_nothing_else() {
    let unit = unit();
    good(select(&unit, ModeForm::Six, ""));
    good(select(
        &unit,
        ModeForm::Ten,
        "0000000000000000 0a0a061000000000ffff0000",
    ));
    assert_eq!(unit.encode_sense(&Sense::NONE).as_slice()[0], 0x72);
    let current = good(run(&unit, &mut ready(&unit), "1a080a000c00", &[]));
    assert_eq!(current[4 + 2], 0x06);
    let default = good(run(&unit, &mut ready(&unit), "1a088a001000", &[]));
    assert_eq!(default[4 + 2], 0x02);
    for (list, byte) in [
        ("00000000 0a0a061008000000ffff0000", 8), // SWP
        ("00000000 0812000000000000000000000000000000000000", 6), // WCE off
        ("00010000", 1),                          // medium type
        ("00000008 0000000100000200", 4),         // another capacity
        ("00000008 0000000000001000", 9),         // another block length
        ("00000007 00000000000002", 3),           // block descriptor length
        ("00000000 0a0b06100000000000ffff0000", 5), // page length
        ("00000000 4a01", 4),                     // subpage format
        ("00000000 010a00000000000000000000", 4), // a page that is not there
    ] {
        let Action::Done(response) = select(&unit, ModeForm::Six, list) else {
            panic!("{list}")
        };
        let sense = response
            .sense
            .unwrap_or_else(|| panic!("{list} was accepted"));
        let field = sense.field.expect("field pointer");
        assert_eq!(
            (sense.asc, field.source, field.byte),
            (0x26, FieldSource::Parameters, byte),
            "{list}"
        );
    }
    for list in [
        "000000",
        "00000008 00000000",
        "00000000 0a",
        "00000000 0a0a0610",
    ] {
        assert_eq!(
            sense(select(&unit, ModeForm::Six, list)),
            (0x5, 0x1A, 0x00),
            "{list}"
        );
    }
}

#[test]
fn a_mode_select_that_fails_late_changes_nothing() {
    let unit = unit();
    let both = "00000000 0a0a061000000000ffff0000 010a00000000000000000000";
    assert_eq!(sense(select(&unit, ModeForm::Six, both)), (0x5, 0x26, 0x00));
    assert_eq!(unit.encode_sense(&Sense::NONE).as_slice()[0], 0x70);
}

#[test]
fn mode_sense_refuses_saved_values_and_what_is_not_there() {
    let unit = unit();
    let mut nexus = ready(&unit);
    for cdb in ["1a00ff00ff00", "5a00ca00000000ffff00"] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x5, 0x39, 0x00),
            "{cdb}"
        );
    }
    for cdb in ["1a000100ff00", "1a003f01ff00", "5a080a0500000002000000"] {
        assert_eq!(
            sense(run(&unit, &mut nexus, cdb, &[])),
            (0x5, 0x24, 0x00),
            "{cdb}"
        );
    }
    assert_eq!(good(run(&unit, &mut nexus, "1a003f000400", &[])).len(), 4);
}

#[test]
fn a_configuration_out_of_range_is_refused_by_name() {
    let refuse = |change: fn(&mut LuConfig)| {
        let mut wrong = config(BlockSize::B512);
        change(&mut wrong);
        LogicalUnit::new(wrong)
            .expect_err("out of range")
            .to_string()
    };
    assert!(refuse(|config| config.vendor = "NINE BYTE".into()).contains("vendor"));
    assert!(refuse(|config| config.product = "h\u{e9}".into()).contains("product"));
    assert!(refuse(|config| config.target_name = "disk".into()).contains("target name"));
    assert!(refuse(|config| config.blocks = Blocks(0)).contains("capacity"));
    assert!(refuse(|config| config.blocks = Blocks(1 << 56)).contains("capacity"));
    assert!(refuse(|config| config.max_transfer = Blocks(0)).contains("maximum transfer"));
    assert!(refuse(|config| config.physical_block_exponent = 16).contains("exponent"));
    assert!(refuse(|config| config.unmap_granularity = Blocks(1 << 32)).contains("granularity"));
}

#[test]
fn names_derive_from_the_resource_and_are_never_zero() {
    let page = |id: u128| {
        let unit = LogicalUnit::new(LuConfig {
            resource: ResourceId(id),
            ..config(BlockSize::B512)
        });
        let unit = unit.expect("valid");
        good(run(&unit, &mut ready(&unit), "12018300ff00", &[]))
    };
    let ids = [0, 1, 1 << 99, 1 << 100, 1 << 127, u128::MAX];
    for (index, id) in ids.iter().enumerate() {
        let own = page(*id);
        assert_eq!(own, page(*id));
        assert_eq!(
            (own[4..8].to_vec(), own[8] >> 4),
            (vec![0x01, 0x03, 0x00, 0x10], 0x6)
        );
        for other in &ids[..index] {
            assert_ne!(own[8..24], page(*other)[8..24], "{id:x} {other:x}");
        }
    }
}

//! GET LBA STATUS: the question to the volume, and the answer made of what it says.

use super::*;

fn ask(unit: &LogicalUnit, lba: u64, allocation: u32) -> Action {
    let cdb = format!("9e12{lba:016x}{allocation:08x}0000");
    run(unit, &mut ready(unit), &cdb, &[])
}

fn question(unit: &LogicalUnit, lba: u64, allocation: u32) -> LbaStatus {
    match op(ask(unit, lba, allocation)) {
        VolumeOp::LbaStatus(status) => status,
        other => panic!("{other:?}"),
    }
}

/// Extents of these many 512-byte blocks, every other one mapped.
fn extents(blocks: &[u64]) -> Vec<Extent> {
    let extents = blocks.iter().enumerate().map(|(number, blocks)| Extent {
        length: ByteCount(blocks * 512),
        mapped: number % 2 == 1,
    });
    extents.collect()
}

fn answer(status: &LbaStatus, blocks: &[u64]) -> Vec<u8> {
    good(Action::Done(status.answer(extents(blocks).into_iter())))
}

#[test]
fn the_volume_is_asked_from_the_first_block_to_the_end_for_as_many_extents_as_fit() {
    let unit = unit();
    for lba in [0, 1, 8, CAPACITY - 1] {
        let status = question(&unit, lba, 8 + 3 * 16);
        assert_eq!(status.range, range(lba * 512, (CAPACITY - lba) * 512));
        assert_eq!(status.most(), 3);
    }
    for (allocation, most) in [(0, 1), (8, 1), (24, 1), (39, 1), (40, 2), (u32::MAX, 256)] {
        assert_eq!(question(&unit, 0, allocation).most(), most, "{allocation}");
    }
    for lba in [CAPACITY, CAPACITY + 1, 1 << 63, u64::MAX] {
        let Action::Done(response) = ask(&unit, lba, 24) else {
            panic!("asked beyond the end")
        };
        let expected = Sense::LBA_OUT_OF_RANGE.with_lba(Lba(lba));
        assert_eq!(response.sense, Some(expected), "{lba}");
    }
}

#[test]
fn extents_become_descriptors_that_follow_each_other() {
    let unit = unit();
    let status = question(&unit, 3, 1000);
    let expected = hex("00000034 00000000 \
        0000000000000003 00000005 01 000000 \
        0000000000000008 00000010 00 000000 \
        0000000000000018 00000001 01 000000");
    assert_eq!(answer(&status, &[5, 16, 1]), expected);
    // Only so many as there is room for, and no more than the medium has.
    let status = question(&unit, CAPACITY - 6, 24);
    let expected = hex("00000014 00000000 00000000001ffffa 00000005 01 000000");
    assert_eq!(answer(&status, &[5, 16]), expected);
    let status = question(&unit, CAPACITY - 6, 40);
    let last = hex("00000000001fffff 00000001 00 000000");
    assert_eq!(answer(&status, &[5, 16])[24..], last);
}

#[test]
fn blocks_of_4096_bytes_are_counted_as_such() {
    let unit = LogicalUnit::new(config(BlockSize::B4096)).expect("valid");
    let status = question(&unit, 2, 40);
    let expected = hex("00000024 00000000 \
        0000000000000002 00000002 01 000000 \
        0000000000000004 00000003 00 000000");
    assert_eq!(answer(&status, &[16, 24]), expected);
}

#[test]
fn an_answer_is_cut_at_the_allocation_length_and_its_length_field_is_not() {
    let unit = unit();
    let whole = answer(&question(&unit, 3, 24), &[7, 9]);
    assert_eq!(whole.len(), 24);
    for allocation in 0..=whole.len() {
        let data = answer(&question(&unit, 3, allocation as u32), &[7, 9]);
        assert_eq!(data, whole[..allocation], "{allocation}");
    }
}

#[test]
fn following_descriptors_reaches_the_end_of_a_unit_of_more_than_32_bits() {
    let capacity = (3 << 32) + 5;
    let unit = LogicalUnit::new(LuConfig {
        blocks: Blocks(capacity),
        ..config(BlockSize::B512)
    })
    .expect("valid");
    let mut counts = Vec::new();
    let mut lba = 0;
    while lba < capacity {
        let data = answer(&question(&unit, lba, 1000), &[capacity - lba]);
        assert_eq!(
            data.len(),
            24,
            "one that does not fit its field is the last"
        );
        let count = u32::from_be_bytes(data[16..20].try_into().expect("four bytes"));
        counts.push(count);
        lba += u64::from(count);
    }
    assert_eq!(
        (lba, counts),
        (capacity, vec![u32::MAX, u32::MAX, u32::MAX, 8])
    );
}

#[test]
fn lba_status_follows_a_resize() {
    let unit = unit();
    let mut nexus = ready(&unit);
    unit.set_capacity(Blocks(16)).expect("a capacity");
    let cdb = "9e120000000000000008000000180000";
    assert_eq!(sense(run(&unit, &mut nexus, cdb, &[])), (0x6, 0x2A, 0x09));
    op(run(&unit, &mut nexus, cdb, &[]));
    unit.set_capacity(Blocks(8)).expect("a capacity");
    assert_eq!(sense(run(&unit, &mut nexus, cdb, &[])), (0x6, 0x2A, 0x09));
    assert_eq!(sense(run(&unit, &mut nexus, cdb, &[])), (0x5, 0x21, 0x00));
}

//! Properties of parsing and of the command table, on arbitrary bytes.

use proptest::prelude::*;

use super::*;

/// A CDB that is more often than not one of a supported command.
fn cdbs() -> impl Strategy<Value = Vec<u8>> {
    let known = (0..COMMANDS.len(), any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(
        |(index, noise, sparse)| {
            let spec = &COMMANDS[index];
            let mut cdb: Vec<u8> = noise
                .iter()
                .zip(sparse)
                .map(|(noise, sparse)| noise & sparse)
                .collect();
            cdb[0] = spec.opcode;
            if let Some(action) = spec.service_action {
                cdb[1] = action as u8;
            }
            cdb
        },
    );
    prop_oneof![3 => known, 1 => proptest::collection::vec(any::<u8>(), 0..20)]
}

/// The table entry that a CDB belongs to, found the slow way.
fn spec_of(cdb: &[u8]) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|spec| {
        let action = cdb.get(1).copied().unwrap_or(0) & 0x1F;
        Some(&spec.opcode) == cdb.first()
            && spec
                .service_action
                .is_none_or(|own| own == u16::from(action))
    })
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(
        cdb in cdbs(),
        data in proptest::collection::vec(any::<u8>(), 0..600),
        offered in any::<u64>(),
        large in any::<bool>(),
    ) {
        let size = if large { BlockSize::B4096 } else { BlockSize::B512 };
        let unit = LogicalUnit::new(config(size)).expect("valid configuration");
        let mut nexus = ready(&unit);
        if let Ok(command) = parse(&cdb) {
            let request = Request { command: &command, offered: ByteCount(offered), data_out: &data, luns: &[] };
            if let Action::Done(response) = unit.start(&mut nexus, &request) {
                prop_assert_eq!(response.sense.is_some(), response.status == Status::CheckCondition);
                prop_assert!(response.data_in.len() as u64 <= command.data_in_limit(size).0);
            }
            let absent = start_absent(&command, &[]);
            prop_assert!(absent.data_in.len() as u64 <= command.data_in_limit(size).0);
        }
    }

    #[test]
    fn bits_outside_the_usage_map_never_change_a_command(cdb in cdbs(), noise in any::<[u8; 16]>()) {
        let Some(spec) = spec_of(&cdb) else {
            prop_assert!(parse(&cdb).is_err());
            return Ok(());
        };
        prop_assume!(cdb.len() >= spec.usage.len());
        let mut relevant = spec.evaluated();
        for (byte, mask) in spec.refused_fields() {
            relevant[usize::from(byte)] |= mask;
        }
        let mut other = cdb.clone();
        for (index, byte) in other.iter_mut().enumerate() {
            let keep = relevant.get(index).copied().unwrap_or(0);
            *byte = *byte & keep | noise[index % 16] & !keep;
        }
        prop_assert_eq!(parse(&cdb), parse(&other));
    }

    #[test]
    fn a_refused_bit_is_refused_with_a_pointer_to_its_field(cdb in cdbs(), pick in any::<prop::sample::Index>()) {
        let Some(spec) = spec_of(&cdb) else { return Ok(()) };
        prop_assume!(cdb.len() >= spec.usage.len());
        let fields: Vec<_> = spec.refused_fields().collect();
        let (byte, mask) = fields[pick.index(fields.len())];
        let mut cdb = cdb;
        for (byte, mask) in &fields {
            cdb[usize::from(*byte)] &= !mask;
        }
        cdb[usize::from(byte)] |= mask & mask.wrapping_neg();
        let bit = 7 - mask.leading_zeros() as u8;
        prop_assert_eq!(parse(&cdb), Err(Sense::invalid_cdb_field(u16::from(byte), Some(bit))));
    }

    #[test]
    fn sense_data_round_trip(
        asc in any::<u8>(), ascq in any::<u8>(), information in any::<Option<u64>>(),
        byte in any::<u16>(), bit in proptest::option::of(0_u8..8), which in 0..3, descriptor in any::<bool>(),
    ) {
        let mut sense = Sense::new(SenseKey::IllegalRequest, asc, ascq);
        sense.information = information;
        sense.field = match which {
            0 => None,
            1 => Some(FieldPointer { source: FieldSource::Cdb, byte, bit }),
            _ => Some(FieldPointer { source: FieldSource::Parameters, byte, bit }),
        };
        let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
        let bytes = sense.encode(format);
        prop_assert!(bytes.as_slice().len() <= MAX_SENSE_LENGTH);
        if !descriptor && information.is_some_and(|value| value > u64::from(u32::MAX)) {
            sense.information = None;
        }
        prop_assert_eq!(Sense::decode(bytes.as_slice()), Some(sense));
    }

    #[test]
    fn sense_decoding_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = Sense::decode(&bytes);
    }
}

/// Command descriptors of REPORT SUPPORTED OPERATION CODES: opcode, service action, CDB length.
fn reported() -> Vec<(u8, Option<u16>, usize)> {
    let unit = unit();
    let data = good(run(
        &unit,
        &mut ready(&unit),
        "a30c00000000 0000ffff 0000",
        &[],
    ));
    assert_eq!(
        u32::from_be_bytes([data[0], data[1], data[2], data[3]]) as usize,
        data.len() - 4
    );
    let descriptors = data[4..].chunks(8).map(|bytes| {
        let action = (bytes[5] & 0x01 != 0).then(|| u16::from_be_bytes([bytes[2], bytes[3]]));
        (bytes[0], action, usize::from(bytes[7]))
    });
    descriptors.collect()
}

#[test]
fn every_opcode_and_service_action_is_accepted_exactly_if_it_is_reported() {
    let reported = reported();
    for opcode in 0..=255_u8 {
        for action in 0..32_u16 {
            let mut cdb = [0; 16];
            cdb[0] = opcode;
            cdb[1] = action as u8;
            let listed = reported.iter().any(|(own, own_action, _)| {
                *own == opcode && own_action.is_none_or(|own| own == action)
            });
            let known = match parse(&cdb) {
                Ok(_) => true,
                Err(sense) if sense.asc == 0x20 => false,
                // The field in error is the service action, or one of a supported command.
                Err(sense) => {
                    sense != Sense::invalid_cdb_field(1, Some(4)) || spec_of(&cdb).is_some()
                }
            };
            assert_eq!(
                known, listed,
                "opcode {opcode:02x} service action {action:02x}"
            );
        }
    }
}

#[test]
fn a_cdb_shorter_than_reported_is_refused() {
    for (opcode, action, length) in reported() {
        let mut cdb = vec![opcode, action.unwrap_or(0) as u8];
        cdb.resize(length - 1, 0);
        assert!(parse(&cdb).is_err(), "{opcode:02x}");
    }
}

#[test]
fn one_command_format_has_the_usage_map_and_the_right_reporting_options() {
    let unit = unit();
    let mut nexus = ready(&unit);
    for spec in COMMANDS {
        let action = spec.service_action.unwrap_or(0);
        let mut ask = |option: u8| {
            let cdb = format!(
                "a30c{option:02x}{:02x}{action:04x}0000ffff0000",
                spec.opcode
            );
            run(&unit, &mut nexus, &cdb, &[])
        };
        let (right, wrong) = if spec.service_action.is_some() {
            (2, 1)
        } else {
            (1, 2)
        };
        let expected = [&[0, 0x03, 0, spec.usage.len() as u8], spec.usage].concat();
        assert_eq!(good(ask(right)), expected, "{}", spec.name);
        assert_eq!(good(ask(3)), expected, "{}", spec.name);
        assert_eq!(sense(ask(wrong)), (0x5, 0x24, 0x00), "{}", spec.name);
        let timed = good(ask(0x80 | right));
        assert_eq!(timed[1], 0x83);
        assert_eq!(timed[timed.len() - 12..][..2], [0x00, 0x0A]);
    }
    for cdb in [
        "a30c015e00000000ffff0000",
        "a30c02a300ff0000ffff0000",
        "a30c03a300ff0000ffff0000",
    ] {
        assert_eq!(
            good(run(&unit, &mut nexus, cdb, &[])),
            [0, 0x01, 0, 0],
            "{cdb}"
        );
    }
}

//! Golden bytes: CDBs of real initiators and their meaning, parameter data and sense data on the wire.

use super::*;

const CDBS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/vectors/scsi/cdbs.hex"
));
const RESPONSES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/vectors/scsi/responses.hex"
));
const SENSE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/vectors/scsi/sense.hex"
));

fn describe(parsed: Result<Command, Sense>) -> String {
    match parsed {
        Ok(command) => format!("{command:?}"),
        Err(sense) => {
            let field = sense.field.expect("a refused CDB has a field pointer");
            assert_eq!(field.source, FieldSource::Cdb);
            let bit = field.bit.map(|bit| format!(".{bit}")).unwrap_or_default();
            format!(
                "refused {:02x}/{:02x} at cdb {}{bit}",
                sense.asc, sense.ascq, field.byte
            )
        }
    }
}

#[test]
fn golden_cdbs_parse_to_what_they_mean() {
    let mut lines = 0;
    for fields in vector_lines(CDBS) {
        let mut cdb = hex(fields[0]);
        assert_eq!(describe(parse(&cdb)), fields[1], "{}", fields[0]);
        // iSCSI pads every CDB to 16 bytes; a short one then reads as if zeros had been sent.
        if cdb.len() >= 6 {
            cdb.resize(16, 0);
            assert_eq!(describe(parse(&cdb)), fields[1], "{} padded", fields[0]);
        }
        lines += 1;
    }
    assert!(lines > 50);
}

#[test]
fn every_command_has_a_golden_cdb() {
    for spec in COMMANDS {
        let found = vector_lines(CDBS).any(|fields| {
            let cdb = hex(fields[0]);
            let action = spec
                .service_action
                .is_none_or(|action| cdb[1] & 0x1F == action as u8);
            cdb[0] == spec.opcode && action && !fields[1].starts_with("refused")
        });
        assert!(found, "{}", spec.name);
    }
}

#[test]
fn parameter_data_are_the_golden_bytes() {
    let small = unit();
    let large = LogicalUnit::new(LuConfig {
        read_only: true,
        ..config(BlockSize::B4096)
    })
    .expect("valid");
    let pool = pool_unit();
    for fields in vector_lines(RESPONSES) {
        let [name, which, cdb, expected] = fields[..] else {
            panic!("four fields in {fields:?}")
        };
        let unit = match which {
            "4096" => &large,
            "pool" => &pool,
            _ => &small,
        };
        let data = good(run(unit, &mut ready(unit), cdb, &[]));
        let actual: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(actual, expected.replace(' ', ""), "{name}");
    }
}

#[test]
fn sense_data_are_the_golden_bytes() {
    let of = |error| Response::from(error).sense.expect("sense data");
    let cases = [
        ("opcode", Sense::INVALID_OPCODE),
        ("cdb bit", Sense::invalid_cdb_field(1, Some(7))),
        ("parameter", Sense::invalid_parameter_field(258, None)),
        ("lba", Sense::LBA_OUT_OF_RANGE.with_lba(Lba(0x1234))),
        (
            "lba beyond 32 bits",
            Sense::LBA_OUT_OF_RANGE.with_lba(Lba(0x12_3456_789A)),
        ),
        ("power on", UnitAttention::PowerOn.sense()),
        ("miscompare", of(VolumeError::Miscompare(511))),
        ("threshold", UnitAttention::ThresholdReached.sense()),
        ("no space", of(VolumeError::NoSpace)),
    ];
    let lines: Vec<_> = vector_lines(SENSE).collect();
    assert_eq!(lines.len(), 2 * cases.len());
    for fields in lines {
        let [name, format, expected] = fields[..] else {
            panic!("three fields in {fields:?}")
        };
        let (_, sense) = cases
            .iter()
            .find(|(own, _)| *own == name)
            .expect("a case of that name");
        let format = if format == "fixed" {
            SenseFormat::Fixed
        } else {
            SenseFormat::Descriptor
        };
        assert_eq!(sense.encode(format).as_slice(), hex(expected), "{name}");
    }
}

//! INQUIRY: standard data and VPD pages 00h, 80h, 83h, 86h, B0h, B1h and B2h (SPC-4 6.6, 7.8; SBC-3 6.6).
//! Pure functions of the configuration; a page that is not here is refused.

use super::config::{
    LuConfig, MAX_COMPARE_AND_WRITE, PRODUCT_LENGTH, REVISION_LENGTH, VENDOR_LENGTH,
};
use super::sense::Sense;
use super::units::saturate32;

/// PERIPHERAL QUALIFIER 000b, direct access block device.
const CONNECTED_DISK: u8 = 0x00;
/// PERIPHERAL QUALIFIER 011b, device type unknown: no logical unit can be here (SPC-4 table 175).
pub(super) const NO_LOGICAL_UNIT: u8 = 0x7F;
/// VERSION: SPC-4.
const VERSION_SPC4: u8 = 0x06;
/// HISUP (hierarchical LUN addressing) and RESPONSE DATA FORMAT 2.
const HISUP_FORMAT_2: u8 = 0x12;
/// CMDQUE.
const COMMAND_QUEUING: u8 = 0x02;
const STANDARD_LENGTH: usize = 96;
const FIRST_VERSION_DESCRIPTOR: usize = 58;
/// VERSION DESCRIPTOR values (SPC-4 table 177): SAM-5, SPC-4, SBC-3, iSCSI.
const SAM_5: u16 = 0x00A0;
const SPC_4: u16 = 0x0460;
const SBC_3: u16 = 0x04C0;
const ISCSI: u16 = 0x0960;

const SUPPORTED_PAGES: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const DEVICE_IDENTIFICATION: u8 = 0x83;
const EXTENDED_INQUIRY: u8 = 0x86;
const BLOCK_LIMITS: u8 = 0xB0;
const BLOCK_CHARACTERISTICS: u8 = 0xB1;
const BLOCK_PROVISIONING: u8 = 0xB2;
/// All VPD pages, ascending.
const PAGES: [u8; 7] = [
    SUPPORTED_PAGES,
    SERIAL_NUMBER,
    DEVICE_IDENTIFICATION,
    EXTENDED_INQUIRY,
    BLOCK_LIMITS,
    BLOCK_CHARACTERISTICS,
    BLOCK_PROVISIONING,
];
/// PAGE LENGTH of 86h, B0h and B1h.
const LONG_PAGE: usize = 0x3C;

/// The 24 bits in an NAA 6 designator where a manufacturer has its IEEE company id. Bit 1 of the first byte marks a
/// locally administered value, of which there are no owners to collide with.
const LOCAL_COMPANY_ID: u32 = 0x02_A7_11;
/// Bits of an NAA 6 designator that are the vendor's.
const NAA_VENDOR_BITS: u32 = 100;

/// Standard INQUIRY data.
pub(super) fn standard(config: &LuConfig) -> Vec<u8> {
    let mut data = vec![0; STANDARD_LENGTH];
    data[0] = CONNECTED_DISK;
    data[2] = VERSION_SPC4;
    data[3] = HISUP_FORMAT_2;
    data[4] = (STANDARD_LENGTH - 5) as u8;
    data[7] = COMMAND_QUEUING;
    put_text(&mut data[8..8 + VENDOR_LENGTH], &config.vendor);
    put_text(&mut data[16..16 + PRODUCT_LENGTH], &config.product);
    put_text(&mut data[32..32 + REVISION_LENGTH], &config.revision);
    let transport = config.port.as_ref().map_or(0, |_| ISCSI);
    for (index, version) in [SAM_5, SPC_4, SBC_3, transport].into_iter().enumerate() {
        let at = FIRST_VERSION_DESCRIPTOR + 2 * index;
        data[at..at + 2].copy_from_slice(&version.to_be_bytes());
    }
    data
}

/// Standard INQUIRY data of a logical unit number that has no logical unit.
pub(super) fn absent() -> Vec<u8> {
    let mut data = vec![0; 36];
    data[0] = NO_LOGICAL_UNIT;
    data[2] = VERSION_SPC4;
    data[3] = HISUP_FORMAT_2;
    data[4] = 36 - 5;
    put_text(&mut data[8..], "");
    data
}

/// A VPD page, or INVALID FIELD IN CDB.
pub(super) fn vital_product_data(config: &LuConfig, page: u8) -> Result<Vec<u8>, Sense> {
    let body = match page {
        SUPPORTED_PAGES => PAGES.to_vec(),
        SERIAL_NUMBER => config.serial().into_bytes(),
        DEVICE_IDENTIFICATION => designators(config),
        EXTENDED_INQUIRY => extended_inquiry(),
        BLOCK_LIMITS => block_limits(config),
        BLOCK_CHARACTERISTICS => block_characteristics(),
        BLOCK_PROVISIONING => block_provisioning(config),
        _ => return Err(Sense::invalid_cdb_field(2, None)),
    };
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut data = vec![CONNECTED_DISK, page, length[0], length[1]];
    data.extend_from_slice(&body);
    Ok(data)
}

fn put_text(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// Which thing a designator names (ASSOCIATION).
#[derive(Clone, Copy)]
enum Association {
    LogicalUnit = 0x00,
    TargetPort = 0x10,
    TargetDevice = 0x20,
}

const BINARY: u8 = 0x1;
const ASCII: u8 = 0x2;
const UTF8: u8 = 0x3;
const T10_VENDOR: u8 = 0x1;
const NAA: u8 = 0x3;
const RELATIVE_PORT: u8 = 0x4;
const SCSI_NAME: u8 = 0x8;
/// PROTOCOL IDENTIFIER of iSCSI, and PIV.
const PROTOCOL_ISCSI: u8 = 0x50;
const PROTOCOL_VALID: u8 = 0x80;

fn designator(out: &mut Vec<u8>, association: Association, code_set: u8, kind: u8, value: &[u8]) {
    let (protocol, valid) = match association {
        Association::LogicalUnit => (0, 0),
        Association::TargetPort | Association::TargetDevice => (PROTOCOL_ISCSI, PROTOCOL_VALID),
    };
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[
        protocol | code_set,
        valid | association as u8 | kind,
        0,
        length,
    ]);
    out.extend_from_slice(&value[..usize::from(length)]);
}

/// A SCSI name string ends with a null and is padded to a multiple of four bytes (SPC-4 7.8.6.11).
fn scsi_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() + 4) & !3, 0);
    bytes
}

/// The NAA IEEE Registered Extended designator of a resource: stable, and never zero.
pub(super) fn naa(config: &LuConfig) -> [u8; 16] {
    let vendor = config.resource.mixed() & ((1 << NAA_VENDOR_BITS) - 1);
    let head = (0x6_u128 << 124) | (u128::from(LOCAL_COMPANY_ID) << NAA_VENDOR_BITS);
    (head | vendor).to_be_bytes()
}

fn designators(config: &LuConfig) -> Vec<u8> {
    let mut out = Vec::new();
    designator(
        &mut out,
        Association::LogicalUnit,
        BINARY,
        NAA,
        &naa(config),
    );
    let mut vendor_id = [0; VENDOR_LENGTH].to_vec();
    put_text(&mut vendor_id, &config.vendor);
    vendor_id.extend_from_slice(config.serial().as_bytes());
    designator(
        &mut out,
        Association::LogicalUnit,
        ASCII,
        T10_VENDOR,
        &vendor_id,
    );
    // The logical unit name extension has at most 16 digits.
    let extension = config.resource.mixed() as u64;
    let unit_name = match config.target_name.starts_with("iqn.") {
        true => format!("{},L,0x{extension:016x}", config.target_name),
        false => format!("naa.{:032X}", u128::from_be_bytes(naa(config))),
    };
    designator(
        &mut out,
        Association::LogicalUnit,
        UTF8,
        SCSI_NAME,
        &scsi_name(&unit_name),
    );
    if let Some(port) = &config.port {
        let [high, low] = port.relative_id.to_be_bytes();
        designator(
            &mut out,
            Association::TargetPort,
            BINARY,
            RELATIVE_PORT,
            &[0, 0, high, low],
        );
        let port_name = format!("{},t,0x{:04x}", config.target_name, port.portal_group_tag);
        designator(
            &mut out,
            Association::TargetPort,
            UTF8,
            SCSI_NAME,
            &scsi_name(&port_name),
        );
        designator(
            &mut out,
            Association::TargetDevice,
            UTF8,
            SCSI_NAME,
            &scsi_name(&config.target_name),
        );
    }
    out
}

fn extended_inquiry() -> Vec<u8> {
    let mut body = vec![0; LONG_PAGE];
    body[1] = 0x01; // SIMPSUP
    body[2] = 0x01; // V_SUP: acknowledged writes may be in a volatile cache
    body
}

fn block_limits(config: &LuConfig) -> Vec<u8> {
    let mut body = vec![0; LONG_PAGE];
    body[0] = 0x01; // WSNZ: WRITE SAME of 0 blocks is refused
    body[1] = MAX_COMPARE_AND_WRITE;
    // MAXIMUM PREFETCH LENGTH, page byte 16, stays 0: there is no limit.
    let mut put = |page_byte: usize, value: u32| {
        body[page_byte - 4..page_byte].copy_from_slice(&value.to_be_bytes());
    };
    put(8, config.max_transfer_field());
    put(12, saturate32(config.optimal_transfer.0));
    put(20, saturate32(config.max_unmap.0));
    put(24, config.max_unmap_descriptors);
    put(28, saturate32(config.unmap_granularity.0));
    if config.unmap_granularity.0 > 0 {
        put(32, 0x8000_0000); // UGAVALID, alignment 0
    }
    put(40, saturate32(config.max_write_same.0));
    body[2..4].copy_from_slice(&(1_u16 << config.physical_block_exponent).to_be_bytes());
    body
}

fn block_characteristics() -> Vec<u8> {
    let mut body = vec![0; LONG_PAGE];
    body[1] = 0x01; // MEDIUM ROTATION RATE: non-rotating
    body
}

fn block_provisioning(config: &LuConfig) -> Vec<u8> {
    // 0 where there are no thresholds.
    let exponent = config.threshold.map_or(0, |threshold| threshold.exponent);
    // LBPU, LBPWS, LBPWS10, LBPRZ = 001b, no ANC_SUP; PROVISIONING TYPE 2: thin.
    vec![exponent, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0x00]
}

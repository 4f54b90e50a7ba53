//! The one table of supported commands: it drives CDB parsing, the usage maps and lists of REPORT SUPPORTED
//! OPERATION CODES, and the refusal of what is defined but not supported. Executes nothing.

use super::command::Command;
use super::decode;
use super::sense::Sense;

/// One supported command.
pub struct CommandSpec {
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, for operation codes that have such.
    pub service_action: Option<u16>,
    /// The command's name in the standard.
    pub name: &'static str,
    /// CDB usage data (SPC-4 6.35.3): operation code and service action as they are, otherwise a one for each bit
    /// that is evaluated. Its length is the CDB's.
    pub usage: &'static [u8],
    /// Fields (byte, bits) that the standards define, or once defined, with a meaning this device server does not
    /// support. Ignoring them would do something else than what was asked, so any bit set in them is refused.
    pub refused: &'static [(u8, u8)],
    pub(super) decode: fn(&[u8]) -> Result<Command, Sense>,
}

/// NACA (SAM-5 5.2) and the obsolete FLAG and LINK in the CONTROL byte.
const CONTROL_REFUSED: u8 = 0x07;
/// Bits of the SERVICE ACTION field in byte 1.
const SERVICE_ACTION: u8 = 0x1F;

const RDPROTECT: (u8, u8) = (1, 0xE0);
const WRPROTECT: (u8, u8) = (1, 0xE0);
const VRPROTECT: (u8, u8) = (1, 0xE0);
const ORPROTECT: (u8, u8) = (1, 0xE0);
/// The bit of BYTCHK that WRITE AND VERIFY has no meaning for.
const BYTCHK_SINGLE: (u8, u8) = (1, 0x04);
/// Saving log parameters, and the obsolete PPC.
const LOG_SAVE: (u8, u8) = (1, 0x01);
const LOG_PPC: (u8, u8) = (1, 0x02);
const FUA_NV: (u8, u8) = (1, 0x02);
const RELADR: (u8, u8) = (1, 0x01);
const ANCHOR: (u8, u8) = (1, 0x10);
const PBDATA: (u8, u8) = (1, 0x04);
const LBDATA: (u8, u8) = (1, 0x02);
/// GET LBA STATUS: which statuses to report (SBC-4; reserved, and so 0, in SBC-3).
const REPORT_TYPE: (u8, u8) = (14, 0xFF);

macro_rules! command {
    ($opcode:literal, $name:literal, [$($usage:literal),*], [$($refused:expr),*], $decode:expr) => {
        CommandSpec {
            opcode: $opcode,
            service_action: None,
            name: $name,
            usage: &[$opcode, $($usage),*],
            refused: &[$($refused),*],
            decode: $decode,
        }
    };
    ($opcode:literal / $action:literal, $name:literal, [$($usage:literal),*], [$($refused:expr),*], $decode:expr) => {
        CommandSpec {
            opcode: $opcode,
            service_action: Some($action),
            name: $name,
            usage: &[$opcode, $($usage),*],
            refused: &[$($refused),*],
            decode: $decode,
        }
    };
}

/// Every supported command, by operation code and service action.
#[rustfmt::skip]
pub static COMMANDS: &[CommandSpec] = &[
    command!(0x00, "TEST UNIT READY", [0, 0, 0, 0, 0], [], decode::test_unit_ready),
    command!(0x03, "REQUEST SENSE", [0x01, 0, 0, 0xFF, 0], [], decode::request_sense),
    command!(0x08, "READ(6)", [0x1F, 0xFF, 0xFF, 0xFF, 0], [], decode::read6),
    command!(0x0A, "WRITE(6)", [0x1F, 0xFF, 0xFF, 0xFF, 0], [], decode::write6),
    command!(0x12, "INQUIRY", [0x01, 0xFF, 0xFF, 0xFF, 0], [(1, 0x02)], decode::inquiry),
    command!(0x15, "MODE SELECT(6)", [0x10, 0, 0, 0xFF, 0], [(1, 0x02), (1, 0x01)], decode::mode_select6),
    command!(0x1A, "MODE SENSE(6)", [0x08, 0xFF, 0xFF, 0xFF, 0], [], decode::mode_sense6),
    command!(0x1B, "START STOP UNIT", [0x01, 0, 0, 0x05, 0], [(3, 0x0F), (4, 0xF0), (4, 0x02)], decode::start_stop),
    command!(0x1E, "PREVENT ALLOW MEDIUM REMOVAL", [0, 0, 0, 0x01, 0], [(4, 0x02)], decode::prevent_allow),
    command!(0x25, "READ CAPACITY(10)", [0, 0, 0, 0, 0, 0, 0, 0, 0], [], decode::read_capacity10),
    command!(0x28, "READ(10)", [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [RDPROTECT, FUA_NV, RELADR], decode::read10),
    command!(0x2A, "WRITE(10)", [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [WRPROTECT, FUA_NV, RELADR], decode::write10),
    command!(0x2E, "WRITE AND VERIFY(10)", [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [WRPROTECT, BYTCHK_SINGLE, RELADR], decode::write_and_verify10),
    command!(0x2F, "VERIFY(10)", [0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [VRPROTECT, RELADR], decode::verify10),
    command!(0x34, "PRE-FETCH(10)", [0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [RELADR], decode::pre_fetch10),
    command!(0x35, "SYNCHRONIZE CACHE(10)", [0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [RELADR], decode::synchronize_cache10),
    command!(0x37, "READ DEFECT DATA(10)", [0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0], [], decode::read_defect_data10),
    command!(0x41, "WRITE SAME(10)", [0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0],
        [WRPROTECT, ANCHOR, PBDATA, LBDATA, RELADR], decode::write_same10),
    command!(0x42, "UNMAP", [0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], [(1, 0x01)], decode::unmap),
    command!(0x4D, "LOG SENSE", [0, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0],
        [LOG_PPC, LOG_SAVE], decode::log_sense),
    command!(0x55, "MODE SELECT(10)", [0x10, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0],
        [(1, 0x02), (1, 0x01)], decode::mode_select10),
    command!(0x5A, "MODE SENSE(10)", [0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0], [], decode::mode_sense10),
    command!(0x88, "READ(16)",
        [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [RDPROTECT, FUA_NV], decode::read16),
    command!(0x89, "COMPARE AND WRITE",
        [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0, 0],
        [WRPROTECT, FUA_NV], decode::compare_and_write),
    command!(0x8A, "WRITE(16)",
        [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [WRPROTECT, FUA_NV], decode::write16),
    command!(0x8B, "ORWRITE(16)",
        [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [ORPROTECT, FUA_NV], decode::or_write16),
    command!(0x8E, "WRITE AND VERIFY(16)",
        [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [WRPROTECT, BYTCHK_SINGLE], decode::write_and_verify16),
    command!(0x8F, "VERIFY(16)",
        [0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [VRPROTECT], decode::verify16),
    command!(0x90, "PRE-FETCH(16)",
        [0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [], decode::pre_fetch16),
    command!(0x91, "SYNCHRONIZE CACHE(16)",
        [0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [], decode::synchronize_cache16),
    command!(0x93, "WRITE SAME(16)",
        [0x09, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [WRPROTECT, ANCHOR, PBDATA, LBDATA], decode::write_same16),
    command!(0x9E / 0x10, "READ CAPACITY(16)",
        [0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], [], decode::read_capacity16),
    command!(0x9E / 0x12, "GET LBA STATUS",
        [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [REPORT_TYPE], decode::get_lba_status),
    command!(0xA0, "REPORT LUNS", [0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], [], decode::report_luns),
    command!(0xA3 / 0x0C, "REPORT SUPPORTED OPERATION CODES",
        [0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], [], decode::report_opcodes),
    command!(0xA3 / 0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        [0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], [], decode::report_task_management),
    command!(0xA8, "READ(12)", [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [RDPROTECT, FUA_NV, RELADR], decode::read12),
    command!(0xAA, "WRITE(12)", [0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [WRPROTECT, FUA_NV, RELADR], decode::write12),
    command!(0xAE, "WRITE AND VERIFY(12)", [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [WRPROTECT, BYTCHK_SINGLE, RELADR], decode::write_and_verify12),
    command!(0xAF, "VERIFY(12)", [0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [VRPROTECT, RELADR], decode::verify12),
    command!(0xB7, "READ DEFECT DATA(12)", [0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        [], decode::read_defect_data12),
];

/// The table entries of an operation code: one, or one for each service action.
pub(super) fn with_opcode(opcode: u8) -> impl Iterator<Item = &'static CommandSpec> {
    COMMANDS.iter().filter(move |spec| spec.opcode == opcode)
}

/// The table entry of a CDB.
pub(super) fn find(cdb: &[u8]) -> Result<&'static CommandSpec, Sense> {
    let opcode = *cdb.first().ok_or(Sense::INVALID_OPCODE)?;
    let action = u16::from(cdb.get(1).copied().unwrap_or(0) & SERVICE_ACTION);
    let mut known = false;
    for spec in with_opcode(opcode) {
        if spec.service_action.is_none_or(|own| own == action) {
            return Ok(spec);
        }
        known = true;
    }
    Err(if known {
        Sense::invalid_cdb_field(1, Some(4))
    } else {
        Sense::INVALID_OPCODE
    })
}

impl CommandSpec {
    /// Refuses a CDB that is too short or has a bit set that this device server must not ignore.
    pub(super) fn check(&self, cdb: &[u8]) -> Result<(), Sense> {
        let Some(cdb) = cdb.get(..self.usage.len()) else {
            return Err(Sense::invalid_cdb_field(
                u16::try_from(cdb.len()).unwrap_or(u16::MAX),
                None,
            ));
        };
        for (byte, mask) in self.refused_fields() {
            if cdb[usize::from(byte)] & mask != 0 {
                let high_bit = 7 - mask.leading_zeros() as u8;
                return Err(Sense::invalid_cdb_field(u16::from(byte), Some(high_bit)));
            }
        }
        Ok(())
    }

    /// All refused fields, the CONTROL byte's included.
    pub fn refused_fields(&self) -> impl Iterator<Item = (u8, u8)> {
        let control = (self.usage.len() - 1) as u8;
        let control_fields = [(control, 0x04), (control, CONTROL_REFUSED & !0x04)];
        self.refused.iter().copied().chain(control_fields)
    }

    /// The bits of the CDB that may change what the command does: the usage map with operation code and service
    /// action as whole fields.
    pub fn evaluated(&self) -> Vec<u8> {
        let mut bits = self.usage.to_vec();
        bits[0] = 0xFF;
        if self.service_action.is_some() {
            bits[1] |= SERVICE_ACTION;
        }
        bits
    }
}

const _: () = {
    let mut index = 0;
    while index < COMMANDS.len() {
        let length = COMMANDS[index].usage.len();
        assert!(
            length == 6 || length == 10 || length == 12 || length == 16,
            "CDB length"
        );
        if let Some(action) = COMMANDS[index].service_action {
            assert!(
                COMMANDS[index].usage[1] as u16 == action,
                "usage data names the service action"
            );
        }
        index += 1;
    }
};

//! From the fields of one CDB to a `Command`. Called only by the table in `opcodes`, with a CDB of the
//! table's length whose refused fields are known to be zero.

use super::command::{
    ByteCheck, Command, ModeForm, ModeSense, OpcodeQuery, PageControl, ReadDefectData,
    SelectReport, Transfer, Verify, WriteSame,
};
use super::sense::Sense;
use super::units::{Blocks, Lba, be};

type Parsed = Result<Command, Sense>;

/// TRANSFER LENGTH 0 of READ(6) and WRITE(6) means this many blocks (SBC-3 5.9, 5.30).
const SIX_BYTE_ZERO_LENGTH: u64 = 256;
/// Smallest allocation length of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).
const MIN_TASK_MANAGEMENT_ALLOCATION: u32 = 4;

fn be32(cdb: &[u8], at: usize) -> u32 {
    be(cdb, at, 4) as u32
}

pub(super) fn test_unit_ready(_: &[u8]) -> Parsed {
    Ok(Command::TestUnitReady)
}

pub(super) fn request_sense(cdb: &[u8]) -> Parsed {
    Ok(Command::RequestSense {
        descriptor: cdb[1] & 0x01 != 0,
        allocation: u32::from(cdb[4]),
    })
}

pub(super) fn inquiry(cdb: &[u8]) -> Parsed {
    let evpd = cdb[1] & 0x01 != 0;
    if !evpd && cdb[2] != 0 {
        return Err(Sense::invalid_cdb_field(2, None));
    }
    Ok(Command::Inquiry {
        page: evpd.then_some(cdb[2]),
        allocation: be(cdb, 3, 2) as u32,
    })
}

pub(super) fn report_luns(cdb: &[u8]) -> Parsed {
    let select = match cdb[2] {
        0x00 => SelectReport::Units,
        0x01 => SelectReport::WellKnown,
        0x02 => SelectReport::All,
        0x10 => SelectReport::Administrative,
        0x11 => SelectReport::AdministrativeAndSimple,
        0x12 => SelectReport::Subsidiary,
        _ => return Err(Sense::invalid_cdb_field(2, None)),
    };
    Ok(Command::ReportLuns {
        select,
        allocation: be32(cdb, 6),
    })
}

pub(super) fn mode_sense6(cdb: &[u8]) -> Parsed {
    Ok(mode_sense(cdb, ModeForm::Six, false, u32::from(cdb[4])))
}

pub(super) fn mode_sense10(cdb: &[u8]) -> Parsed {
    Ok(mode_sense(
        cdb,
        ModeForm::Ten,
        cdb[1] & 0x10 != 0,
        be(cdb, 7, 2) as u32,
    ))
}

fn mode_sense(cdb: &[u8], form: ModeForm, long_lba: bool, allocation: u32) -> Command {
    let control = match cdb[2] >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => PageControl::Saved,
    };
    Command::ModeSense(ModeSense {
        form,
        no_descriptor: cdb[1] & 0x08 != 0,
        long_lba,
        control,
        page: cdb[2] & 0x3F,
        subpage: cdb[3],
        allocation,
    })
}

pub(super) fn mode_select6(cdb: &[u8]) -> Parsed {
    mode_select(cdb, ModeForm::Six, u32::from(cdb[4]))
}

pub(super) fn mode_select10(cdb: &[u8]) -> Parsed {
    mode_select(cdb, ModeForm::Ten, be(cdb, 7, 2) as u32)
}

fn mode_select(cdb: &[u8], form: ModeForm, length: u32) -> Parsed {
    // PF = 0 means parameters of a vendor specific layout: there are none.
    if cdb[1] & 0x10 == 0 {
        return Err(Sense::invalid_cdb_field(1, Some(4)));
    }
    Ok(Command::ModeSelect { form, length })
}

pub(super) fn start_stop(cdb: &[u8]) -> Parsed {
    Ok(Command::StartStopUnit {
        start: cdb[4] & 0x01 != 0,
    })
}

pub(super) fn prevent_allow(_: &[u8]) -> Parsed {
    Ok(Command::PreventAllow)
}

pub(super) fn read_capacity10(_: &[u8]) -> Parsed {
    Ok(Command::ReadCapacity10)
}

pub(super) fn read_capacity16(cdb: &[u8]) -> Parsed {
    Ok(Command::ReadCapacity16 {
        allocation: be32(cdb, 10),
    })
}

pub(super) fn get_lba_status(cdb: &[u8]) -> Parsed {
    Ok(Command::GetLbaStatus {
        lba: Lba(be(cdb, 2, 8)),
        allocation: be32(cdb, 10),
    })
}

fn transfer6(cdb: &[u8]) -> Transfer {
    let blocks = match cdb[4] {
        0 => SIX_BYTE_ZERO_LENGTH,
        length => u64::from(length),
    };
    Transfer {
        lba: Lba(be(cdb, 1, 3) & 0x1F_FFFF),
        blocks: Blocks(blocks),
        dpo: false,
        fua: false,
        length_byte: 4,
    }
}

/// LBA of `lba_bytes` bytes from byte 2, TRANSFER LENGTH of `length_bytes` bytes from `length_byte`.
fn transfer(cdb: &[u8], lba_bytes: usize, length_byte: u16, length_bytes: usize) -> Transfer {
    Transfer {
        lba: Lba(be(cdb, 2, lba_bytes)),
        blocks: Blocks(be(cdb, usize::from(length_byte), length_bytes)),
        dpo: cdb[1] & 0x10 != 0,
        fua: cdb[1] & 0x08 != 0,
        length_byte,
    }
}

pub(super) fn read6(cdb: &[u8]) -> Parsed {
    Ok(Command::Read(transfer6(cdb)))
}

pub(super) fn write6(cdb: &[u8]) -> Parsed {
    Ok(Command::Write(transfer6(cdb)))
}

pub(super) fn read10(cdb: &[u8]) -> Parsed {
    Ok(Command::Read(transfer(cdb, 4, 7, 2)))
}

pub(super) fn write10(cdb: &[u8]) -> Parsed {
    Ok(Command::Write(transfer(cdb, 4, 7, 2)))
}

pub(super) fn read12(cdb: &[u8]) -> Parsed {
    Ok(Command::Read(transfer(cdb, 4, 6, 4)))
}

pub(super) fn write12(cdb: &[u8]) -> Parsed {
    Ok(Command::Write(transfer(cdb, 4, 6, 4)))
}

pub(super) fn read16(cdb: &[u8]) -> Parsed {
    Ok(Command::Read(transfer(cdb, 8, 10, 4)))
}

pub(super) fn write16(cdb: &[u8]) -> Parsed {
    Ok(Command::Write(transfer(cdb, 8, 10, 4)))
}

/// BYTCHK in byte 1, LBA and length as in [`transfer`].
fn verify(cdb: &[u8], lba_bytes: usize, length_byte: u16, length_bytes: usize) -> Parsed {
    let check = match cdb[1] >> 1 & 0x03 {
        0 => ByteCheck::Medium,
        1 => ByteCheck::Each,
        3 => ByteCheck::Single,
        _ => return Err(Sense::invalid_cdb_field(1, Some(2))),
    };
    Ok(Command::Verify(Verify {
        lba: Lba(be(cdb, 2, lba_bytes)),
        blocks: Blocks(be(cdb, usize::from(length_byte), length_bytes)),
        dpo: cdb[1] & 0x10 != 0,
        check,
        length_byte,
    }))
}

/// BYTCHK is one bit here: the other is among the table's refused fields.
fn write_and_verify(cdb: &[u8], lba_bytes: usize, length_byte: u16, length_bytes: usize) -> Parsed {
    Ok(Command::WriteAndVerify(Verify {
        lba: Lba(be(cdb, 2, lba_bytes)),
        blocks: Blocks(be(cdb, usize::from(length_byte), length_bytes)),
        dpo: cdb[1] & 0x10 != 0,
        check: match cdb[1] & 0x02 {
            0 => ByteCheck::Medium,
            _ => ByteCheck::Each,
        },
        length_byte,
    }))
}

pub(super) fn verify10(cdb: &[u8]) -> Parsed {
    verify(cdb, 4, 7, 2)
}

pub(super) fn verify12(cdb: &[u8]) -> Parsed {
    verify(cdb, 4, 6, 4)
}

pub(super) fn verify16(cdb: &[u8]) -> Parsed {
    verify(cdb, 8, 10, 4)
}

pub(super) fn write_and_verify10(cdb: &[u8]) -> Parsed {
    write_and_verify(cdb, 4, 7, 2)
}

pub(super) fn write_and_verify12(cdb: &[u8]) -> Parsed {
    write_and_verify(cdb, 4, 6, 4)
}

pub(super) fn write_and_verify16(cdb: &[u8]) -> Parsed {
    write_and_verify(cdb, 8, 10, 4)
}

pub(super) fn compare_and_write(cdb: &[u8]) -> Parsed {
    Ok(Command::CompareAndWrite(transfer(cdb, 8, 13, 1)))
}

pub(super) fn or_write16(cdb: &[u8]) -> Parsed {
    Ok(Command::OrWrite(transfer(cdb, 8, 10, 4)))
}

pub(super) fn pre_fetch10(cdb: &[u8]) -> Parsed {
    Ok(Command::PreFetch {
        lba: Lba(be(cdb, 2, 4)),
        blocks: Blocks(be(cdb, 7, 2)),
    })
}

pub(super) fn pre_fetch16(cdb: &[u8]) -> Parsed {
    Ok(Command::PreFetch {
        lba: Lba(be(cdb, 2, 8)),
        blocks: Blocks(be(cdb, 10, 4)),
    })
}

pub(super) fn read_defect_data10(cdb: &[u8]) -> Parsed {
    read_defect_data(cdb, 2, false, be(cdb, 7, 2) as u32)
}

pub(super) fn read_defect_data12(cdb: &[u8]) -> Parsed {
    read_defect_data(cdb, 1, true, be32(cdb, 6))
}

fn read_defect_data(cdb: &[u8], lists_byte: u16, long: bool, allocation: u32) -> Parsed {
    let lists = cdb[usize::from(lists_byte)] & 0x1F;
    // 110b is of the vendor, 111b reserved (SBC-3 table 42).
    if lists & 0x07 > 5 {
        return Err(Sense::invalid_cdb_field(lists_byte, Some(2)));
    }
    Ok(Command::ReadDefectData(ReadDefectData {
        long,
        lists,
        allocation,
    }))
}

pub(super) fn log_sense(cdb: &[u8]) -> Parsed {
    // PC: there are cumulative values only, no thresholds and no defaults (SPC-4 table 203).
    if cdb[2] >> 6 != 1 {
        return Err(Sense::invalid_cdb_field(2, Some(7)));
    }
    Ok(Command::LogSense {
        page: cdb[2] & 0x3F,
        subpage: cdb[3],
        pointer: be(cdb, 5, 2) as u16,
        allocation: be(cdb, 7, 2) as u32,
    })
}

pub(super) fn synchronize_cache10(cdb: &[u8]) -> Parsed {
    Ok(Command::SynchronizeCache {
        lba: Lba(be(cdb, 2, 4)),
        blocks: Blocks(be(cdb, 7, 2)),
    })
}

pub(super) fn synchronize_cache16(cdb: &[u8]) -> Parsed {
    Ok(Command::SynchronizeCache {
        lba: Lba(be(cdb, 2, 8)),
        blocks: Blocks(be(cdb, 10, 4)),
    })
}

pub(super) fn unmap(cdb: &[u8]) -> Parsed {
    Ok(Command::Unmap {
        length: be(cdb, 7, 2) as u32,
    })
}

pub(super) fn write_same10(cdb: &[u8]) -> Parsed {
    Ok(Command::WriteSame(WriteSame {
        lba: Lba(be(cdb, 2, 4)),
        blocks: Blocks(be(cdb, 7, 2)),
        unmap: cdb[1] & 0x08 != 0,
        no_data: false,
        length_byte: 7,
    }))
}

pub(super) fn write_same16(cdb: &[u8]) -> Parsed {
    Ok(Command::WriteSame(WriteSame {
        lba: Lba(be(cdb, 2, 8)),
        blocks: Blocks(be(cdb, 10, 4)),
        unmap: cdb[1] & 0x08 != 0,
        no_data: cdb[1] & 0x01 != 0,
        length_byte: 10,
    }))
}

pub(super) fn report_opcodes(cdb: &[u8]) -> Parsed {
    let opcode = cdb[3];
    let service_action = be(cdb, 4, 2) as u16;
    let query = match cdb[2] & 0x07 {
        0 => OpcodeQuery::All,
        1 => OpcodeQuery::Opcode { opcode },
        2 => OpcodeQuery::ServiceAction {
            opcode,
            service_action,
        },
        3 => OpcodeQuery::Either {
            opcode,
            service_action,
        },
        _ => return Err(Sense::invalid_cdb_field(2, Some(2))),
    };
    Ok(Command::ReportOpcodes {
        query,
        timeouts: cdb[2] & 0x80 != 0,
        allocation: be32(cdb, 6),
    })
}

pub(super) fn report_task_management(cdb: &[u8]) -> Parsed {
    let allocation = be32(cdb, 6);
    if allocation < MIN_TASK_MANAGEMENT_ALLOCATION {
        return Err(Sense::invalid_cdb_field(6, None));
    }
    Ok(Command::ReportTaskManagement {
        extended: cdb[2] & 0x80 != 0,
        allocation,
    })
}

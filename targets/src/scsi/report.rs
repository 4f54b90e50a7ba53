//! What is reported about the device server and the unit: REPORT LUNS, REPORT SUPPORTED OPERATION CODES and TASK
//! MANAGEMENT FUNCTIONS, READ CAPACITY, GET LBA STATUS, READ DEFECT DATA (SPC-4 6.33-6.36, SBC-3 5.4, 5.15-5.18). Data
//! only, no state.

use super::command::{OpcodeQuery, ReadDefectData, SelectReport};
use super::config::LuConfig;
use super::lun::Lun;
use super::opcodes::{self, COMMANDS, CommandSpec};
use super::sense::Sense;
use super::units::{BlockSize, Blocks, Lba, saturate32};
use super::volume::Extent;

/// SUPPORT of the one-command format: 001b not supported, 011b supported as the standard says.
const NOT_SUPPORTED: u8 = 0x01;
const SUPPORTED: u8 = 0x03;
const SERVACTV: u8 = 0x01;
/// CTDP in the all-commands and in the one-command format.
const CTDP_ALL: u8 = 0x02;
const CTDP_ONE: u8 = 0x80;
/// Command timeouts descriptor: its length, and no nominal or recommended time-out.
const TIMEOUTS: [u8; 12] = [0x00, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// ATS, ATSS, CTSS, LURS: abort task, abort task set, clear task set, logical unit reset.
const TASK_MANAGEMENT: u8 = 0x80 | 0x40 | 0x10 | 0x08;
const EXTENDED_TASK_MANAGEMENT: usize = 16;

const LBPME: u8 = 0x80;
const LBPRZ: u8 = 0x40;

/// GET LBA STATUS: the header, and one LBA status descriptor.
const LBA_STATUS_HEADER: usize = 8;
const LBA_STATUS_DESCRIPTOR: usize = 16;
/// Most LBA status descriptors of one answer, whatever there is room for.
const MAX_LBA_STATUS_DESCRIPTORS: usize = 256;
/// PROVISIONING STATUS: mapped, or deallocated. No block is anchored (ANC_SUP is 0).
const MAPPED: u8 = 0x0;
const DEALLOCATED: u8 = 0x1;

/// REPORT LUNS parameter data for a target that has `luns` and no well known or administrative logical units.
pub(super) fn luns(select: SelectReport, luns: &[Lun]) -> Vec<u8> {
    let listed = match select {
        SelectReport::Units | SelectReport::All | SelectReport::AdministrativeAndSimple => luns,
        SelectReport::WellKnown | SelectReport::Administrative | SelectReport::Subsidiary => &[],
    };
    let mut data = saturate32(8 * listed.len() as u64).to_be_bytes().to_vec();
    data.extend_from_slice(&[0; 4]);
    for lun in listed {
        data.extend_from_slice(&lun.encode());
    }
    data
}

/// REPORT SUPPORTED OPERATION CODES parameter data.
pub(super) fn opcodes(query: OpcodeQuery, timeouts: bool) -> Result<Vec<u8>, Sense> {
    match query {
        OpcodeQuery::All => Ok(all_commands(timeouts)),
        OpcodeQuery::Opcode { opcode } => {
            if has_service_actions(opcode) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            Ok(one_command(opcodes::with_opcode(opcode).next(), timeouts))
        }
        OpcodeQuery::ServiceAction {
            opcode,
            service_action,
        } => {
            if opcodes::with_opcode(opcode).any(|spec| spec.service_action.is_none()) {
                return Err(Sense::invalid_cdb_field(2, Some(2)));
            }
            Ok(one_command(with_action(opcode, service_action), timeouts))
        }
        OpcodeQuery::Either {
            opcode,
            service_action,
        } => {
            let spec = match has_service_actions(opcode) {
                true => with_action(opcode, service_action),
                false => opcodes::with_opcode(opcode)
                    .next()
                    .filter(|_| service_action == 0),
            };
            Ok(one_command(spec, timeouts))
        }
    }
}

fn has_service_actions(opcode: u8) -> bool {
    opcodes::with_opcode(opcode).any(|spec| spec.service_action.is_some())
}

fn with_action(opcode: u8, action: u16) -> Option<&'static CommandSpec> {
    opcodes::with_opcode(opcode).find(|spec| spec.service_action == Some(action))
}

fn all_commands(timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for spec in COMMANDS {
        let [action_high, action_low] = spec.service_action.unwrap_or(0).to_be_bytes();
        let mut flags = if spec.service_action.is_some() {
            SERVACTV
        } else {
            0
        };
        if timeouts {
            flags |= CTDP_ALL;
        }
        data.extend_from_slice(&[spec.opcode, 0, action_high, action_low, 0, flags, 0]);
        data.push(spec.usage.len() as u8);
        if timeouts {
            data.extend_from_slice(&TIMEOUTS);
        }
    }
    let length = saturate32(data.len() as u64 - 4).to_be_bytes();
    data[..4].copy_from_slice(&length);
    data
}

fn one_command(spec: Option<&CommandSpec>, timeouts: bool) -> Vec<u8> {
    let Some(spec) = spec else {
        return vec![0, NOT_SUPPORTED, 0, 0];
    };
    let ctdp = if timeouts { CTDP_ONE } else { 0 };
    let mut data = vec![0, SUPPORTED | ctdp, 0, spec.usage.len() as u8];
    data.extend_from_slice(spec.usage);
    if timeouts {
        data.extend_from_slice(&TIMEOUTS);
    }
    data
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data.
pub(super) fn task_management(extended: bool) -> Vec<u8> {
    if !extended {
        return vec![TASK_MANAGEMENT, 0, 0, 0];
    }
    // No TMF time-outs are indicated.
    let mut data = vec![0; EXTENDED_TASK_MANAGEMENT];
    data[0] = TASK_MANAGEMENT;
    data[3] = (EXTENDED_TASK_MANAGEMENT - 4) as u8;
    data
}

/// READ CAPACITY(10) parameter data; all ones where the last LBA does not fit.
pub(super) fn capacity10(config: &LuConfig, blocks: Blocks) -> Vec<u8> {
    let last = saturate32(blocks.0.saturating_sub(1));
    let mut data = last.to_be_bytes().to_vec();
    data.extend_from_slice(&config.block_size.bytes().to_be_bytes());
    data
}

/// READ CAPACITY(16) parameter data.
pub(super) fn capacity16(config: &LuConfig, blocks: Blocks) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&blocks.0.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&config.block_size.bytes().to_be_bytes());
    data[13] = config.physical_block_exponent;
    data[14] = LBPME | LBPRZ;
    data
}

/// LBA status descriptors that an allocation length has room for, at least one: the length field tells of it even where
/// it is cut off.
pub(super) fn lba_status_room(allocation: u32) -> usize {
    let room = usize::try_from(allocation).unwrap_or(usize::MAX);
    (room.saturating_sub(LBA_STATUS_HEADER) / LBA_STATUS_DESCRIPTOR)
        .clamp(1, MAX_LBA_STATUS_DESCRIPTORS)
}

/// GET LBA STATUS parameter data: extents from `lba` on. Where one does not fit its field it is the last, and the
/// initiator asks again from where it ends.
pub(super) fn lba_status(
    lba: Lba,
    block_size: BlockSize,
    extents: impl Iterator<Item = Extent>,
) -> Vec<u8> {
    let mut data = vec![0; LBA_STATUS_HEADER];
    let mut next = lba.0;
    for extent in extents {
        let blocks = block_size.whole_blocks(extent.length).0;
        data.extend_from_slice(&next.to_be_bytes());
        data.extend_from_slice(&saturate32(blocks).to_be_bytes());
        let status = if extent.mapped { MAPPED } else { DEALLOCATED };
        data.extend_from_slice(&[status, 0, 0, 0]);
        if blocks > u64::from(u32::MAX) {
            break;
        }
        next += blocks;
    }
    // PARAMETER DATA LENGTH counts what follows that field.
    let following = saturate32(data.len() as u64 - 4);
    data[..4].copy_from_slice(&following.to_be_bytes());
    data
}

/// READ DEFECT DATA parameter data: the lists asked for, in the format asked for, are empty.
pub(super) fn no_defects(request: &ReadDefectData) -> Vec<u8> {
    // The long header has a generation code, which is not supported, and a longer length.
    let mut data = vec![0; if request.long { 8 } else { 4 }];
    data[1] = request.lists;
    data
}

//! What is reported about the device server and the unit: REPORT LUNS, REPORT SUPPORTED OPERATION CODES and TASK
//! MANAGEMENT FUNCTIONS, READ CAPACITY, GET LBA STATUS (SPC-4 6.33-6.36, SBC-3 5.4, 5.15-5.16). Data only, no state.

use super::command::{OpcodeQuery, SelectReport};
use super::config::LuConfig;
use super::lun::Lun;
use super::opcodes::{self, COMMANDS, CommandSpec};
use super::sense::Sense;
use super::units::{Blocks, Lba, saturate32};

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
/// PARAMETER DATA LENGTH counts what follows that field, which has 4 bytes.
const LBA_STATUS_FOLLOWING: u32 = (LBA_STATUS_HEADER + LBA_STATUS_DESCRIPTOR - 4) as u32;
/// PROVISIONING STATUS: mapped, or in an unknown state.
const MAPPED_OR_UNKNOWN: u8 = 0x0;

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

/// GET LBA STATUS parameter data: one descriptor from `lba` on. `rest` are the blocks from there to the end of the
/// medium; where they do not fit the field, the initiator asks again from where the descriptor ends.
///
/// What is mapped is known only to the volume, and changes under the initiator's eyes; the status that is true of every
/// block makes it read the data, which is never wrong.
pub(super) fn lba_status(lba: Lba, rest: Blocks) -> Vec<u8> {
    let mut data = vec![0; LBA_STATUS_HEADER + LBA_STATUS_DESCRIPTOR];
    data[..4].copy_from_slice(&LBA_STATUS_FOLLOWING.to_be_bytes());
    data[8..16].copy_from_slice(&lba.0.to_be_bytes());
    data[16..20].copy_from_slice(&saturate32(rest.0).to_be_bytes());
    data[20] = MAPPED_OR_UNKNOWN;
    data
}

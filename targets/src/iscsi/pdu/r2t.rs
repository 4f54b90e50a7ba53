//! Ready To Transfer (RFC 7143 §11.8): the target asks for a part of a command's data.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, SequenceNumbers, TargetTransferTag};
use crate::iscsi::serial::R2tSn;

/// Ready To Transfer, §11.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2t {
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// Numbers; an R2T carries the next StatSN and does not consume it.
    pub numbers: SequenceNumbers,
    /// R2TSN, from 0 in the command.
    pub r2t_sn: R2tSn,
    /// Offset in the data of the command, bytes.
    pub buffer_offset: u32,
    /// Bytes asked for, 1 to MaxBurstLength.
    pub desired_data_transfer_length: u32,
}

impl R2t {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            numbers: bhs.sequence_numbers(),
            r2t_sn: R2tSn(bhs.u32(36)),
            buffer_offset: bhs.u32(40),
            desired_data_transfer_length: bhs.u32(44),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::R2t, FINAL)
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put_sequence_numbers(self.numbers)
            .put32(36, self.r2t_sn.0)
            .put32(40, self.buffer_offset)
            .put32(44, self.desired_data_transfer_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "r2t",
        R2t,
        R2t {
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            r2t_sn: R2tSn(3),
            buffer_offset: 0x2000,
            desired_data_transfer_length: 0x1_0000,
        }
    );
}

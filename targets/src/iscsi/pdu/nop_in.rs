//! NOP-In (RFC 7143 §11.19): a ping of the target or its answer to the initiator's.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, SequenceNumbers, TargetTransferTag};

/// NOP-In, §11.19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopIn {
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl NopIn {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            numbers: bhs.sequence_numbers(),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::NopIn, FINAL)
            .data(self.data_segment_length)
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put_sequence_numbers(self.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "nop_in",
        NopIn,
        NopIn {
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            data_segment_length: 0x8,
        }
    );
}

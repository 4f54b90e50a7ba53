//! NOP-Out (RFC 7143 §11.18): a ping of the initiator or its answer to ours.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, TargetTransferTag};
use crate::iscsi::serial::{CmdSn, StatSn};

/// NOP-Out, §11.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NopOut {
    /// The I bit: delivered at once, outside the CmdSN order.
    pub immediate: bool,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl NopOut {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.is_immediate(),
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            cmd_sn: bhs.cmd_sn(),
            exp_stat_sn: StatSn(bhs.u32(28)),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::NopOut, FINAL)
            .immediate(self.immediate)
            .data(self.data_segment_length)
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put32(24, self.cmd_sn.0)
            .put32(28, self.exp_stat_sn.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "nop_out",
        NopOut,
        NopOut {
            immediate: true,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            cmd_sn: CmdSn(0x44),
            exp_stat_sn: StatSn(0x55),
            data_segment_length: 0x8,
        }
    );
}

//! SCSI Data-Out (RFC 7143 §11.7): data of a command to the target.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, TargetTransferTag};
use crate::iscsi::serial::{DataSn, StatSn};

/// SCSI Data-Out, §11.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOut {
    /// F: last PDU of an unsolicited or solicited sequence.
    pub is_final: bool,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// DataSN, from 0 in each sequence.
    pub data_sn: DataSn,
    /// Offset in the data of the command, bytes.
    pub buffer_offset: u32,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl DataOut {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            is_final: bhs.has(1, FINAL),
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            exp_stat_sn: StatSn(bhs.u32(28)),
            data_sn: DataSn(bhs.u32(36)),
            buffer_offset: bhs.u32(40),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::DataOut, if self.is_final { FINAL } else { 0 })
            .data(self.data_segment_length)
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put32(28, self.exp_stat_sn.0)
            .put32(36, self.data_sn.0)
            .put32(40, self.buffer_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "data_out",
        DataOut,
        DataOut {
            is_final: true,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            exp_stat_sn: StatSn(0x55),
            data_sn: DataSn(3),
            buffer_offset: 0x2000,
            data_segment_length: 0x1000,
        }
    );
}

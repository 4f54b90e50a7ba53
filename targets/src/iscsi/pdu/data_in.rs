//! SCSI Data-In (RFC 7143 §11.7): data of a command to the initiator, with its status in the last one.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, SequenceNumbers, TargetTransferTag};
use super::scsi_response::Residual;
use crate::iscsi::serial::DataSn;

/// S: the PDU carries the status of the command.
const STATUS: u8 = 0x01;

/// SCSI Data-In, §11.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataIn {
    /// F: last PDU of a sequence (MaxBurstLength) or of the command.
    pub is_final: bool,
    /// S bit with the SCSI status and the residual; then StatSN is valid.
    pub status: Option<(u8, Residual)>,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// DataSN, from 0 in the command.
    pub data_sn: DataSn,
    /// Offset in the data of the command, bytes.
    pub buffer_offset: u32,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl DataIn {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            is_final: bhs.has(1, FINAL),
            status: bhs
                .has(1, STATUS)
                .then(|| (bhs.0[3], Residual::decode(bhs.0[1], bhs.u32(44)))),
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            numbers: bhs.sequence_numbers(),
            data_sn: DataSn(bhs.u32(36)),
            buffer_offset: bhs.u32(40),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        let mut flags = if self.is_final { FINAL } else { 0 };
        let (mut status, mut count) = (0, 0);
        if let Some((code, residual)) = self.status {
            let (residual_flags, residual_count) = residual.encode();
            flags |= STATUS | residual_flags;
            (status, count) = (code, residual_count);
        }
        Bhs::new(Opcode::DataIn, flags)
            .data(self.data_segment_length)
            .put(3, [status])
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put_sequence_numbers(self.numbers)
            .put32(36, self.data_sn.0)
            .put32(40, self.buffer_offset)
            .put32(44, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "data_in",
        DataIn,
        DataIn {
            is_final: true,
            status: Some((0, Residual::Overflow(0x200))),
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            data_sn: DataSn(3),
            buffer_offset: 0x2000,
            data_segment_length: 0x1000,
        }
    );
}

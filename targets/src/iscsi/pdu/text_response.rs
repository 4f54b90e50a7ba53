//! Text Response (RFC 7143 §11.11).
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, SequenceNumbers, TargetTransferTag};

/// C: the text is not complete.
const CONTINUE: u8 = 0x40;

/// Text Response, §11.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextResponse {
    /// F: the answer is complete.
    pub is_final: bool,
    /// C: the text goes on in the next PDU.
    pub is_continued: bool,
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

impl TextResponse {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            is_final: bhs.has(1, FINAL),
            is_continued: bhs.has(1, CONTINUE),
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
        let mut flags = 0;
        if self.is_final {
            flags |= FINAL;
        }
        if self.is_continued {
            flags |= CONTINUE;
        }

        Bhs::new(Opcode::TextResponse, flags)
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
        "text_response",
        TextResponse,
        TextResponse {
            is_final: false,
            is_continued: true,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            data_segment_length: 0x2000,
        }
    );
}

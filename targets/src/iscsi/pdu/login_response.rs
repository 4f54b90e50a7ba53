//! Login Response (RFC 7143 §11.13).
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode, SequenceNumbers};
use super::login_request::{Isid, Stage, Tsih};

/// C: the text is not complete.
const CONTINUE: u8 = 0x40;

/// Login Response, §11.13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    /// T: the sender is ready to leave the current stage.
    pub transit: bool,
    /// C: the text goes on in the next PDU.
    pub is_continued: bool,
    /// CSG, the stage the PDU belongs to.
    pub current_stage: Stage,
    /// NSG, the stage wanted next; meaningful with T.
    pub next_stage: Stage,
    /// VersionMax.
    pub version_max: u8,
    /// VersionActive.
    pub version_active: u8,
    /// ISID, the initiator's part of the session identifier.
    pub isid: Isid,
    /// TSIH, zero for a new session.
    pub tsih: Tsih,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// Status-Class and Status-Detail.
    pub status: [u8; 2],
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl LoginResponse {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            transit: bhs.has(1, FINAL),
            is_continued: bhs.has(1, CONTINUE),
            current_stage: Stage::from_bits(bhs.0[1] >> 2),
            next_stage: Stage::from_bits(bhs.0[1]),
            version_max: bhs.0[2],
            version_active: bhs.0[3],
            isid: Isid(bhs.array(8)),
            tsih: Tsih(bhs.u16(14)),
            initiator_task_tag: bhs.initiator_task_tag(),
            numbers: bhs.sequence_numbers(),
            status: bhs.array(36),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        let mut flags = self.current_stage.to_bits() << 2 | self.next_stage.to_bits();
        if self.transit {
            flags |= FINAL;
        }
        if self.is_continued {
            flags |= CONTINUE;
        }

        Bhs::new(Opcode::LoginResponse, flags)
            .data(self.data_segment_length)
            .put(2, [self.version_max, self.version_active])
            .put(8, self.isid.0)
            .put16(14, self.tsih.0)
            .put32(16, self.initiator_task_tag.0)
            .put_sequence_numbers(self.numbers)
            .put(36, self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "login_response",
        LoginResponse,
        LoginResponse {
            transit: true,
            is_continued: false,
            current_stage: Stage::OperationalNegotiation,
            next_stage: Stage::FullFeaturePhase,
            version_max: 0,
            version_active: 0,
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            tsih: Tsih(0x0100),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            status: [0, 0],
            data_segment_length: 0x120,
        }
    );
}

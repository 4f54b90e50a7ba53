//! Login Request (RFC 7143 §11.12). The rules of the stages are in `login`.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode};
use crate::iscsi::serial::{CmdSn, StatSn};

/// C: the text is not complete.
const CONTINUE: u8 = 0x40;

/// Login Request, §11.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// The I bit: delivered at once, outside the CmdSN order.
    pub immediate: bool,
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
    /// VersionMin.
    pub version_min: u8,
    /// ISID, the initiator's part of the session identifier.
    pub isid: Isid,
    /// TSIH, zero for a new session.
    pub tsih: Tsih,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// CID, the connection in the session.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl LoginRequest {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.is_immediate(),
            transit: bhs.has(1, FINAL),
            is_continued: bhs.has(1, CONTINUE),
            current_stage: Stage::from_bits(bhs.0[1] >> 2),
            next_stage: Stage::from_bits(bhs.0[1]),
            version_max: bhs.0[2],
            version_min: bhs.0[3],
            isid: Isid(bhs.array(8)),
            tsih: Tsih(bhs.u16(14)),
            initiator_task_tag: bhs.initiator_task_tag(),
            cid: Cid(bhs.u16(20)),
            cmd_sn: bhs.cmd_sn(),
            exp_stat_sn: StatSn(bhs.u32(28)),
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

        Bhs::new(Opcode::LoginRequest, flags)
            .immediate(self.immediate)
            .data(self.data_segment_length)
            .put(2, [self.version_max, self.version_min])
            .put(8, self.isid.0)
            .put16(14, self.tsih.0)
            .put32(16, self.initiator_task_tag.0)
            .put16(20, self.cid.0)
            .put32(24, self.cmd_sn.0)
            .put32(28, self.exp_stat_sn.0)
    }
}

/// Login stages, §11.12.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// 0.
    SecurityNegotiation,
    /// 1.
    OperationalNegotiation,
    /// 2, which no PDU may name.
    Reserved,
    /// 3.
    FullFeaturePhase,
}

impl Stage {
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::SecurityNegotiation,
            1 => Self::OperationalNegotiation,
            2 => Self::Reserved,
            _ => Self::FullFeaturePhase,
        }
    }
    pub(super) const fn to_bits(self) -> u8 {
        match self {
            Self::SecurityNegotiation => 0,
            Self::OperationalNegotiation => 1,
            Self::Reserved => 2,
            Self::FullFeaturePhase => 3,
        }
    }
}

/// Initiator Session ID, §11.12.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Isid(pub [u8; 6]);

/// Target Session Identifying Handle, §11.12.6; zero means "none yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tsih(pub u16);

impl Tsih {
    /// No session yet.
    pub const NONE: Self = Self(0);
}

/// Connection ID, §11.12.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Cid(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "login_request",
        LoginRequest,
        LoginRequest {
            immediate: true,
            transit: true,
            is_continued: false,
            current_stage: Stage::OperationalNegotiation,
            next_stage: Stage::FullFeaturePhase,
            version_max: 0,
            version_min: 0,
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            tsih: Tsih(0x0100),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            cid: Cid(2),
            cmd_sn: CmdSn(0x44),
            exp_stat_sn: StatSn(0x55),
            data_segment_length: 0x120,
        }
    );
}

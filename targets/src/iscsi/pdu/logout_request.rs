//! Logout Request (RFC 7143 §11.14).
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode};
use super::login_request::Cid;
use crate::iscsi::serial::{CmdSn, StatSn};

/// Logout Request, §11.14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutRequest {
    /// The I bit: delivered at once, outside the CmdSN order.
    pub immediate: bool,
    /// What to end.
    pub reason: LogoutReason,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// CID, the connection in the session.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
}

impl LogoutRequest {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.is_immediate(),
            reason: LogoutReason::from_bits(bhs.0[1] & 0x7f),
            initiator_task_tag: bhs.initiator_task_tag(),
            cid: Cid(bhs.u16(20)),
            cmd_sn: bhs.cmd_sn(),
            exp_stat_sn: StatSn(bhs.u32(28)),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::LogoutRequest, FINAL | self.reason.to_bits())
            .immediate(self.immediate)
            .put32(16, self.initiator_task_tag.0)
            .put16(20, self.cid.0)
            .put32(24, self.cmd_sn.0)
            .put32(28, self.exp_stat_sn.0)
    }
}

/// Reason codes, §11.14.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutReason {
    /// 0.
    CloseSession,
    /// 1: the connection named by its CID.
    CloseConnection,
    /// 2: for recovery on another connection; needs ErrorRecoveryLevel 2.
    RemoveConnectionForRecovery,
    /// Reserved codes.
    Other(u8),
}

impl LogoutReason {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::CloseSession,
            1 => Self::CloseConnection,
            2 => Self::RemoveConnectionForRecovery,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::CloseSession => 0,
            Self::CloseConnection => 1,
            Self::RemoveConnectionForRecovery => 2,
            Self::Other(bits) => bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "logout_request",
        LogoutRequest,
        LogoutRequest {
            immediate: true,
            reason: LogoutReason::CloseConnection,
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            cid: Cid(2),
            cmd_sn: CmdSn(0x44),
            exp_stat_sn: StatSn(0x55),
        }
    );
}

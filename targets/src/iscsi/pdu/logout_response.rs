//! Logout Response (RFC 7143 §11.15).
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode, SequenceNumbers};

/// Logout Response, §11.15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutResponse {
    /// The outcome.
    pub response: LogoutResponseCode,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// Time2Wait, seconds.
    pub time2wait: u16,
    /// Time2Retain, seconds.
    pub time2retain: u16,
}

impl LogoutResponse {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            response: LogoutResponseCode::from_bits(bhs.0[2]),
            initiator_task_tag: bhs.initiator_task_tag(),
            numbers: bhs.sequence_numbers(),
            time2wait: bhs.u16(40),
            time2retain: bhs.u16(42),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::LogoutResponse, FINAL)
            .put(2, [self.response.to_bits()])
            .put32(16, self.initiator_task_tag.0)
            .put_sequence_numbers(self.numbers)
            .put16(40, self.time2wait)
            .put16(42, self.time2retain)
    }
}

/// Outcomes, §11.15.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutResponseCode {
    /// 0: closed.
    Closed,
    /// 1: no such connection.
    CidNotFound,
    /// 2: connection recovery is not supported.
    RecoveryNotSupported,
    /// 3 and reserved codes.
    CleanupFailed,
}

impl LogoutResponseCode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Closed,
            1 => Self::CidNotFound,
            2 => Self::RecoveryNotSupported,
            _ => Self::CleanupFailed,
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::CidNotFound => 1,
            Self::RecoveryNotSupported => 2,
            Self::CleanupFailed => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "logout_response",
        LogoutResponse,
        LogoutResponse {
            response: LogoutResponseCode::CidNotFound,
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            time2wait: 2,
            time2retain: 20,
        }
    );
}

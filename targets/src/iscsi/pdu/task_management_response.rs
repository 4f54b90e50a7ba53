//! Task Management Function Response (RFC 7143 §11.6).
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode, SequenceNumbers};

/// Task Management Function Response, §11.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementResponse {
    /// The outcome.
    pub response: TaskManagementResponseCode,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
}

impl TaskManagementResponse {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            response: TaskManagementResponseCode::from_bits(bhs.0[2]),
            initiator_task_tag: bhs.initiator_task_tag(),
            numbers: bhs.sequence_numbers(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::TaskManagementResponse, FINAL)
            .put(2, [self.response.to_bits()])
            .put32(16, self.initiator_task_tag.0)
            .put_sequence_numbers(self.numbers)
    }
}

/// Outcomes, §11.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementResponseCode {
    /// 0.
    FunctionComplete,
    /// 1: nothing to abort, it has probably ended.
    TaskDoesNotExist,
    /// 2.
    LunDoesNotExist,
    /// 4.
    TaskReassignmentNotSupported,
    /// 5.
    FunctionNotSupported,
    /// 6.
    AuthorizationFailed,
    /// 255, and every reserved code.
    FunctionRejected,
}

impl TaskManagementResponseCode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::FunctionComplete,
            1 => Self::TaskDoesNotExist,
            2 => Self::LunDoesNotExist,
            4 => Self::TaskReassignmentNotSupported,
            5 => Self::FunctionNotSupported,
            6 => Self::AuthorizationFailed,
            _ => Self::FunctionRejected,
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::FunctionComplete => 0,
            Self::TaskDoesNotExist => 1,
            Self::LunDoesNotExist => 2,
            Self::TaskReassignmentNotSupported => 4,
            Self::FunctionNotSupported => 5,
            Self::AuthorizationFailed => 6,
            Self::FunctionRejected => 255,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "task_management_response",
        TaskManagementResponse,
        TaskManagementResponse {
            response: TaskManagementResponseCode::TaskDoesNotExist,
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
        }
    );
}

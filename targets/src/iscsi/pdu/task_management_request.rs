//! Task Management Function Request (RFC 7143 §11.5). What a function does to tasks is the server's.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode};
use crate::iscsi::serial::{CmdSn, DataSn, StatSn};

/// Task Management Function Request, §11.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementRequest {
    /// The I bit: delivered at once, outside the CmdSN order.
    pub immediate: bool,
    /// What to do.
    pub function: TaskManagementFunction,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// The task that ABORT TASK means.
    pub referenced_task_tag: InitiatorTaskTag,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// CmdSN of the referenced task.
    pub ref_cmd_sn: CmdSn,
    /// For TASK REASSIGN only.
    pub exp_data_sn: DataSn,
}

impl TaskManagementRequest {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.is_immediate(),
            function: TaskManagementFunction::from_bits(bhs.0[1] & 0x7f),
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            referenced_task_tag: InitiatorTaskTag(bhs.u32(20)),
            cmd_sn: bhs.cmd_sn(),
            exp_stat_sn: StatSn(bhs.u32(28)),
            ref_cmd_sn: CmdSn(bhs.u32(32)),
            exp_data_sn: DataSn(bhs.u32(36)),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(
            Opcode::TaskManagementRequest,
            FINAL | self.function.to_bits(),
        )
        .immediate(self.immediate)
        .put(8, self.lun.0)
        .put32(16, self.initiator_task_tag.0)
        .put32(20, self.referenced_task_tag.0)
        .put32(24, self.cmd_sn.0)
        .put32(28, self.exp_stat_sn.0)
        .put32(32, self.ref_cmd_sn.0)
        .put32(36, self.exp_data_sn.0)
    }
}

/// Task management functions, §11.5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskManagementFunction {
    /// 1: one task, named by its Initiator Task Tag.
    AbortTask,
    /// 2: all tasks of this session on the logical unit.
    AbortTaskSet,
    /// 3: end the auto contingent allegiance.
    ClearAca,
    /// 4: all tasks of all sessions on the logical unit.
    ClearTaskSet,
    /// 5: logical unit reset.
    LogicalUnitReset,
    /// 6: target warm reset.
    TargetWarmReset,
    /// 7: target cold reset, which also ends all connections.
    TargetColdReset,
    /// 8: move a task to this connection; needs ErrorRecoveryLevel 2.
    TaskReassign,
    /// Anything else.
    Other(u8),
}

impl TaskManagementFunction {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::AbortTask,
            2 => Self::AbortTaskSet,
            3 => Self::ClearAca,
            4 => Self::ClearTaskSet,
            5 => Self::LogicalUnitReset,
            6 => Self::TargetWarmReset,
            7 => Self::TargetColdReset,
            8 => Self::TaskReassign,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::AbortTask => 1,
            Self::AbortTaskSet => 2,
            Self::ClearAca => 3,
            Self::ClearTaskSet => 4,
            Self::LogicalUnitReset => 5,
            Self::TargetWarmReset => 6,
            Self::TargetColdReset => 7,
            Self::TaskReassign => 8,
            Self::Other(bits) => bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "task_management_request",
        TaskManagementRequest,
        TaskManagementRequest {
            immediate: true,
            function: TaskManagementFunction::AbortTask,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            referenced_task_tag: InitiatorTaskTag(0x0102_0304),
            cmd_sn: CmdSn(0x44),
            exp_stat_sn: StatSn(0x55),
            ref_cmd_sn: CmdSn(0x43),
            exp_data_sn: DataSn(0),
        }
    );
}

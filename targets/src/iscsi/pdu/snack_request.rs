//! SNACK Request (RFC 7143 §11.16): recognised so that it can be refused; it needs ErrorRecoveryLevel 1.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, TargetTransferTag};
use crate::iscsi::serial::StatSn;

/// SNACK Request, §11.16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnackRequest {
    /// Kind of acknowledgement asked for, §11.16.1.
    pub kind: u8,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// Target Transfer Tag.
    pub target_transfer_tag: TargetTransferTag,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// BegRun.
    pub beg_run: u32,
    /// RunLength.
    pub run_length: u32,
}

impl SnackRequest {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            kind: bhs.0[1] & 0x0f,
            lun: Lun(bhs.array(8)),
            initiator_task_tag: bhs.initiator_task_tag(),
            target_transfer_tag: TargetTransferTag(bhs.u32(20)),
            exp_stat_sn: StatSn(bhs.u32(28)),
            beg_run: bhs.u32(40),
            run_length: bhs.u32(44),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::SnackRequest, FINAL | self.kind)
            .put(8, self.lun.0)
            .put32(16, self.initiator_task_tag.0)
            .put32(20, self.target_transfer_tag.0)
            .put32(28, self.exp_stat_sn.0)
            .put32(40, self.beg_run)
            .put32(44, self.run_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "snack_request",
        SnackRequest,
        SnackRequest {
            kind: 1,
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            target_transfer_tag: TargetTransferTag(0x0102_0304),
            exp_stat_sn: StatSn(0x55),
            beg_run: 4,
            run_length: 5,
        }
    );
}

//! SCSI Response (RFC 7143 §11.4). The sense data that may follow is the caller's.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode, SequenceNumbers};
use crate::iscsi::serial::DataSn;

/// SCSI Response, §11.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiResponse {
    /// Residual of the (only) transfer direction.
    pub residual: Residual,
    /// What the target did with the command.
    pub response: ServiceResponse,
    /// SCSI status (SAM-5), opaque here.
    pub status: u8,
    /// Initiator Task Tag.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// Number of R2T and Data-In PDUs sent for the command.
    pub exp_data_sn: DataSn,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl ScsiResponse {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            residual: Residual::decode(bhs.0[1], bhs.u32(44)),
            response: ServiceResponse::from_bits(bhs.0[2]),
            status: bhs.0[3],
            initiator_task_tag: bhs.initiator_task_tag(),
            numbers: bhs.sequence_numbers(),
            exp_data_sn: DataSn(bhs.u32(36)),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        let (flags, count) = self.residual.encode();
        Bhs::new(Opcode::ScsiResponse, FINAL | flags)
            .data(self.data_segment_length)
            .put(2, [self.response.to_bits(), self.status])
            .put32(16, self.initiator_task_tag.0)
            .put_sequence_numbers(self.numbers)
            .put32(36, self.exp_data_sn.0)
            .put32(44, count)
    }
}

/// The residual of §11.4.5: how the transfer length of the SCSI command differs from what the initiator expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Residual {
    /// As expected.
    #[default]
    None,
    /// U bit: this many expected bytes were not transferred.
    Underflow(u32),
    /// O bit: this many bytes did not fit what was expected.
    Overflow(u32),
}

impl Residual {
    const UNDERFLOW: u8 = 0x02;
    const OVERFLOW: u8 = 0x04;

    /// From the expected length and the length that the SCSI command calls for, in bytes.
    #[must_use]
    pub fn between(expected: u32, transfer: u64) -> Self {
        let expected = u64::from(expected);
        let clip = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        match transfer.cmp(&expected) {
            std::cmp::Ordering::Equal => Self::None,
            std::cmp::Ordering::Less => Self::Underflow(clip(expected - transfer)),
            std::cmp::Ordering::Greater => Self::Overflow(clip(transfer - expected)),
        }
    }
    pub(super) fn decode(flags: u8, count: u32) -> Self {
        match flags & (Self::UNDERFLOW | Self::OVERFLOW) {
            Self::UNDERFLOW => Self::Underflow(count),
            Self::OVERFLOW => Self::Overflow(count),
            _ => Self::None,
        }
    }
    pub(super) fn encode(self) -> (u8, u32) {
        match self {
            Self::None => (0, 0),
            Self::Underflow(count) => (Self::UNDERFLOW, count),
            Self::Overflow(count) => (Self::OVERFLOW, count),
        }
    }
}

/// The iSCSI service response, §11.4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceResponse {
    /// 00h: the status field is valid.
    CommandCompleted,
    /// 01h: the target failed; no SCSI status.
    TargetFailure,
    /// Anything else.
    Other(u8),
}

impl ServiceResponse {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::CommandCompleted,
            1 => Self::TargetFailure,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::CommandCompleted => 0,
            Self::TargetFailure => 1,
            Self::Other(bits) => bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::serial::{CmdSn, StatSn};

    crate::iscsi::pdu::golden::golden!(
        golden_bytes,
        "scsi_response",
        ScsiResponse,
        ScsiResponse {
            residual: Residual::Underflow(0x200),
            response: ServiceResponse::CommandCompleted,
            status: 0x02,
            initiator_task_tag: InitiatorTaskTag(0x0a0b_0c0d),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            exp_data_sn: DataSn(7),
            data_segment_length: 0x12,
        }
    );
}

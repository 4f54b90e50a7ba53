//! Reject (RFC 7143 §11.17). The rejected header follows as data.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Opcode, SequenceNumbers};
use crate::iscsi::serial::DataSn;

/// Reject, §11.17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// DataSN or R2TSN, for rejected SNACKs only.
    pub data_sn: DataSn,
    /// Bytes of data that follow.
    pub data_segment_length: u32,
}

impl Reject {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            reason: RejectReason::from_bits(bhs.0[2]),
            numbers: bhs.sequence_numbers(),
            data_sn: DataSn(bhs.u32(36)),
            data_segment_length: bhs.data_segment_length(),
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::Reject, FINAL)
            .data(self.data_segment_length)
            .put(2, [self.reason.to_bits()])
            .put32(16, InitiatorTaskTag::RESERVED.0)
            .put_sequence_numbers(self.numbers)
            .put32(36, self.data_sn.0)
    }
}

/// Reasons, §11.17.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// 02h.
    DataDigestError,
    /// 03h.
    SnackReject,
    /// 04h.
    ProtocolError,
    /// 05h.
    CommandNotSupported,
    /// 06h: too many immediate commands.
    ImmediateCommandReject,
    /// 07h: the Initiator Task Tag is in use.
    TaskInProgress,
    /// 09h.
    InvalidPduField,
    /// 0Ah: no resources for a long operation.
    LongOperationReject,
    /// 0Ch: only Logout is accepted now.
    WaitingForLogout,
    /// Other codes.
    Other(u8),
}

impl RejectReason {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0x02 => Self::DataDigestError,
            0x03 => Self::SnackReject,
            0x04 => Self::ProtocolError,
            0x05 => Self::CommandNotSupported,
            0x06 => Self::ImmediateCommandReject,
            0x07 => Self::TaskInProgress,
            0x09 => Self::InvalidPduField,
            0x0a => Self::LongOperationReject,
            0x0c => Self::WaitingForLogout,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::DataDigestError => 0x02,
            Self::SnackReject => 0x03,
            Self::ProtocolError => 0x04,
            Self::CommandNotSupported => 0x05,
            Self::ImmediateCommandReject => 0x06,
            Self::TaskInProgress => 0x07,
            Self::InvalidPduField => 0x09,
            Self::LongOperationReject => 0x0a,
            Self::WaitingForLogout => 0x0c,
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
        "reject",
        Reject,
        Reject {
            reason: RejectReason::ProtocolError,
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            data_sn: DataSn(0),
            data_segment_length: 0x30,
        }
    );
}

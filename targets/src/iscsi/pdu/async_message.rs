//! Asynchronous Message (RFC 7143 §11.9): the target tells of something nobody asked for.
use super::bhs::{Bhs, FINAL, InitiatorTaskTag, Lun, Opcode, SequenceNumbers};

/// Asynchronous Message, §11.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncMessage {
    /// Logical unit.
    pub lun: Lun,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub numbers: SequenceNumbers,
    /// What happened.
    pub event: AsyncEvent,
    /// Parameters 1 to 3; their sense depends on the event.
    pub parameters: [u16; 3],
}

impl AsyncMessage {
    /// Reads the header; reserved fields are ignored.
    #[must_use]
    pub fn decode(bhs: &Bhs) -> Self {
        Self {
            lun: Lun(bhs.array(8)),
            numbers: bhs.sequence_numbers(),
            event: AsyncEvent::from_bits(bhs.0[36]),
            parameters: [bhs.u16(38), bhs.u16(40), bhs.u16(42)],
        }
    }
    /// The header on the wire.
    #[must_use]
    pub fn encode(&self) -> Bhs {
        Bhs::new(Opcode::AsyncMessage, FINAL)
            .put32(16, InitiatorTaskTag::RESERVED.0)
            .put(8, self.lun.0)
            .put_sequence_numbers(self.numbers)
            .put(36, [self.event.to_bits()])
            .put16(38, self.parameters[0])
            .put16(40, self.parameters[1])
            .put16(42, self.parameters[2])
    }
}

/// Events, §11.9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// 0: a SCSI asynchronous event with sense data.
    Scsi,
    /// 1: log out within Parameter3 seconds.
    LogoutRequest,
    /// 2: this connection (CID in Parameter1) will be dropped.
    DropConnection,
    /// 3: all connections of the session will be dropped.
    DropSession,
    /// 4: parameters must be negotiated again.
    Renegotiate,
    /// 255 and reserved codes.
    Other(u8),
}

impl AsyncEvent {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Scsi,
            1 => Self::LogoutRequest,
            2 => Self::DropConnection,
            3 => Self::DropSession,
            4 => Self::Renegotiate,
            other => Self::Other(other),
        }
    }
    const fn to_bits(self) -> u8 {
        match self {
            Self::Scsi => 0,
            Self::LogoutRequest => 1,
            Self::DropConnection => 2,
            Self::DropSession => 3,
            Self::Renegotiate => 4,
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
        "async_message",
        AsyncMessage,
        AsyncMessage {
            lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
            numbers: SequenceNumbers {
                stat_sn: StatSn(0x11),
                exp_cmd_sn: CmdSn(0x22),
                max_cmd_sn: CmdSn(0x33)
            },
            event: AsyncEvent::LogoutRequest,
            parameters: [0, 0, 10],
        }
    );
}

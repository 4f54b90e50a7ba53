//! Why a connection ends or a PDU is refused: one type for violations of the protocol and one for the
//! end of a connection, with their translation to the Reject reason on the wire.
use super::login::LoginStatus;
use super::pdu::{AhsError, LogoutReason, RejectReason};
use super::serial::{CmdSn, DataSn};
use super::text::TextError;

/// A breach of RFC 7143 by the initiator. At ErrorRecoveryLevel 0 it ends the connection (§7.1.5), except
/// that data out of sequence ends only its task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// §11.2.1.6: longer than what was declared.
    #[error("data segment of {length} bytes where at most {limit} are accepted")]
    DataSegmentLength {
        /// Announced bytes.
        length: u32,
        /// Accepted bytes.
        limit: u32,
    },
    /// §7.8.
    #[error("header digest mismatch")]
    HeaderDigest,
    /// §7.8.
    #[error("data digest mismatch")]
    DataDigest,
    /// §11.2.2.
    #[error(transparent)]
    Ahs(#[from] AhsError),
    /// §4.2.2.1: on one connection commands come in order, so that a gap is never filled.
    #[error("CmdSN {got:?} skips {expected:?}")]
    CommandGap {
        /// In the request.
        got: CmdSn,
        /// Expected next.
        expected: CmdSn,
    },
    /// §11.3.1: flags that exclude each other.
    #[error("command flags contradict its data")]
    CommandFlags,
    /// §13.10, §13.11, §13.14: immediate or unsolicited data that was not negotiated or is too much.
    #[error("unsolicited data beyond what was negotiated")]
    UnsolicitedData,
    /// §11.7.5: Data-Out numbers count from zero in each sequence.
    #[error("DataSN {got:?} where {expected:?} was due")]
    DataSequence {
        /// In the PDU.
        got: DataSn,
        /// Expected next.
        expected: DataSn,
    },
    /// §13.18: data comes in order.
    #[error("buffer offset {got} where {expected} was due")]
    BufferOffset {
        /// In the PDU.
        got: u32,
        /// Expected next.
        expected: u32,
    },
    /// §11.7.4: not the tag (or logical unit) of the R2T that is due.
    #[error("Data-Out does not answer the R2T that is due")]
    TransferTag,
    /// §11.7.1: a solicited sequence longer or shorter than its R2T.
    #[error("solicited data does not match the length of its R2T")]
    TransferLength,
    /// Login after login.
    #[error("login request in full feature phase")]
    LoginAgain,
}

impl Violation {
    /// The reason code of the Reject that precedes the end.
    #[must_use]
    pub fn reject_reason(&self) -> RejectReason {
        match self {
            Self::DataDigest => RejectReason::DataDigestError,
            Self::Ahs(_) | Self::CommandFlags | Self::TransferTag => RejectReason::InvalidPduField,
            _ => RejectReason::ProtocolError,
        }
    }
}

/// Why a connection ended; all its tasks have ended with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The initiator broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(#[from] Violation),
    /// The login was refused.
    #[error("login refused: {0}")]
    LoginRefused(LoginStatus),
    /// The initiator logged out.
    #[error("logged out: {0:?}")]
    Logout(LogoutReason),
    /// No full feature phase in time.
    #[error("login took too long")]
    LoginTimeout,
    /// Nothing came after a ping.
    #[error("initiator does not answer")]
    PeerSilent,
    /// The initiator did not log out in time after it was asked to.
    #[error("initiator did not log out when asked")]
    LogoutTimeout,
    /// The server ended it.
    #[error("ended by the target")]
    Dropped,
}

/// A call that does not fit the state of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The task was aborted, completed, or ended with the connection; nothing is left to do.
    #[error("the task is gone")]
    TaskGone,
    /// Nothing of that kind waits for an answer.
    #[error("no request waits for this answer")]
    NotWaiting,
    /// More than `MAX_SEND_TARGETS_LENGTH` bytes.
    #[error("the list of targets is too long")]
    TooLong,
}

/// Text that cannot be used is rejected, the connection lives on.
impl From<&TextError> for RejectReason {
    fn from(_: &TextError) -> Self {
        Self::ProtocolError
    }
}

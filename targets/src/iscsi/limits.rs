//! Every limit of the iSCSI core in one place: what a peer may send, hold open or make us keep.
//! Values that an administrator may lower live in `Config`; these are the ceilings and defaults.
use super::Duration;

/// Basic Header Segment length, RFC 7143 §11.2.1.
pub const BHS_LENGTH: usize = 48;
/// Longest Additional Header Segments area: TotalAHSLength is one byte of 4-byte words (§11.2.1.5).
pub const MAX_AHS_LENGTH: usize = 255 * 4;
/// Longest CDB accepted, standard 16 bytes plus extended CDB AHS (SPC-4 variable-length CDBs are at most 260).
pub const MAX_CDB_LENGTH: usize = 260;
/// FirstBurstLength of this target: the most unsolicited data of one command.
pub const TARGET_FIRST_BURST_LENGTH: u32 = 256 * 1024;
/// What either side may send in one data segment until it is told otherwise (§13.12).
pub const DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH: u32 = 8192;
/// What this target declares by default for its own MaxRecvDataSegmentLength.
pub const TARGET_MAX_RECV_DATA_SEGMENT_LENGTH: u32 = 256 * 1024;
/// The range of every length key of §13 (512 .. 2^24 - 1).
pub const MIN_SEGMENT_LENGTH: u32 = 512;
/// See [`MIN_SEGMENT_LENGTH`].
pub const MAX_SEGMENT_LENGTH: u32 = (1 << 24) - 1;

/// Longest text that one negotiation or request may collect over several PDUs (C bit).
pub const MAX_TEXT_LENGTH: usize = 64 * 1024;
/// Longest answer to SendTargets; it leaves in pieces of the initiator's MaxRecvDataSegmentLength.
pub const MAX_SEND_TARGETS_LENGTH: usize = 1024 * 1024;
/// Most key=value pairs in one request; the answer (name, '=', longest reserved value) then fits a login PDU.
pub const MAX_KEYS_PER_REQUEST: usize = 80;
/// Most login requests of one login; a peer cannot negotiate for ever.
pub const MAX_LOGIN_REQUESTS: u32 = 64;
/// Longest key name (§6.1).
pub const MAX_KEY_NAME_LENGTH: usize = 63;
/// Longest value of the keys known here (§6.1).
pub const MAX_VALUE_LENGTH: usize = 255;
/// Longest iSCSI name (§4.2.7.1).
pub const MAX_NAME_LENGTH: usize = 223;

/// Default number of non-immediate commands an initiator may have in flight (MaxCmdSN window).
pub const DEFAULT_QUEUE_DEPTH: u32 = 128;
/// Ceiling of the configured queue depth; task slots fit 16 bits of a Target Transfer Tag.
pub const MAX_QUEUE_DEPTH: u32 = 4096;
/// Immediate SCSI commands, which no window limits, in flight at once (§4.2.2.1).
pub const MAX_IMMEDIATE_TASKS: u32 = 8;
/// Task management requests waiting for the server's answer at once.
pub const MAX_TASK_MANAGEMENT_REQUESTS: usize = 8;
/// Ceiling of MaxOutstandingR2T.
pub const MAX_OUTSTANDING_R2T: u32 = 16;
/// Sense data kept of a response (SPC-4: at most 252 bytes).
pub const MAX_SENSE_LENGTH: usize = 252;

/// Bytes of output queued above which nothing more is read from the peer.
pub const MAX_QUEUED_OUTPUT: usize = 4 * 1024 * 1024;
/// The part of it above which nothing more is read that is the connection's own: text, sense data, echoed pings. What is
/// the server's payload counts in the server's memory.
pub const MAX_QUEUED_OWNED: usize = 128 * 1024;
/// Chunks of output queued above which nothing more is read from the peer.
pub const MAX_QUEUED_CHUNKS: usize = 4096;

/// From the first byte to full feature phase.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Silence after which the initiator is pinged with a NOP-In.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Silence after a ping that ends the connection.
pub const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a closing connection may take to drain its output.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = {
    let answer = MAX_KEY_NAME_LENGTH + 1 + "NotUnderstood".len() + 1;
    assert!(MAX_KEYS_PER_REQUEST * answer + 1024 <= DEFAULT_MAX_RECV_DATA_SEGMENT_LENGTH as usize);
    assert!(MAX_QUEUE_DEPTH + MAX_IMMEDIATE_TASKS < u16::MAX as u32);
    assert!(TARGET_MAX_RECV_DATA_SEGMENT_LENGTH <= MAX_SEGMENT_LENGTH);
};

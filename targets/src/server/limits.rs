//! Every limit of the iSCSI server in one place: connections, memory, batches, patience.
//! What a peer may send within one connection is limited by `iscsi::limits`.

use std::time::Duration;

/// Sessions of all targets together unless configured otherwise.
pub const DEFAULT_MAX_SESSIONS: u32 = 1024;
/// Ceiling of the configured number of sessions: their handles (TSIH) have 16 bits, zero is none.
pub const MAX_SESSIONS: u32 = 65_535;
/// Connections that have not completed their login, or are ending without one; no more are accepted until one of them
/// is gone. With [`MAX_SESSIONS`] it bounds all connections there are.
pub const MAX_CONNECTIONS_IN_LOGIN: usize = 256;
/// How often accepting looks whether a connection in login has gone on.
pub const LOGIN_ROOM_INTERVAL: Duration = Duration::from_millis(10);
/// While no more are accepted, a connection is given this long for its login: those that say nothing must not keep out
/// those that would.
pub const CROWDED_LOGIN_TIME: Duration = Duration::from_secs(2);
/// Pause after accepting failed.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Percent of a pool below which its initiators are told, unless configured otherwise.
pub const DEFAULT_LOW_SPACE: u32 = 10;

/// Bytes of one core that all its connections share for commands under way, unless configured otherwise.
pub const DEFAULT_COMMAND_MEMORY: u64 = 64 << 20;
/// Least that may be configured.
pub const MIN_COMMAND_MEMORY: u64 = 1 << 20;
/// Bytes for commands under way that every connection has besides, whatever others hold.
pub const GUARANTEED_BYTES: usize = 512 << 10;
/// Bytes of one step of a read or write that is too long for the memory there is. What is left of the guaranteed bytes
/// is for short commands beside it.
pub const STEP_BYTES: u64 = 256 << 10;
/// Bytes of one connection's commands that are held at a time: data on its way to the volume, from it, and queued to
/// be sent. A command beyond waits.
pub const MAX_HELD_BYTES: usize = 32 << 20;
/// Bytes that are received at a time while there is traffic.
pub const RECEIVE_BYTES: usize = 256 << 10;
/// Bytes that a connection waits with while there is none.
pub const IDLE_RECEIVE_BYTES: usize = 4 << 10;
/// Silence after which the large receive buffer is given back.
pub const RECEIVE_IDLE: Duration = Duration::from_millis(100);
/// Bytes that leave in one send, about: what a slow peer takes in less than a ping's patience.
pub const SEND_BYTES: usize = 1 << 20;
/// Slices of one send, about: what one system call takes.
pub const SEND_SLICES: usize = 240;
/// Pieces of output up to this length are gathered by copying; longer ones leave from where they are.
pub const SEND_COPY_BYTES: usize = 512;
/// Bytes of gathered headers in one buffer.
pub const SEND_GATHER_BYTES: usize = 4 << 10;

/// How long a peer may take none of a send before it is dropped.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an abortion, and the end of a session, wait for what has begun at a store that does not answer.
pub const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// A large command is run on the volume in parts of this many bytes.
pub const VOLUME_CHUNK_BYTES: u64 = 1 << 20;
/// Parts of one command that run at a time.
pub const VOLUME_CHUNKS: usize = 4;
/// Ranges of one UNMAP that run at a time.
pub const UNMAP_RANGES: usize = 8;

/// A target that is written to looks at its pool's room so often.
pub const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// How long a target that is added waits for its pool to tell its room.
pub const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// How long initiators have to log out of a target that is removed.
pub const REMOVE_GRACE: Duration = Duration::from_secs(3);
/// Pause before a message to a core whose inbox is full is sent again.
pub const INBOX_RETRY: Duration = Duration::from_millis(1);
/// Portal group tag of all portals (RFC 7143 §4.4.1).
pub const PORTAL_GROUP_TAG: u16 = 1;

const _: () = {
    let largest = crate::scsi::DEFAULT_MAX_TRANSFER.0;
    assert!(MAX_HELD_BYTES as u64 >= largest);
    // The first step takes all unsolicited data, and a step has room in what is guaranteed.
    assert!(STEP_BYTES >= crate::iscsi::limits::TARGET_FIRST_BURST_LENGTH as u64);
    assert!(STEP_BYTES <= GUARANTEED_BYTES as u64 && STEP_BYTES.is_multiple_of(4096));
    assert!(VOLUME_CHUNK_BYTES <= atoll_mapper::MAX_IO_BYTES);
    assert!(SEND_COPY_BYTES < SEND_GATHER_BYTES);
};

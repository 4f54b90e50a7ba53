//! What the server is told and what it tells: configuration, targets, sessions, counters, as plain values.

use super::error::{Error, ErrorKind, Result};
use super::limits;
use crate::iscsi;
use crate::scsi::{BlockSize, ByteCount, ResourceId};
use atoll_mapper::VolumeHandle;
use atoll_reactor::CoreId;
use std::net::SocketAddr;
use std::time::Duration;

/// How the server is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiServerConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The portals that discovery answers. Empty: the address listened on, or where that is the wildcard address, the
    /// one that the asking connection came to. Port 0 stands for the one listened on.
    pub advertise: Vec<SocketAddr>,
    /// Commands that one session may have outstanding, 1 to [`iscsi::limits::MAX_QUEUE_DEPTH`].
    pub queue_depth: u32,
    /// Sessions of all targets together, discovery included, 1 to [`limits::MAX_SESSIONS`].
    pub max_sessions: u32,
    /// Bytes of each core that its connections share for the data of commands under way, from
    /// [`limits::MIN_COMMAND_MEMORY`]; each connection has [`limits::GUARANTEED_BYTES`] besides.
    pub command_memory: u64,
    /// Initiators are told (THIN PROVISIONING SOFT THRESHOLD REACHED) when less than so many percent of a pool are
    /// available, 0 to 100; 0 for never.
    pub low_space: u32,
    /// From connecting to full feature phase.
    pub login_timeout: Duration,
    /// Silence of an initiator after which it is pinged.
    pub nop_interval: Duration,
    /// Silence after a ping that ends the session.
    pub nop_timeout: Duration,
}

impl Default for IscsiServerConfig {
    fn default() -> IscsiServerConfig {
        IscsiServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 3260)),
            advertise: Vec::new(),
            queue_depth: iscsi::limits::DEFAULT_QUEUE_DEPTH,
            max_sessions: limits::DEFAULT_MAX_SESSIONS,
            command_memory: limits::DEFAULT_COMMAND_MEMORY,
            low_space: limits::DEFAULT_LOW_SPACE,
            login_timeout: iscsi::limits::LOGIN_TIMEOUT,
            nop_interval: iscsi::limits::PING_INTERVAL,
            nop_timeout: iscsi::limits::PING_TIMEOUT,
        }
    }
}

impl IscsiServerConfig {
    /// Checks every field's range.
    pub(super) fn validate(&self) -> Result<()> {
        let range = |what: &str, value: u32, max: u32| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{what} must be from 1 to {max}, not {value}"),
            ))
        };
        range(
            "the queue depth",
            self.queue_depth,
            iscsi::limits::MAX_QUEUE_DEPTH,
        )?;
        range(
            "the number of sessions",
            self.max_sessions,
            limits::MAX_SESSIONS,
        )?;
        if self.low_space > 100 {
            let text = format!("low space is a percentage, not {}", self.low_space);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if self.command_memory < limits::MIN_COMMAND_MEMORY {
            let text = format!(
                "the memory for commands must be at least {} bytes, not {}",
                limits::MIN_COMMAND_MEMORY,
                self.command_memory
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        for (what, span) in [
            ("login timeout", self.login_timeout),
            ("ping interval", self.nop_interval),
            ("ping timeout", self.nop_timeout),
        ] {
            if span.is_zero() {
                let text = format!("the {what} must not be zero");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
        }
        Ok(())
    }

    /// Commands that one session may have at a time, those outside of the queue included.
    pub(super) fn most_commands(&self) -> usize {
        (self.queue_depth + iscsi::limits::MAX_IMMEDIATE_TASKS) as usize
    }

    pub(super) fn connection(&self) -> iscsi::Config {
        iscsi::Config {
            queue_depth: self.queue_depth,
            login_timeout: self.login_timeout,
            ping_interval: self.nop_interval,
            ping_timeout: self.nop_timeout,
            ..iscsi::Config::default()
        }
    }
}

/// A volume to be served as LUN 0 of a target.
#[derive(Clone)]
pub struct TargetSpec {
    /// Name of the target: `iqn.`, `eui.` or `naa.`, lower case, at most 223 bytes.
    pub iqn: String,
    pub volume: VolumeHandle,
    /// The names that initiators see of the unit derive from it: it must stay the same for the resource's life.
    pub resource: ResourceId,
    pub block_size: BlockSize,
    /// Of the pool, for the granularity of unmapping.
    pub object_size: ByteCount,
    pub read_only: bool,
}

/// A session in full feature phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// InitiatorName.
    pub initiator: String,
    /// InitiatorAlias.
    pub initiator_alias: Option<String>,
    /// `None` for a discovery session.
    pub target: Option<String>,
    pub isid: [u8; 6],
    /// Target session identifying handle, unique among the live sessions, not 0.
    pub tsih: u16,
    /// Where it is served.
    pub core: CoreId,
    pub peer: SocketAddr,
    /// The portal that it came to.
    pub portal: SocketAddr,
    /// Since its login was accepted.
    pub connected_for: Duration,
    /// Commands not answered yet.
    pub outstanding: usize,
    pub counters: Counters,
}

/// A target and what was done to it since it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStats {
    pub iqn: String,
    /// Sessions that are logged in.
    pub sessions: usize,
    pub counters: Counters,
}

/// Commands and bytes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// READ commands answered.
    pub reads: u64,
    pub read_bytes: u64,
    /// WRITE commands answered.
    pub writes: u64,
    pub written_bytes: u64,
    /// All other commands answered.
    pub others: u64,
    /// Commands of all kinds that did not end with GOOD.
    pub errors: u64,
    /// Commands that a task management function, or the end of their session, ended.
    pub aborted: u64,
    /// Sum over `reads`, from the command's arrival to its answer.
    pub read_latency: Duration,
    /// Sum over `writes`.
    pub write_latency: Duration,
}

impl Counters {
    pub(super) fn add(&mut self, other: &Counters) {
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
        self.writes += other.writes;
        self.written_bytes += other.written_bytes;
        self.others += other.others;
        self.errors += other.errors;
        self.aborted += other.aborted;
        self.read_latency += other.read_latency;
        self.write_latency += other.write_latency;
    }
}

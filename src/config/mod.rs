//! The daemon's configuration: one TOML file, every option with a default, unknown ones refused
//! by name. `atoll.example.toml` documents each option; a test holds the two together.

mod explain;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::units::{ByteSize, Span, config_size};

/// The data directory unless the command line, `$ATOLL_DATA` or the file names another.
pub const DEFAULT_DATA: &str = "data";
/// The admin socket inside the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// The metadata store inside the data directory.
pub const METADATA_DIR: &str = "meta";

/// Reactors of one daemon.
pub const MAX_CORES: usize = 256;
/// I/O buffers of one core.
pub const BUFFER_MEMORY_RANGE: (ByteSize, ByteSize) = (ByteSize::mib(4), ByteSize::mib(64 << 10));
/// Map pages and bitmaps in memory.
pub const PAGE_MEMORY_RANGE: (ByteSize, ByteSize) = (ByteSize::mib(1), ByteSize::mib(1 << 20));
/// Commands that one session may have outstanding.
pub const QUEUE_DEPTH_RANGE: (u32, u32) = (1, 4096);
/// Sessions of the daemon.
pub const MAX_SESSIONS_RANGE: (u32, u32) = (1, 65_535);
/// Memory of each core for the data of iSCSI commands; the longest command has room in the least.
pub const LOW_SPACE_RANGE: (u32, u32) = (0, 50);
pub const COMMAND_MEMORY_RANGE: (ByteSize, ByteSize) = (ByteSize::mib(16), ByteSize::mib(64 << 10));
/// Operations of the background per second; 0 is no limit.
pub const GC_MAX_IOPS_RANGE: (u32, u32) = (0, 10_000_000);
/// Longest time a reactor may go on polling without work.
pub const MAX_SPIN: Duration = Duration::from_secs(1);
/// The time-outs of protocols and stores.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the metadata, of the default pool, of the lock and of the admin socket.
    pub data: PathBuf,
    /// How long one operation on a store may take.
    pub io_timeout: Span,
    pub reactor: Reactor,
    pub iscsi: Iscsi,
    pub admin: Admin,
    pub metadata: Metadata,
    pub gc: Gc,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reactor {
    /// CPUs to run on, one reactor pinned to each.
    pub cores: Vec<u32>,
    pub poll: PollMode,
    /// How long `adaptive` goes on polling when there is no work.
    pub spin: Span,
    /// I/O buffers of each core.
    #[serde(with = "config_size")]
    pub buffer_memory: ByteSize,
}

/// When a reactor polls instead of sleeping (R5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// While there is work, and for `spin` after.
    Adaptive,
    /// Always: a core at 100 %.
    Always,
    /// Sleeps whenever there is nothing to do.
    Never,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Iscsi {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What discovery answers instead of the address that the connection came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Advertise>,
    /// Commands that one session may have outstanding (its CmdSN window).
    pub queue_depth: u32,
    /// Sessions of all targets together; more are refused at login.
    pub max_sessions: u32,
    /// Bytes of each core that all sessions share for the data of commands under way; every session has 512 KiB besides.
    #[serde(with = "config_size")]
    pub command_memory: ByteSize,
    /// Percent of a pool: initiators are told when less is available. 0: never.
    pub low_space: u32,
    /// How long a connection may take to log in.
    pub login_timeout: Span,
    /// Silence of an initiator after which it is pinged with a NOP-In.
    pub nop_interval: Span,
    /// How long it may take to answer that.
    pub nop_timeout: Span,
    /// `--insecure-no-auth`, which only the command line can say.
    #[serde(skip)]
    pub insecure_no_auth: bool,
}

/// An address for others to connect to: an IP address and, if it differs, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Advertise {
    pub ip: IpAddr,
    /// The port that the daemon listens on, unless given.
    pub port: Option<u16>,
}

impl Advertise {
    /// What initiators are told, where the daemon listens on `bound`.
    pub fn address(self, bound: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(bound.port()))
    }
}

impl std::str::FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => Self {
                ip: address.ip(),
                port: Some(address.port()),
            },
            (_, Ok(ip)) => Self { ip, port: None },
            _ => {
                return Err(format!(
                    "{text:?} is not an address: write an IP address, or one with a port: \"192.0.2.10\", \"192.0.2.10:3260\", \"[2001:db8::1]:3260\""
                ));
            }
        };
        if parsed.ip.is_unspecified() || parsed.port == Some(0) {
            return Err(format!(
                "{text:?} is nothing that an initiator can connect to"
            ));
        }
        Ok(parsed)
    }
}

impl TryFrom<String> for Advertise {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<Advertise> for String {
    fn from(advertise: Advertise) -> Self {
        match advertise.port {
            Some(port) => SocketAddr::new(advertise.ip, port).to_string(),
            None => advertise.ip.to_string(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The admin socket, unless it is in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// Directory of the metadata store, unless it is in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Map pages and bitmaps in memory, of all volumes and cores together.
    #[serde(with = "config_size")]
    pub page_memory: ByteSize,
}

/// What works in the background, beside initiators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gc {
    /// Operations at pools and steps in maps per second, of collector, leak scan and filler together. 0: no limit.
    pub max_iops: u32,
    /// Completes objects that are at least half written, so that what is below them is not needed.
    pub fill: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives as `tracing` has them.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: DEFAULT_DATA.into(),
            io_timeout: Span(Duration::from_secs(30)),
            reactor: Reactor::default(),
            iscsi: Iscsi::default(),
            admin: Admin::default(),
            metadata: Metadata::default(),
            gc: Gc::default(),
            log: Log::default(),
        }
    }
}

impl Default for Reactor {
    fn default() -> Self {
        Self {
            cores: vec![0],
            poll: PollMode::Adaptive,
            spin: Span(Duration::from_micros(50)),
            buffer_memory: ByteSize::mib(64),
        }
    }
}

impl Default for Iscsi {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3260),
            advertise: None,
            queue_depth: 128,
            max_sessions: 1024,
            command_memory: ByteSize::mib(64),
            low_space: 10,
            login_timeout: Span(Duration::from_secs(15)),
            nop_interval: Span(Duration::from_secs(10)),
            nop_timeout: Span(Duration::from_secs(10)),
            insecure_no_auth: false,
        }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            path: None,
            page_memory: ByteSize::mib(64),
        }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            max_iops: 2000,
            fill: true,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
        }
    }
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub data: Option<PathBuf>,
    pub cores: Option<Vec<u32>>,
    pub iscsi: Option<SocketAddr>,
    pub advertise: Option<Advertise>,
    pub admin: Option<PathBuf>,
    pub insecure_no_auth: bool,
}

impl Config {
    /// Reads `file`, if there is one, puts `overrides` over it, and checks the whole.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self> {
        let mut config = match file {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
                Self::parse(&text).map_err(|e| e.context(path.display()))?
            }
        };
        config.apply(overrides);
        config.check()?;
        Ok(config)
    }

    /// Reads the text of a configuration file; checks syntax, names and types only.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| explain::toml_error(text, &e))
    }

    fn apply(&mut self, overrides: Overrides) {
        let Overrides {
            data,
            cores,
            iscsi,
            advertise,
            admin,
            insecure_no_auth,
        } = overrides;
        self.data = data.unwrap_or_else(|| std::mem::take(&mut self.data));
        self.reactor.cores = cores.unwrap_or_else(|| std::mem::take(&mut self.reactor.cores));
        self.iscsi.listen = iscsi.unwrap_or(self.iscsi.listen);
        self.iscsi.advertise = advertise.or(self.iscsi.advertise);
        self.admin.socket = admin.or_else(|| self.admin.socket.take());
        self.iscsi.insecure_no_auth = insecure_no_auth;
    }

    /// Where the admin API listens.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin
            .socket
            .clone()
            .unwrap_or_else(|| self.data.join(ADMIN_SOCKET))
    }

    /// Where the metadata store is.
    pub fn metadata_path(&self) -> PathBuf {
        self.metadata
            .path
            .clone()
            .unwrap_or_else(|| self.data.join(METADATA_DIR))
    }

    /// Refuses what cannot work or is not allowed.
    fn check(&self) -> Result<()> {
        if self.data.as_os_str().is_empty() {
            return Err(Error::invalid("data: the path is empty"));
        }
        self.check_reactor()?;
        self.check_iscsi()?;
        in_range(
            "metadata.page_memory",
            self.metadata.page_memory,
            PAGE_MEMORY_RANGE,
        )?;
        in_range("gc.max_iops", self.gc.max_iops, GC_MAX_IOPS_RANGE)?;
        timeout("io_timeout", self.io_timeout)?;
        crate::log::filter(&self.log.level).map(drop)
    }

    fn check_reactor(&self) -> Result<()> {
        let reactor = &self.reactor;
        if reactor.cores.is_empty() {
            return Err(Error::invalid("reactor.cores: there must be at least one")
                .hint("cores = [0] runs on the first CPU"));
        }
        if reactor.cores.len() > MAX_CORES {
            return Err(Error::invalid(format!(
                "reactor.cores: at most {MAX_CORES}"
            )));
        }
        for (i, core) in reactor.cores.iter().enumerate() {
            if reactor.cores[..i].contains(core) {
                return Err(Error::invalid(format!(
                    "reactor.cores: {core} is named twice"
                )));
            }
        }
        if reactor.spin.0 > MAX_SPIN {
            return Err(Error::invalid(format!(
                "reactor.spin: at most {}, not {}",
                Span(MAX_SPIN),
                reactor.spin
            ))
            .hint("poll = \"always\" never sleeps"));
        }
        in_range(
            "reactor.buffer_memory",
            reactor.buffer_memory,
            BUFFER_MEMORY_RANGE,
        )
    }

    fn check_iscsi(&self) -> Result<()> {
        let iscsi = &self.iscsi;
        in_range("iscsi.queue_depth", iscsi.queue_depth, QUEUE_DEPTH_RANGE)?;
        in_range("iscsi.max_sessions", iscsi.max_sessions, MAX_SESSIONS_RANGE)?;
        in_range(
            "iscsi.command_memory",
            iscsi.command_memory,
            COMMAND_MEMORY_RANGE,
        )?;
        in_range("iscsi.low_space", iscsi.low_space, LOW_SPACE_RANGE)?;
        timeout("iscsi.login_timeout", iscsi.login_timeout)?;
        timeout("iscsi.nop_interval", iscsi.nop_interval)?;
        timeout("iscsi.nop_timeout", iscsi.nop_timeout)?;
        if !iscsi.listen.ip().to_canonical().is_loopback() && !iscsi.insecure_no_auth {
            return Err(Error::refused(format!(
                "iscsi.listen: {} is not a loopback address, and there is no access control: \
                 whoever reaches it could read and write every exported volume",
                iscsi.listen
            ))
            .hint("listen on 127.0.0.1, or add --insecure-no-auth where the network itself is trusted"));
        }
        Ok(())
    }
}

fn unreadable(path: &Path, why: &std::io::Error) -> Error {
    let kind = match why.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::InvalidData => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    Error::new(
        kind,
        format!("configuration file {}: {why}", path.display()),
    )
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    option: &str,
    value: T,
    (low, high): (T, T),
) -> Result<()> {
    if value < low || value > high {
        return Err(Error::invalid(format!(
            "{option}: {low} to {high}, not {value}"
        )));
    }
    Ok(())
}

fn timeout(option: &str, value: Span) -> Result<()> {
    in_range(
        option,
        value,
        (Span(TIMEOUT_RANGE.0), Span(TIMEOUT_RANGE.1)),
    )
}

#[cfg(test)]
mod tests;

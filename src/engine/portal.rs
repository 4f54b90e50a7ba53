//! Where initiators come in: the iSCSI server, in the words of the engine. Which volumes are
//! exported is the catalogue's business.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use atoll_mapper::format::LogicalBlock;
use atoll_mapper::{VolumeHandle, VolumeInfo};
use atoll_reactor::{CoreHandle, CoreId};
use atoll_targets::scsi::{BlockSize, ByteCount, ResourceId};
use atoll_targets::server::{
    ErrorKind as Below, IscsiServer, IscsiServerConfig, TargetSpec, TargetStats,
};

use crate::config::{Config, Iscsi};
use crate::error::{Error, ErrorKind, Result};

/// The name of this machine, as the kernel has it.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// A volume to be served.
pub struct Target {
    pub iqn: String,
    pub volume: VolumeHandle,
    pub info: VolumeInfo,
    pub read_only: bool,
}

impl Target {
    fn spec(self) -> TargetSpec {
        TargetSpec {
            iqn: self.iqn,
            volume: self.volume,
            resource: ResourceId(u128::from_be_bytes(self.info.id.0)),
            block_size: match self.info.row.block {
                LogicalBlock::Bytes512 => BlockSize::B512,
                LogicalBlock::Bytes4096 => BlockSize::B4096,
            },
            object_size: ByteCount(self.info.object_size.into()),
            read_only: self.read_only,
        }
    }
}

/// How many sessions are logged in.
#[derive(Debug, Default)]
pub struct Sessions {
    by_target: BTreeMap<String, u64>,
    by_core: BTreeMap<CoreId, u64>,
    /// Discovery sessions too.
    all: u64,
}

impl Sessions {
    /// Those of one target.
    pub fn of(&self, iqn: &str) -> u64 {
        self.by_target.get(iqn).copied().unwrap_or(0)
    }

    /// Those that a core serves.
    pub fn on(&self, core: CoreId) -> u64 {
        self.by_core.get(&core).copied().unwrap_or(0)
    }

    pub fn all(&self) -> u64 {
        self.all
    }
}

/// The server.
pub struct Portal {
    server: IscsiServer,
    /// Where initiators are told to come.
    reached_at: String,
}

impl Portal {
    /// Listens. No connection is taken before all targets are there: an initiator that comes back
    /// after a restart is never told that its target does not exist.
    pub async fn start(
        config: &Config,
        cores: &[CoreHandle],
        targets: Vec<Target>,
    ) -> Result<Self> {
        let iscsi = &config.iscsi;
        let server_config = IscsiServerConfig {
            listen: iscsi.listen,
            advertise: advertised(iscsi),
            queue_depth: iscsi.queue_depth,
            max_sessions: iscsi.max_sessions,
            command_memory: iscsi.command_memory.get(),
            low_space: iscsi.low_space,
            login_timeout: iscsi.login_timeout.0,
            nop_interval: iscsi.nop_interval.0,
            nop_timeout: iscsi.nop_timeout.0,
        };
        let targets = targets.into_iter().map(Target::spec).collect();
        let server = IscsiServer::start_with(cores.to_vec(), server_config, targets)
            .await
            .map_err(|error| match error.kind() {
                Below::Io => cannot_listen(&error, iscsi.listen),
                _ => from_server(&error),
            })?;
        let reached_at = reached_at(iscsi, server.local_addr());
        Ok(Self { server, reached_at })
    }

    /// What it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// `HOST:PORT` for initiators.
    pub fn reached_at(&self) -> String {
        self.reached_at.clone()
    }

    pub async fn add(&self, target: Target) -> Result<()> {
        let added = self.server.add_target(target.spec()).await;
        added.map_err(|error| from_server(&error))
    }

    /// Asks the target's sessions to log out, and ends them.
    pub async fn remove(&self, iqn: &str) -> Result<()> {
        let removed = self.server.remove_target(iqn).await;
        removed.map_err(|error| from_server(&error))
    }

    /// Tells the target's initiators that its volume has another size.
    pub async fn capacity_changed(&self, iqn: &str) -> Result<()> {
        let told = self.server.capacity_changed(iqn).await;
        told.map_err(|error| from_server(&error))
    }

    pub async fn sessions(&self) -> Result<Sessions> {
        let infos = self.server.sessions().await;
        let mut sessions = Sessions::default();
        for info in infos.map_err(|error| from_server(&error))? {
            sessions.all += 1;
            *sessions.by_core.entry(info.core).or_default() += 1;
            if let Some(target) = info.target {
                *sessions.by_target.entry(target).or_default() += 1;
            }
        }
        Ok(sessions)
    }

    /// What was done to a target; `None` if it is not served.
    pub async fn stats(&self, iqn: &str) -> Result<Option<TargetStats>> {
        match self.server.target_stats(iqn).await {
            Ok(stats) => Ok(Some(stats)),
            Err(error) if error.kind() == Below::NotFound => Ok(None),
            Err(error) => Err(from_server(&error)),
        }
    }

    /// Asks all sessions to log out, gives them `grace` for it, and ends the server.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        let ended = self.server.shutdown(grace).await;
        ended.map_err(|error| from_server(&error).context("ending the sessions"))
    }
}

/// Port 0, where any free one is listened on, is the server's to replace.
fn advertised(iscsi: &Iscsi) -> Vec<SocketAddr> {
    let advertise = iscsi.advertise.iter();
    advertise.map(|to| to.address(iscsi.listen)).collect()
}

fn reached_at(iscsi: &Iscsi, bound: SocketAddr) -> String {
    if let Some(advertise) = iscsi.advertise {
        return advertise.address(bound).to_string();
    }
    if bound.ip().is_unspecified()
        && let Ok(name) = std::fs::read_to_string(HOST_NAME)
    {
        return format!("{}:{}", name.trim(), bound.port());
    }
    bound.to_string()
}

fn cannot_listen(error: &atoll_targets::server::Error, listen: SocketAddr) -> Error {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let text = error.to_string();
    match cause.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::AddrInUse) => Error::in_use(text).hint(format!(
            "stop what listens on port {}, or name another one with --iscsi ADDR:PORT",
            listen.port()
        )),
        Some(std::io::ErrorKind::AddrNotAvailable) => {
            Error::invalid(text).hint("name an address of this machine with --iscsi ADDR:PORT")
        }
        Some(std::io::ErrorKind::PermissionDenied) => Error::refused(text)
            .hint("ports below 1024 are root's: name another one with --iscsi ADDR:PORT"),
        _ => Error::internal(text),
    }
}

fn from_server(error: &atoll_targets::server::Error) -> Error {
    let kind = match error.kind() {
        Below::NotFound => ErrorKind::NotFound,
        Below::AlreadyExists => ErrorKind::AlreadyExists,
        Below::Invalid => ErrorKind::Invalid,
        Below::Busy | Below::Closed => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

//! The iSCSI server: moves bytes between sockets, the pure cores (`iscsi`, `scsi`) and volumes. Which targets there are
//! is told by the control plane, through a handle that any thread may use.
//!
//! A connection is served wholly by one core. Nothing on the I/O path takes a lock or asks another core: each core has
//! its own list of targets. What is rare (logins, resets, the list of sessions) goes through the first core.
//!
//! **Invariant:** of an aborted command nothing begins at the store any more. A session's place is given free, and a task
//! management function answered, only after all that was begun has ended there; or, where a store does not answer, after
//! [`limits::ABORT_PATIENCE`]: the mapper then keeps the blocks, so that nothing lands over newer data.

mod commands;
mod compare;
mod config;
mod control;
mod dispatch;
mod error;
pub mod limits;
mod link;
mod login;
mod management;
mod memory;
mod registrar;
mod room;
mod session;
mod state;
mod steps;
mod tasks;
mod transmit;
mod volume;
mod wait;

pub use config::{Counters, IscsiServerConfig, SessionInfo, TargetSpec, TargetStats};
pub use error::{Error, ErrorKind, Result};

use atoll_reactor::{CoreHandle, RemoteError};
use state::{CoreState, Shared, closed, try_on_core};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A running iSCSI server. Clones are the same one; dropping them does not stop it.
///
/// Its calls may be awaited on any executor. Besides the errors named, all fail with `Busy` when the first core takes no
/// more work, and `Closed` when the server or the reactor has stopped.
#[derive(Clone)]
pub struct IscsiServer {
    shared: Arc<Shared>,
}

impl IscsiServer {
    /// Listens on the first of the cores and serves on all. Errors: `Io` if the address cannot be listened on,
    /// `Invalid` for no cores or a value out of its range.
    pub async fn start(cores: Vec<CoreHandle>, config: IscsiServerConfig) -> Result<IscsiServer> {
        IscsiServer::start_with(cores, config, Vec::new()).await
    }

    /// The same with targets: no connection is accepted before all are there, so that an initiator which comes back
    /// after a restart is not told that its target does not exist. Errors: those of [`IscsiServer::add_target`] too.
    pub async fn start_with(
        cores: Vec<CoreHandle>,
        config: IscsiServerConfig,
        targets: Vec<TargetSpec>,
    ) -> Result<IscsiServer> {
        config.validate()?;
        let Some(first) = cores.first().cloned() else {
            return Err(Error::new(ErrorKind::Invalid, "no cores to serve iSCSI on"));
        };
        let started = first
            .call(move || control::start(cores, config, targets))
            .await;
        let shared = started.map_err(|error| match error {
            RemoteError::Full => Error::with_source(ErrorKind::Busy, "the first core", error),
            RemoteError::Closed => closed(),
        })??;
        Ok(IscsiServer { shared })
    }

    /// What it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Serves a volume. When it returns initiators can log in. Errors: `AlreadyExists`, `Invalid` for a name or a size
    /// that no target can have, `Busy` while a target of that name is being removed.
    pub async fn add_target(&self, spec: TargetSpec) -> Result<()> {
        self.first(|first| control::add_target(first, spec)).await
    }

    /// Serves a volume no longer: new logins are refused, sessions are asked to log out and ended
    /// [`limits::REMOVE_GRACE`] later. When it returns no command of them begins anything on the volume any more, and none
    /// runs there but what the store does not answer. Errors: `NotFound`.
    pub async fn remove_target(&self, iqn: &str) -> Result<()> {
        let iqn = iqn.to_string();
        self.first(|first| control::remove_target(first, iqn)).await
    }

    /// Takes over the volume's present size: every session gets a unit attention. Errors: `NotFound`, `Invalid` for a
    /// volume without a whole block.
    pub async fn capacity_changed(&self, iqn: &str) -> Result<()> {
        let iqn = iqn.to_string();
        self.first(|first| async move { control::capacity_changed(&first, &iqn) })
            .await
    }

    /// The sessions in full feature phase, by their handles.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        self.first(control::sessions).await
    }

    /// Bytes that the connections of each core hold for commands under way.
    pub async fn command_memory(&self) -> Result<Vec<usize>> {
        self.first(control::command_memory).await
    }

    /// What was done to a target since it was added. Errors: `NotFound`.
    pub async fn target_stats(&self, iqn: &str) -> Result<TargetStats> {
        let iqn = iqn.to_string();
        self.first(|first| control::target_stats(first, iqn)).await
    }

    /// Ends the server. Sessions are asked to log out, and dropped when they have not after `grace`. When it returns
    /// no command runs on a volume any more but what a store does not answer. A second call fails with `Closed`.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        self.first(move |first| control::shutdown(first, grace))
            .await
    }

    async fn first<F, Fut, T>(&self, make: F) -> Result<T>
    where
        F: FnOnce(Rc<CoreState>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        try_on_core(&self.shared, 0, make).await?
    }
}

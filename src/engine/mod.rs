//! The engine: reactors, pools, maps and targets, composed. Not the control plane.

use std::sync::Arc;

use crate::api::FsckReport;
use crate::config::Config;
use crate::control::Control;
use crate::error::{Error, Result};

/// Starts everything that `config` names; the caller holds the data directory's lock.
pub fn start(_config: &Config) -> Result<Arc<dyn Control>> {
    Err(Error::internal("this build has no engine"))
}

/// Checks the stopped data directory that `config` names; the caller holds its lock.
pub fn fsck(_config: &Config) -> Result<FsckReport> {
    Err(Error::internal("this build has no engine"))
}

//! What the mapper keeps on each core: the core's access to the pools, its opened volumes, its
//! memory budget.

use crate::background::Background;
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Epochs;
use crate::meta::MetaStore;
use crate::pool::PoolContext;
use crate::types::{PoolNumber, ResourceId};
use crate::volume::outpost::Outposts;
use crate::volume::{Nodes, Volume};
use atoll_reactor::local;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct CoreState {
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) budget: Rc<Budget>,
    pub(crate) io_timeout: Duration,
    pub(crate) pools: RefCell<HashMap<PoolNumber, Rc<PoolContext>>>,
    pub(crate) nodes: Rc<Nodes>,
    pub(crate) background: Rc<Background>,
    /// Those whose home is this core.
    pub(crate) volumes: RefCell<HashMap<ResourceId, Rc<Volume>>>,
    /// Those of other cores that are used here.
    pub(crate) outposts: Outposts,
}

impl CoreState {
    pub(crate) fn pool(&self, number: PoolNumber) -> Result<Rc<PoolContext>> {
        self.pools
            .borrow()
            .get(&number)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Offline, format!("pool {number} is not open")))
    }

    /// Waits until all operations that run now on this core have ended, of every volume.
    pub(crate) async fn quiesce(&self) {
        let mut running: Vec<Rc<Epochs>> = {
            let volumes = self.volumes.borrow();
            volumes.values().map(|volume| volume.epochs()).collect()
        };
        running.extend(self.outposts.epochs());
        for epochs in running {
            epochs.quiesce().await;
        }
    }

    pub(crate) fn volume(&self, id: ResourceId) -> Result<Rc<Volume>> {
        self.volumes
            .borrow()
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Closed, format!("volume {id} is not open")))
    }
}

/// This core's state.
pub(crate) fn core_state() -> Result<Rc<CoreState>> {
    local().ok_or_else(|| Error::new(ErrorKind::Closed, "the mapper is not running on this core"))
}

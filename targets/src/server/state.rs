//! What the server keeps: once for all cores (plain values and handles), and once per core (its targets and
//! connections), so that the I/O path looks nothing up elsewhere and takes no lock.

use super::config::{Counters, IscsiServerConfig};
use super::error::{Error, ErrorKind, Result};
use super::limits;
use super::link::Link;
use super::memory::Memory;
use super::registrar::Registrar;
use super::room::NextLook;
use super::wait::Signal;
use crate::scsi::LogicalUnit;
use atoll_mapper::VolumeHandle;
use atoll_reactor::{CoreHandle, RemoteError, local, set_local, sleep};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Tells the servers of one process apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ServerId(u64);

/// One registration of a target: a target that was removed and added again is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TargetId(u64);

/// A connection of one core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkId(u64);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl TargetId {
    pub(super) fn fresh() -> TargetId {
        TargetId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
    }
}

/// What all cores know.
pub(super) struct Shared {
    id: ServerId,
    pub(super) config: IscsiServerConfig,
    pub(super) cores: Vec<CoreHandle>,
    /// What the listener is bound to.
    pub(super) listen: SocketAddr,
    /// Connections of each core, to find the least loaded one.
    connections: Vec<AtomicUsize>,
    logins: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        config: IscsiServerConfig,
        cores: Vec<CoreHandle>,
        listen: SocketAddr,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            id: ServerId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            config,
            connections: cores.iter().map(|_| AtomicUsize::new(0)).collect(),
            cores,
            listen,
            logins: AtomicUsize::new(0),
        })
    }

    pub(super) fn may_accept(&self) -> bool {
        self.logins.load(Ordering::Acquire) < limits::MAX_CONNECTIONS_IN_LOGIN
    }

    /// Counts a connection in, at the core that serves the fewest.
    pub(super) fn admit(self: &Arc<Self>) -> (usize, Place, LoginPlace) {
        let counts = self.connections.iter().enumerate();
        let least = counts.min_by_key(|(_, count)| count.load(Ordering::Relaxed));
        let core = least.map_or(0, |(core, _)| core);
        self.connections[core].fetch_add(1, Ordering::Relaxed);
        self.logins.fetch_add(1, Ordering::AcqRel);
        let place = Place {
            shared: self.clone(),
            core,
        };
        (core, place, LoginPlace(self.clone()))
    }
}

/// A connection's place at its core.
pub(super) struct Place {
    shared: Arc<Shared>,
    core: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections[self.core].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place among those in login.
pub(super) struct LoginPlace(Arc<Shared>);

impl Drop for LoginPlace {
    fn drop(&mut self) {
        self.0.logins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A served volume, the same for all cores.
pub(super) struct Target {
    pub(super) id: TargetId,
    pub(super) iqn: String,
    pub(super) unit: LogicalUnit,
    pub(super) volume: VolumeHandle,
    pub(super) next_look: NextLook,
}

/// One core's view of a target.
pub(super) struct LocalTarget {
    /// Bytes of the core's shared memory that its connections hold.
    pub(super) held: Cell<usize>,
    pub(super) target: Arc<Target>,
    pub(super) counters: RefCell<Counters>,
}

/// One core's part of the server.
pub(super) struct CoreState {
    pub(super) shared: Arc<Shared>,
    /// Place in `shared.cores`.
    pub(super) core: usize,
    pub(super) targets: RefCell<BTreeMap<String, Rc<LocalTarget>>>,
    pub(super) links: RefCell<BTreeMap<LinkId, Rc<Link>>>,
    /// For commands under way.
    pub(super) memory: Rc<Memory>,
    /// A link has gone.
    pub(super) changed: Signal,
    next_link: Cell<u64>,
    /// On the first core.
    pub(super) registrar: Option<Registrar>,
}

/// All servers' parts on this core.
#[derive(Default)]
struct Servers(RefCell<BTreeMap<ServerId, Rc<CoreState>>>);

impl CoreState {
    /// Makes this core's part. On that core.
    pub(super) fn install(shared: Arc<Shared>, core: usize) -> Rc<CoreState> {
        let id = shared.id;
        let memory = usize::try_from(shared.config.command_memory).unwrap_or(usize::MAX);
        let state = Rc::new(CoreState {
            memory: Rc::new(Memory::new(memory)),
            shared,
            core,
            targets: RefCell::default(),
            links: RefCell::default(),
            changed: Signal::default(),
            next_link: Cell::new(0),
            registrar: (core == 0).then(Registrar::default),
        });
        let servers = local::<Servers>().unwrap_or_else(|| {
            let servers = Rc::new(Servers::default());
            set_local(servers.clone());
            servers
        });
        servers.0.borrow_mut().insert(id, state.clone());
        state
    }

    /// Forgets this core's part of the server.
    pub(super) fn uninstall(&self) {
        if let Some(servers) = local::<Servers>() {
            servers.0.borrow_mut().remove(&self.shared.id);
        }
    }

    /// This core's part of a server.
    pub(super) fn of(shared: &Shared) -> Option<Rc<CoreState>> {
        CoreState::find(shared.id)
    }

    fn find(id: ServerId) -> Option<Rc<CoreState>> {
        local::<Servers>()?.0.borrow().get(&id).cloned()
    }

    pub(super) fn new_link_id(&self) -> LinkId {
        self.next_link.set(self.next_link.get() + 1);
        LinkId(self.next_link.get())
    }

    /// iSCSI names are compared in lower case (RFC 7143 §4.2.7.2).
    pub(super) fn target(&self, name: &str) -> Option<Rc<LocalTarget>> {
        let targets = self.targets.borrow();
        if let Some(target) = targets.get(name) {
            return Some(target.clone());
        }
        targets.get(&name.to_ascii_lowercase()).cloned()
    }

    /// The connections whose session uses the target, or all.
    pub(super) fn links_of(&self, target: Option<TargetId>) -> Vec<Rc<Link>> {
        let links = self.links.borrow();
        let used = |link: &&Rc<Link>| target.is_none() || link.target_id() == target;
        links.values().filter(used).cloned().collect()
    }

    /// Waits until no connection uses the target, or none is left.
    pub(super) async fn without_links_of(&self, target: Option<TargetId>) {
        self.changed
            .until(|| self.links_of(target).is_empty().then_some(()))
            .await;
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the iSCSI server has stopped")
}

/// Runs `make` on a core of the server, from another; waits for room in the core's inbox.
pub(super) async fn on_core<F, Fut, T>(shared: &Arc<Shared>, core: usize, make: F) -> Result<T>
where
    F: FnOnce(Rc<CoreState>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    loop {
        match try_on_core(shared, core, make.clone()).await {
            Err(error) if error.kind() == ErrorKind::Busy => sleep(limits::INBOX_RETRY).await,
            other => return other,
        }
    }
}

/// Runs `make` on a core of the server, from any thread. `Busy` when the core's inbox is full.
pub(super) async fn try_on_core<F, Fut, T>(shared: &Arc<Shared>, core: usize, make: F) -> Result<T>
where
    F: FnOnce(Rc<CoreState>) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let id = shared.id;
    let handle = &shared.cores[core];
    let call = handle.call(move || async move {
        match CoreState::find(id) {
            Some(state) => Some(make(state).await),
            None => None,
        }
    });
    match call.await {
        Ok(Some(value)) => Ok(value),
        Ok(None) | Err(RemoteError::Closed) => Err(closed()),
        Err(RemoteError::Full) => Err(Error::new(
            ErrorKind::Busy,
            format!("core {} is overloaded; try again", handle.id()),
        )),
    }
}

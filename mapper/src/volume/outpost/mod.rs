//! A volume on a core that is not its home: what of it is done here, and what its home asks of this
//! core. Reads by the map and whole-block writes to objects that are complete are done here, without
//! a word to anybody; everything else goes to the home core.
//!
//! **Invariant:** whatever is done here runs inside of the gate, which a fence closes, and of an
//! epoch, which deletions wait for; and the entry that it goes by was the map's after both began.

mod io;
mod pages;

use super::table::PageEntries;
use super::{Lease, VolumeShared};
use crate::budget::Budget;
use crate::core_state::{CoreState, core_state};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{ask, tell};
use crate::local::{Epochs, Gate, GateClosed, RangeLocks, WaitQueue};
use crate::pool::PoolContext;
use crate::types::{PageNo, PoolNumber, ResourceId};
use atoll_backends::{BlockRange, ObjectId, ObjectIndex};
use atoll_reactor::sync::Claims;
use atoll_reactor::{CoreHandle, Instant, core_id, cores, timeout_at};
use hashbrown::{HashMap, HashSet};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the home core gives to one that may use its volume.
pub(crate) struct Charter {
    pub(super) pool: PoolNumber,
    pub(super) claims: Arc<Claims>,
}

/// What is known once the home core has answered.
struct Admitted {
    pool: Rc<PoolContext>,
    claims: Arc<Claims>,
}

pub(crate) struct Outpost {
    me: Weak<Outpost>,
    id: ResourceId,
    home: CoreHandle,
    shared: Arc<VolumeShared>,
    admitted: OnceCell<Admitted>,
    gate: Rc<Gate>,
    epochs: Rc<Epochs>,
    locks: Rc<RangeLocks>,
    budget: Rc<Budget>,
    pages: RefCell<HashMap<PageNo, CachedPage>>,
    /// Objects written here that no flush has asked for.
    unsynced: RefCell<HashSet<ObjectId>>,
    /// `unsynced` is not empty; the home core looks at it.
    written: Arc<AtomicBool>,
    /// The fence that holds operations back, by its number.
    fence: RefCell<Option<(u64, GateClosed)>>,
    /// Fences up to this number are over.
    lifted: Cell<u64>,
}

struct CachedPage {
    entries: Arc<PageEntries>,
    used: Cell<bool>,
}

/// The outposts of a core.
#[derive(Default)]
pub(crate) struct Outposts {
    by_id: RefCell<HashMap<ResourceId, Rc<Outpost>>>,
    admissions: WaitQueue,
}

impl Outposts {
    /// This core's outpost of a volume whose home is another core. Asks the home core the first time.
    pub(crate) async fn get(
        &self,
        state: &CoreState,
        id: ResourceId,
        home: &CoreHandle,
        shared: &Arc<VolumeShared>,
    ) -> Result<Rc<Outpost>> {
        loop {
            let known = self.by_id.borrow().get(&id).cloned();
            let Some(outpost) = known else { break };
            if outpost.admitted.get().is_some() {
                return Ok(outpost);
            }
            // Another task has asked.
            let answered = || {
                let by_id = self.by_id.borrow();
                let waits = |outpost: &Rc<Outpost>| outpost.admitted.get().is_none();
                (!by_id.get(&id).is_some_and(waits)).then_some(())
            };
            self.admissions.until(answered).await;
        }
        // Before the home core knows of it: what it then asks finds somebody.
        let outpost = Outpost::new(id, home.clone(), shared.clone(), state.budget.clone());
        self.by_id.borrow_mut().insert(id, outpost.clone());
        let admitted = outpost.be_admitted(state).await;
        if admitted.is_err() {
            self.forget(id);
        }
        self.admissions.notify();
        admitted.map(|()| outpost)
    }

    /// What runs on each of them.
    pub(crate) fn epochs(&self) -> Vec<Rc<Epochs>> {
        let by_id = self.by_id.borrow();
        by_id
            .values()
            .map(|outpost| outpost.epochs.clone())
            .collect()
    }

    fn find(&self, id: ResourceId) -> Option<Rc<Outpost>> {
        self.by_id.borrow().get(&id).cloned()
    }

    fn forget(&self, id: ResourceId) -> Option<Rc<Outpost>> {
        self.by_id.borrow_mut().remove(&id)
    }
}

/// The outpost of this core, if there is one.
fn find(id: ResourceId) -> Option<Rc<Outpost>> {
    core_state().ok()?.outposts.find(id)
}

/// The home core takes what was written here since it last asked: every write that was answered.
pub(super) fn take_unsynced(id: ResourceId) -> Result<Vec<ObjectId>> {
    let Some(outpost) = find(id) else {
        return Ok(Vec::new());
    };
    outpost.written.store(false, Ordering::Release);
    Ok(outpost.unsynced.borrow_mut().drain().collect())
}

/// Waits until nothing that was begun here is at these blocks.
pub(super) async fn until_off(
    id: ResourceId,
    index: ObjectIndex,
    blocks: BlockRange,
    lease: Lease,
) -> Result<()> {
    if let Some(outpost) = find(id) {
        drop(lease.within(outpost.locks.lock(index, blocks)).await?);
    }
    Ok(())
}

/// Waits until what runs here now has ended.
pub(super) async fn quiesce(id: ResourceId) -> Result<()> {
    if let Some(outpost) = find(id) {
        outpost.epochs.quiesce().await;
    }
    Ok(())
}

/// A fence: answers when nothing runs here any more; nothing begins until it is lifted.
pub(super) async fn hold_back(id: ResourceId, number: u64, deadline: Instant) -> Result<()> {
    let Some(outpost) = find(id) else {
        return Ok(());
    };
    let closed = timeout_at(deadline, outpost.gate.close()).await;
    let closed = closed.map_err(|_| {
        Error::new(
            ErrorKind::Busy,
            format!("volume {id}: I/O on core {} goes on", core_id()),
        )
    })?;
    if outpost.lifted.get() < number {
        outpost.fence.replace(Some((number, closed)));
    }
    Ok(())
}

/// Holds back what would begin here; does not wait for what runs.
pub(super) fn hold(id: ResourceId, number: u64) -> Result<()> {
    let Some(outpost) = find(id) else {
        return Ok(());
    };
    let Some(closed) = outpost.gate.shut() else {
        let text = format!("volume {id}: core {} holds it back already", core_id());
        return Err(Error::new(ErrorKind::Busy, text));
    };
    if outpost.lifted.get() < number {
        outpost.fence.replace(Some((number, closed)));
    }
    Ok(())
}

/// The fence of this number is over, if it was complete or not.
pub(super) fn lift(id: ResourceId, number: u64) {
    let Some(outpost) = find(id) else { return };
    outpost.lifted.set(outpost.lifted.get().max(number));
    let over = |fence: &mut (u64, GateClosed)| fence.0 <= number;
    let fence = outpost.fence.borrow_mut().take_if(over);
    drop(fence);
}

/// The volume is closed.
pub(super) async fn dismiss(id: ResourceId) {
    let Ok(state) = core_state() else { return };
    if let Some(outpost) = state.outposts.forget(id) {
        // Who waits finds the volume closed.
        drop(outpost.fence.take());
    }
}

impl Outpost {
    fn new(
        id: ResourceId,
        home: CoreHandle,
        shared: Arc<VolumeShared>,
        budget: Rc<Budget>,
    ) -> Rc<Outpost> {
        Rc::new_cyclic(|me| Outpost {
            me: me.clone(),
            id,
            home,
            shared,
            admitted: OnceCell::new(),
            gate: Rc::default(),
            epochs: Rc::default(),
            locks: Rc::default(),
            budget,
            pages: RefCell::default(),
            unsynced: RefCell::default(),
            written: Arc::default(),
            fence: RefCell::default(),
            lifted: Cell::new(0),
        })
    }

    async fn be_admitted(&self, state: &CoreState) -> Result<()> {
        let (id, written) = (self.id, self.written.clone());
        let here = cores()[usize::from(core_id().0)].clone();
        let charter = ask(&self.home, move || {
            let (here, written) = (here.clone(), written.clone());
            async move { core_state()?.volume(id)?.admit(here, written).await }
        })
        .await?;
        let admitted = Admitted {
            pool: state.pool(charter.pool)?,
            claims: charter.claims,
        };
        self.admitted.get_or_init(|| admitted);
        Ok(())
    }

    fn admitted(&self) -> &Admitted {
        self.admitted.get().expect("given out after its admission")
    }

    /// Something of the object may have been written.
    fn wrote(&self, object: ObjectId) {
        self.unsynced.borrow_mut().insert(object);
        // Before the write is answered: a flush that is asked for after that sees it.
        if !self.written.swap(true, Ordering::AcqRel) {
            let id = self.id;
            tell(&self.home, move || async move {
                if let Ok(volume) = core_state().and_then(|state| state.volume(id)) {
                    volume.written_elsewhere();
                }
            });
        }
    }
}

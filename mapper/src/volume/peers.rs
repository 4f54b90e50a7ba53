//! The other cores that use a volume, as its home core sees them: who they are, and what all of them
//! are asked. What they do with the volume is in `outpost`.

use super::claiming::HomeClaims;
use super::outpost::{self, Charter};
use super::{Lease, Volume};
use crate::error::Result;
use crate::handle::{ask, tell};
use crate::local::{Epochs, GateClosed, join_all};
use crate::types::ResourceId;
use atoll_backends::{BlockRange, ObjectId, ObjectIndex};
use atoll_reactor::{CoreHandle, LocalFuture, cores, now, timeout_at};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A core that has an outpost of the volume.
#[derive(Clone)]
struct Peer {
    core: CoreHandle,
    /// It has written objects that no flush has asked for.
    written: Arc<AtomicBool>,
}

pub(super) struct Peers {
    volume: ResourceId,
    list: RefCell<Vec<Peer>>,
    /// Fences so far; each is known by its number.
    fences: Cell<u64>,
}

/// What runs on a volume, on every core.
pub(crate) struct Users {
    peers: Rc<Peers>,
    here: Rc<Epochs>,
}

/// Nothing runs on the volume, on any core, and nothing begins while this lives.
pub(super) struct Fence {
    peers: Rc<Peers>,
    number: u64,
    _here: GateClosed,
}

impl Peers {
    pub(super) fn new(volume: ResourceId) -> Rc<Peers> {
        Rc::new(Peers {
            volume,
            list: RefCell::default(),
            fences: Cell::new(0),
        })
    }

    pub(super) fn begin_fence(self: &Rc<Self>, here: GateClosed) -> Fence {
        let number = self.fences.get() + 1;
        self.fences.set(number);
        Fence {
            peers: self.clone(),
            number,
            _here: here,
        }
    }

    pub(super) fn cores(&self) -> Vec<CoreHandle> {
        let list = self.list.borrow();
        list.iter().map(|peer| peer.core.clone()).collect()
    }

    /// True if another core has written what no flush has asked it for.
    pub(super) fn have_written(&self) -> bool {
        let list = self.list.borrow();
        list.iter().any(|peer| peer.written.load(Ordering::Acquire))
    }

    /// The objects that other cores wrote and no flush has taken, of all writes that are answered;
    /// and whether all of them could be asked.
    pub(super) async fn take_written(&self) -> (Vec<ObjectId>, Result<()>) {
        let id = self.volume;
        let wrote = |peer: &&Peer| peer.written.load(Ordering::Acquire);
        let asked: Vec<_> = {
            let list = self.list.borrow();
            let asked = list.iter().filter(wrote).map(|peer| {
                let core = peer.core.clone();
                LocalFuture::new(async move {
                    ask(&core, move || async move { outpost::take_unsynced(id) }).await
                })
            });
            asked.collect()
        };
        let mut objects = Vec::new();
        let mut all = Ok(());
        for outcome in join_all(asked).await {
            match outcome {
                Ok(some) => objects.extend(some),
                Err(error) => all = Err(error),
            }
        }
        (objects, all)
    }

    /// Waits until no other core is at these blocks; none comes there any more.
    pub(super) async fn until_off(
        &self,
        index: ObjectIndex,
        blocks: BlockRange,
        lease: &Lease,
    ) -> Result<()> {
        let id = self.volume;
        let asked = self.cores().into_iter().map(|core| {
            let lease = lease.clone();
            LocalFuture::new(async move {
                ask(&core, move || outpost::until_off(id, index, blocks, lease)).await
            })
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Other cores forget the volume; it is closed.
    pub(super) fn dismiss(&self) {
        let id = self.volume;
        for peer in self.list.take() {
            tell(&peer.core, move || outpost::dismiss(id));
        }
    }
}

impl Fence {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Users {
    /// Waits until all operations that run now, on any core, have ended; later ones are not waited
    /// for.
    pub(crate) async fn quiesce(&self) -> Result<()> {
        let id = self.peers.volume;
        let mut waits = vec![LocalFuture::new(async {
            self.here.quiesce().await;
            Ok(())
        })];
        for core in self.peers.cores() {
            waits.push(LocalFuture::new(async move {
                ask(&core, move || outpost::quiesce(id)).await
            }));
        }
        join_all(waits).await.into_iter().collect()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let (id, number) = (self.peers.volume, self.number);
        for core in self.peers.cores() {
            tell(&core, move || async move { outpost::lift(id, number) });
        }
    }
}

impl Volume {
    /// Another core is going to use the volume. Waits while there is a fence.
    pub(crate) async fn admit(
        &self,
        core: CoreHandle,
        written: Arc<AtomicBool>,
    ) -> Result<Charter> {
        let _inside = self.gate.pass().await;
        self.check_open()?;
        let mut list = self.peers.list.borrow_mut();
        list.retain(|peer| peer.core.id() != core.id());
        list.push(Peer { core, written });
        Ok(Charter {
            pool: self.pool.number,
            claims: self.home_claims().words().clone(),
        })
    }

    /// Where this core takes its writes' places: needed as soon as there may be others.
    pub(super) fn home_claims(&self) -> &Rc<HomeClaims> {
        self.claims.get_or_init(HomeClaims::new)
    }

    /// The claims, unless this is the only core.
    pub(super) fn shared_claims(&self) -> Option<&Rc<HomeClaims>> {
        self.many_cores.then(|| self.home_claims())
    }

    /// Another core has written, for the first time since it was asked.
    pub(crate) fn written_elsewhere(&self) {
        self.changed();
    }

    /// What runs on the volume; who deletes objects waits for it (M8).
    pub(super) fn users(&self) -> Users {
        Users {
            peers: self.peers.clone(),
            here: self.epochs.clone(),
        }
    }

    /// Waits until nothing runs on the volume, on any core, and holds back what comes. One that is
    /// not complete in time is lifted: `Busy`, and everything goes on.
    pub(super) async fn fence(&self) -> Result<Fence> {
        let deadline = now() + self.io_timeout;
        let here = timeout_at(deadline, self.gate.close()).await;
        // From here on no core is admitted; dropped at any point, it lets all of them go on.
        let fence = self.peers.begin_fence(here.map_err(|_| self.busy())?);
        let (id, number) = (self.id, fence.number);
        let closings = self.peers.cores().into_iter().map(|core| {
            LocalFuture::new(async move {
                ask(&core, move || outpost::hold_back(id, number, deadline)).await
            })
        });
        let closed = timeout_at(deadline, join_all(closings)).await;
        match closed {
            Ok(outcomes) if outcomes.iter().all(|outcome| outcome.is_ok()) => Ok(fence),
            _ => Err(self.busy()),
        }
    }
}

/// True if volumes may be used by more cores than their home.
pub(super) fn many_cores() -> bool {
    cores().len() > 1
}

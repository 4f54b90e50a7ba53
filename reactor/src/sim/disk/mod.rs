//! The simulated disk: a POSIX file system on a medium with a volatile cache, which outlives the
//! simulations that use it. Operations take time, end in any order, and may be cut by a crash.

mod content;
mod faults;
mod inode;
mod ops;
mod posix;
mod space;
#[cfg(test)]
mod tests;
mod tree;

pub use faults::{DiskCall, DiskFault, DiskOp};
pub(super) use inode::OpenFile;

use super::config::DiskConfig;
use super::world::World;
use faults::Faults;
use inode::Inode;
use ops::{Cut, Work};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tree::Tree;

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Rc<Shared>,
}

struct Shared {
    config: RefCell<DiskConfig>,
    tree: RefCell<Tree>,
    faults: RefCell<Faults>,
    running: RefCell<BTreeMap<u64, Box<dyn Work>>>,
    next: Cell<u64>,
    attached: Cell<bool>,
}

impl SimDisk {
    /// An empty disk with a root directory.
    pub fn new(config: DiskConfig) -> SimDisk {
        assert!(
            config.atomic_unit.is_power_of_two() && (512..=4096).contains(&config.atomic_unit),
            "the atomic unit is a power of two from 512 to 4096"
        );
        SimDisk {
            shared: Rc::new(Shared {
                tree: RefCell::new(Tree::new(config.capacity)),
                config: RefCell::new(config),
                faults: RefCell::new(Faults::default()),
                running: RefCell::new(BTreeMap::new()),
                next: Cell::new(0),
                attached: Cell::new(false),
            }),
        }
    }

    pub fn config(&self) -> DiskConfig {
        self.shared.config.borrow().clone()
    }

    /// Changes the configuration, also of a running simulation. Operations that have begun keep
    /// their times.
    pub fn configure(&self, change: impl FnOnce(&mut DiskConfig)) {
        let mut config = self.shared.config.borrow_mut();
        change(&mut config);
        self.shared
            .tree
            .borrow()
            .space
            .set_capacity(config.capacity);
    }

    /// Asks `fault` before every operation what shall go wrong with it. Replaces the one before.
    pub fn inject(&self, fault: impl FnMut(&DiskCall<'_>) -> Option<DiskFault> + 'static) {
        self.shared.faults.borrow_mut().set(Box::new(fault));
    }

    /// Lets the `k`-th call of this kind from now on (from 1) fail so.
    pub fn inject_nth(&self, op: DiskOp, k: u64, fault: DiskFault) {
        let mut left = k;
        self.inject(move |call| {
            if call.op != op || left == 0 {
                return None;
            }
            left -= 1;
            (left == 0).then_some(fault)
        });
    }

    pub fn clear_faults(&self) {
        self.shared.faults.borrow_mut().clear();
    }

    /// Operations that have begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.running.borrow().len()
    }

    /// A file's content as processes would see it now, without taking time.
    pub fn peek(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.find(path)?;
        let content = inode.content()?.borrow();
        let len = usize::try_from(content.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        content.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Inverts the bytes of a range of a file, in memory and on the medium. Holes stay.
    pub fn corrupt(&self, path: &Path, offset: u64, len: u64) -> io::Result<()> {
        let inode = self.find(path)?;
        let mut content = inode.content()?.borrow_mut();
        content.corrupt(&(offset..offset.saturating_add(len)));
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<Rc<Inode>> {
        self.shared.tree.borrow().find(path)
    }

    pub(super) fn attach(&self) {
        let before = self.shared.attached.replace(true);
        assert!(!before, "a simulated disk is in one simulation at a time");
    }

    pub(super) fn detach(&self) {
        self.shared.attached.set(false);
    }

    fn lookup_fault(&self, call: &DiskCall<'_>) -> Option<DiskFault> {
        // Taken out meanwhile: the closure may call methods of this disk.
        let mut fault = self.shared.faults.borrow_mut().take()?;
        let found = fault(call);
        self.shared.faults.borrow_mut().put_back(fault);
        found
    }

    /// Begins an operation; the world's events drive it from here on.
    fn begin(&self, world: &Rc<World>, call: &DiskCall<'_>, mut work: Box<dyn Work>) {
        let config = self.config();
        let mut time = if world.chance(config.slow_probability) {
            world.draw(&config.slow)
        } else if call.op.is_sync() {
            world.draw(&config.sync_latency)
        } else {
            world.draw(&config.latency)
        };
        let mut fault = self.lookup_fault(call);
        if fault.is_none() && call.op.moves_content() && world.chance(config.error_probability) {
            fault = Some(DiskFault::Error(libc::EIO));
        }
        let id = self.shared.next.get();
        self.shared.next.set(id + 1);
        match fault {
            Some(DiskFault::Hang) => {
                self.shared.running.borrow_mut().insert(id, work);
                return;
            }
            Some(DiskFault::Delay(extra)) => time += extra,
            Some(DiskFault::Error(code)) => work.fail(code),
            None => {}
        }
        self.shared.running.borrow_mut().insert(id, work);
        let early = world.draw(&(Duration::ZERO..=time));
        let disk = self.clone();
        world.at(world.now() + early, move |world| {
            disk.take_effect(world, id)
        });
        let disk = self.clone();
        world.at(world.now() + time, move |world| disk.end(world, id));
    }

    fn take_effect(&self, world: &Rc<World>, id: u64) {
        let work = self.shared.running.borrow_mut().remove(&id);
        if let Some(mut work) = work {
            work.take_effect(
                &mut self.shared.tree.borrow_mut(),
                &mut world.rng.borrow_mut(),
            );
            self.shared.running.borrow_mut().insert(id, work);
        }
    }

    fn end(&self, world: &Rc<World>, id: u64) {
        let work = self.shared.running.borrow_mut().remove(&id);
        if let Some(work) = work {
            work.end(
                &mut self.shared.tree.borrow_mut(),
                &mut world.rng.borrow_mut(),
            )
            .wake();
        }
    }

    /// Ends everything that hangs; for tests of what happens when a late operation lands.
    pub(super) fn release_all(&self, world: &Rc<World>) {
        let ids: Vec<u64> = self.shared.running.borrow().keys().copied().collect();
        for id in ids {
            self.end(world, id);
        }
    }

    fn cut_all(&self, cut: Cut, rng: &mut ChaCha8Rng) {
        let mut works: Vec<Box<dyn Work>> = std::mem::take(&mut *self.shared.running.borrow_mut())
            .into_values()
            .collect();
        // They were on their way at once: no order among them.
        while !works.is_empty() {
            let mut work = works.swap_remove(rng.random_range(0..works.len()));
            work.cut(cut, &mut self.shared.tree.borrow_mut(), rng);
        }
    }

    /// Power loss: running operations are cut, unsynced state is lost as the seed wills.
    pub(super) fn lose_power(&self, rng: &mut ChaCha8Rng) {
        let unit = self.shared.config.borrow().atomic_unit;
        self.cut_all(Cut { unit }, rng);
        self.shared.tree.borrow_mut().crash(unit, rng);
    }

    /// The process is killed: what ended stays, what runs is cut at a page.
    pub(super) fn lose_process(&self, rng: &mut ChaCha8Rng) {
        self.cut_all(
            Cut {
                unit: content::BLOCK,
            },
            rng,
        );
    }
}

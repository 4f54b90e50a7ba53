//! The simulated driver: cores, clock, scheduling, network and disk in one thread, all from one seed.
//! The same code that runs on the ring runs here, and a failing seed fails again.

mod config;
mod disk;
pub(crate) mod fs;
pub(crate) mod net;
mod network;
#[cfg(test)]
mod tests;
mod world;

pub use config::{DiskConfig, NetConfig, SimConfig};
pub use disk::{DiskCall, DiskFault, DiskOp, SimDisk};
pub use network::SimNet;

use crate::buf::Pool;
use crate::core::{Core, CoreHandle, CoreId, CoreShared, Driver, JoinHandle, enter, with_core};
use crate::sync::Parker;
use crate::time::Instant;
use rand::Rng;
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use world::World;

pub(crate) struct SimDriver {
    world: Rc<World>,
    /// When the core looks at what others sent it, if they did.
    wake_at: Cell<Option<Instant>>,
}

impl SimDriver {
    pub(crate) fn now(&self) -> Instant {
        self.world.now()
    }
}

/// The world of the simulated core that this code runs on.
fn world() -> Rc<World> {
    with_core(|core| driver(core).world.clone())
}

fn driver(core: &Core) -> &SimDriver {
    match &core.driver {
        Driver::Sim(driver) => driver,
        Driver::Uring(_) => unreachable!("simulated calls are made on simulated cores"),
    }
}

/// A simulation of one or several cores, a disk and a network, in one thread.
///
/// Dropping it stops it like [`Sim::kill`].
pub struct Sim {
    world: Rc<World>,
    cores: Vec<Rc<Core>>,
    stopped: bool,
}

impl Sim {
    /// `cores` simulated cores with an empty disk; every choice is drawn from `seed`.
    pub fn new(seed: u64, cores: u16) -> Sim {
        Sim::with_config(seed, cores, SimConfig::default())
    }

    pub fn with_config(seed: u64, cores: u16, config: SimConfig) -> Sim {
        let disk = SimDisk::new(config.disk.clone());
        Sim::with_disk_and_config(seed, cores, disk, config)
    }

    /// With the disk of a simulation that ended.
    pub fn with_disk(seed: u64, cores: u16, disk: SimDisk) -> Sim {
        Sim::with_disk_and_config(seed, cores, disk, SimConfig::default())
    }

    /// `config.disk` is not looked at: the disk has its own.
    pub fn with_disk_and_config(seed: u64, cores: u16, disk: SimDisk, config: SimConfig) -> Sim {
        assert!(cores > 0, "a simulation has at least one core");
        disk.attach();
        let world = World::new(seed, config, disk);
        let cores: Vec<Rc<Core>> = (0..cores)
            .map(|id| {
                let shared = CoreShared::new(CoreId(id), Parker::none());
                let driver = Driver::Sim(SimDriver {
                    world: world.clone(),
                    wake_at: Cell::new(None),
                });
                Core::new(shared, driver, Pool::new(CoreId(id), 0))
            })
            .collect();
        let handles: Vec<CoreHandle> = cores.iter().map(|core| core.handle()).collect();
        for core in &cores {
            core.peers.borrow_mut().clone_from(&handles);
        }
        Sim {
            world,
            cores,
            stopped: false,
        }
    }

    pub fn handle(&self, core: CoreId) -> CoreHandle {
        self.core(core).handle()
    }

    fn core(&self, core: CoreId) -> &Rc<Core> {
        &self.cores[usize::from(core.0)]
    }

    /// The disk: for faults and for looking at it. It may be kept.
    pub fn disk(&self) -> SimDisk {
        self.world.disk.clone()
    }

    /// The network's faults.
    pub fn net(&self) -> SimNet {
        self.world.net.clone()
    }

    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// A hash of every step so far: equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace()
    }

    /// Starts a future on a core.
    pub fn spawn<T: 'static>(
        &self,
        core: CoreId,
        future: impl Future<Output = T> + 'static,
    ) -> JoinHandle<T> {
        let _entered = enter(self.core(core));
        crate::core::spawn(future)
    }

    /// Runs until the future, started on core 0, has ended. Panics if nothing can make progress.
    pub fn block_on<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let join = self.spawn(CoreId(0), future);
        self.join(join)
    }

    /// Runs until the task has ended. Panics if nothing can make progress.
    pub fn join<T: 'static>(&mut self, task: JoinHandle<T>) -> T {
        let mut task = pin!(task);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = task.as_mut().poll(&mut cx) {
                return value;
            }
            assert!(
                self.step(),
                "simulation stalled: no task is ready, no timer is set, no operation runs"
            );
        }
    }

    /// Up to `steps` steps; the number made, less if there was nothing left to do.
    pub fn run_steps(&mut self, steps: u64) -> u64 {
        (0..steps).take_while(|_| self.step()).count() as u64
    }

    /// Until no task is ready, no timer set and no operation under way.
    pub fn run_until_idle(&mut self) {
        while self.step() {}
    }

    /// For this much virtual time, or until there is nothing left to do.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() < end && self.step() {}
    }

    /// Ends disk operations that hang.
    pub fn release_disk(&self) {
        self.world.disk.release_all(&self.world);
    }

    /// One step: an event that is due, a ready task of some core, or the clock moves on.
    /// False when there is nothing to do.
    pub fn step(&mut self) -> bool {
        if self.world.run_event() {
            return true;
        }
        for core in &self.cores {
            self.take_in(core);
        }
        let ready: usize = self.cores.iter().map(|core| core.ready_len()).sum();
        if ready > 0 {
            self.run_ready(ready);
            return true;
        }
        let timers = self.cores.iter().filter_map(|core| {
            let timer = core.timers.borrow().next_deadline();
            timer.into_iter().chain(driver(core).wake_at.get()).min()
        });
        let next = timers.chain(self.world.next_event()).min();
        if let Some(at) = next {
            self.world.move_clock(at);
        }
        next.is_some()
    }

    /// Brings in what is due on a core: messages of others after their delay, timers.
    fn take_in(&self, core: &Rc<Core>) {
        let driver = driver(core);
        let now = self.world.now();
        match driver.wake_at.get() {
            None if core.shared.has_remote_work() => {
                let delay = self.world.draw(&self.world.config.wake);
                driver.wake_at.set(Some(now + delay));
            }
            Some(at) if at <= now => {
                driver.wake_at.set(None);
                let _entered = enter(core);
                core.drain_remote();
            }
            _ => {}
        }
        let _entered = enter(core);
        core.fire_timers();
    }

    fn run_ready(&self, ready: usize) {
        let mut pick = self.world.rng.borrow_mut().random_range(0..ready);
        self.world.note(pick as u64);
        for core in &self.cores {
            let len = core.ready_len();
            if pick < len {
                let _entered = enter(core);
                core.run_one(pick);
                break;
            }
            pick -= len;
        }
        let passed = self.world.draw(&self.world.config.step);
        self.world.move_clock(self.world.now() + passed);
    }

    fn close(&mut self) {
        self.world.halt();
        for core in &self.cores {
            let _entered = enter(core);
            core.close();
        }
        self.stopped = true;
        self.world.disk.detach();
    }

    /// Power loss at this very step: all tasks vanish, operations under way are applied wholly,
    /// in part or not at all, and what was not synced survives as the seed wills.
    pub fn crash(mut self) -> SimDisk {
        self.close();
        let disk = self.world.disk.clone();
        disk.lose_power(&mut self.world.rng.borrow_mut());
        disk
    }

    /// The process is killed: all tasks vanish, what was written stays, also if it was not synced;
    /// operations under way are applied wholly, in part or not at all.
    pub fn kill(mut self) -> SimDisk {
        self.close();
        let disk = self.world.disk.clone();
        disk.lose_process(&mut self.world.rng.borrow_mut());
        disk
    }

    /// An orderly end: disk operations under way end, then all tasks are dropped.
    pub fn stop(mut self) -> SimDisk {
        self.release_disk();
        self.close();
        self.world.disk.clone()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if !self.stopped {
            self.close();
            let disk = self.world.disk.clone();
            disk.lose_process(&mut self.world.rng.borrow_mut());
        }
    }
}

//! The simulated driver: cores, clock, scheduling, network and disk in one thread, all from one seed.
//! The same code that runs on the ring runs here, and a failing seed fails again.

pub(crate) mod fs;
pub(crate) mod net;

use crate::buf::Pool;
use crate::core::{Core, CoreHandle, CoreId, CoreShared, Driver, enter, spawn};
use crate::sync::Parker;
use crate::time::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What all cores of one simulation share.
pub(crate) struct World {
    now: Cell<Instant>,
    rng: RefCell<ChaCha8Rng>,
}

pub(crate) struct SimDriver {
    world: Rc<World>,
}

impl SimDriver {
    pub(crate) fn now(&self) -> Instant {
        self.world.now.get()
    }
}

/// A simulation of one or several cores.
pub struct Sim {
    world: Rc<World>,
    cores: Vec<Rc<Core>>,
}

impl Sim {
    /// `cores` simulated cores; every choice is drawn from `seed`.
    pub fn new(seed: u64, cores: u16) -> Sim {
        let world = Rc::new(World {
            now: Cell::new(Instant::from_nanos(1)),
            rng: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
        });
        let cores: Vec<Rc<Core>> = (0..cores)
            .map(|id| {
                let shared = CoreShared::new(CoreId(id), Parker::none());
                let driver = Driver::Sim(SimDriver {
                    world: world.clone(),
                });
                Core::new(shared, driver, Pool::new(CoreId(id), 0))
            })
            .collect();
        let handles: Vec<CoreHandle> = cores.iter().map(|core| core.handle()).collect();
        for core in &cores {
            core.peers.borrow_mut().clone_from(&handles);
        }
        Sim { world, cores }
    }

    pub fn handle(&self, core: CoreId) -> CoreHandle {
        self.cores[usize::from(core.0)].handle()
    }

    /// Runs until the future, started on core 0, has ended. Panics if nothing can make progress.
    pub fn block_on<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let mut join = {
            let _entered = enter(&self.cores[0]);
            pin!(spawn(future))
        };
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = join.as_mut().poll(&mut cx) {
                return value;
            }
            assert!(
                self.step(),
                "simulation stalled: no task is ready and no timer is set"
            );
        }
    }

    /// One step: a ready task of some core, or the clock moves to the next timer.
    /// False when there is nothing to do.
    pub fn step(&mut self) -> bool {
        let mut ready = 0;
        for core in &self.cores {
            let _entered = enter(core);
            core.drain_remote();
            core.fire_timers();
            ready += core.ready_len();
        }
        if ready > 0 {
            let mut pick = self.world.rng.borrow_mut().random_range(0..ready);
            for core in &self.cores {
                let len = core.ready_len();
                if pick < len {
                    let _entered = enter(core);
                    return core.run_one(pick);
                }
                pick -= len;
            }
        }
        let next = self
            .cores
            .iter()
            .filter_map(|core| core.timers.borrow().next_deadline())
            .min();
        if let Some(at) = next {
            self.world.now.set(at.max(self.world.now.get()));
        }
        next.is_some()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for core in &self.cores {
            let _entered = enter(core);
            core.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cores, sleep, spawn, timeout};
    use std::time::Duration;

    #[test]
    fn a_simulated_day_passes_at_once_and_calls_cross_cores() {
        let mut sim = Sim::new(1, 2);
        let before = std::time::Instant::now();
        let sum = sim.block_on(async {
            let sleeper = spawn(async {
                sleep(Duration::from_secs(86_400)).await;
                1
            });
            let other = cores()[1].call(|| async { crate::core_id().0 }).await;
            let late = timeout(Duration::from_secs(1), std::future::pending::<()>()).await;
            assert!(late.is_err());
            sleeper.await + other.expect("core 1 runs")
        });
        assert_eq!(sum, 2);
        assert!(before.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        fn order(seed: u64) -> Vec<u32> {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let mut sim = Sim::new(seed, 2);
            let out = seen.clone();
            sim.block_on(async move {
                let tasks: Vec<_> = (0..20)
                    .map(|number| {
                        let out = out.clone();
                        spawn(async move { out.borrow_mut().push(number) })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
            });
            seen.take()
        }
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }
}

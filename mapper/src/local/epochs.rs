//! Which operations began before a point of time, so that what they may still touch is not deleted
//! under them (M8).

use super::wait::WaitQueue;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Epochs {
    /// Running operations by the epoch they began in; the last is the present one.
    running: RefCell<VecDeque<usize>>,
    /// Epoch of `running[0]`.
    first: Cell<u64>,
    waiting: WaitQueue,
}

/// An operation that runs.
pub(crate) struct EpochGuard {
    epochs: Rc<Epochs>,
    epoch: u64,
}

impl Epochs {
    pub(crate) fn begin(self: &Rc<Epochs>) -> EpochGuard {
        let mut running = self.running.borrow_mut();
        if running.is_empty() {
            running.push_back(0);
        }
        let last = running.len() - 1;
        running[last] += 1;
        EpochGuard {
            epochs: self.clone(),
            epoch: self.first.get() + last as u64,
        }
    }

    /// Waits until all operations that run now have ended; later ones are not waited for.
    pub(crate) async fn quiesce(&self) {
        let next = {
            let mut running = self.running.borrow_mut();
            if running.is_empty() {
                running.push_back(0);
            }
            running.push_back(0);
            self.first.get() + running.len() as u64 - 1
        };
        self.retire();
        self.waiting
            .until(|| (self.first.get() >= next).then_some(()))
            .await;
    }

    /// Forgets epochs without operations, up to the present one.
    fn retire(&self) {
        let mut running = self.running.borrow_mut();
        let mut moved = false;
        while running.len() > 1 && running[0] == 0 {
            running.pop_front();
            self.first.set(self.first.get() + 1);
            moved = true;
        }
        drop(running);
        if moved {
            self.waiting.notify();
        }
    }
}

impl Drop for EpochGuard {
    fn drop(&mut self) {
        let place = usize::try_from(self.epoch - self.epochs.first.get()).expect("epochs are few");
        let empty = {
            let mut running = self.epochs.running.borrow_mut();
            running[place] -= 1;
            running[place] == 0
        };
        if empty && place == 0 {
            self.epochs.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::{sim::Sim, sleep, spawn};
    use std::time::Duration;

    #[test]
    fn older_operations_are_waited_for_and_younger_ones_are_not() {
        Sim::new(5, 1).block_on(async {
            let epochs = Rc::new(Epochs::default());
            epochs.quiesce().await;
            let old = epochs.begin();
            let ended = Rc::new(Cell::new(false));
            let (waiter, flag) = (epochs.clone(), ended.clone());
            let waiting = spawn(async move {
                waiter.quiesce().await;
                flag.set(true);
            });
            sleep(Duration::from_millis(1)).await;
            let young = epochs.begin();
            assert!(!ended.get());
            drop(old);
            waiting.await;
            drop(young);
            epochs.quiesce().await;
        });
    }
}

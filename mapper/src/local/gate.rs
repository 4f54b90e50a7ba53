//! A gate that operations pass and that a verb can close: closing waits until every operation
//! inside has ended and holds back new ones.

use super::wait::WaitQueue;
use std::cell::Cell;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Gate {
    closed: Cell<bool>,
    inside: Cell<usize>,
    waiting: WaitQueue,
}

/// An operation inside of the gate.
pub(crate) struct GatePass {
    gate: Rc<Gate>,
}

/// The gate is closed and empty while this lives.
pub(crate) struct GateClosed {
    gate: Rc<Gate>,
}

impl Gate {
    pub(crate) async fn pass(self: &Rc<Gate>) -> GatePass {
        if self.closed.get() {
            self.waiting
                .until(|| (!self.closed.get()).then_some(()))
                .await;
        }
        self.inside.set(self.inside.get() + 1);
        GatePass { gate: self.clone() }
    }

    /// Closes it without waiting for those inside; none if it is closed already.
    pub(crate) fn shut(self: &Rc<Gate>) -> Option<GateClosed> {
        let open = !self.closed.replace(true);
        open.then(|| GateClosed { gate: self.clone() })
    }

    pub(crate) async fn close(self: &Rc<Gate>) -> GateClosed {
        self.waiting
            .until(|| (!self.closed.replace(true)).then_some(()))
            .await;
        let closed = GateClosed { gate: self.clone() };
        self.waiting
            .until(|| (self.inside.get() == 0).then_some(()))
            .await;
        closed
    }

    #[cfg(test)]
    fn inside(&self) -> usize {
        self.inside.get()
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        let left = self.gate.inside.get() - 1;
        self.gate.inside.set(left);
        if left == 0 && self.gate.closed.get() {
            self.gate.waiting.notify();
        }
    }
}

impl Drop for GateClosed {
    fn drop(&mut self) {
        self.gate.closed.set(false);
        self.gate.waiting.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::{sim::Sim, sleep, spawn};
    use std::time::Duration;

    #[test]
    fn closing_waits_for_those_inside_and_holds_back_new_ones() {
        Sim::new(3, 1).block_on(async {
            let gate = Rc::new(Gate::default());
            let pass = gate.pass().await;
            let closer = gate.clone();
            let closing = spawn(async move {
                let closed = closer.close().await;
                assert_eq!(closer.inside(), 0);
                sleep(Duration::from_secs(1)).await;
                assert_eq!(closer.inside(), 0);
                drop(closed);
            });
            sleep(Duration::from_millis(1)).await;
            let late = gate.clone();
            let entering = spawn(async move { drop(late.pass().await) });
            sleep(Duration::from_millis(1)).await;
            assert_eq!(gate.inside(), 1);
            drop(pass);
            closing.await;
            entering.await;
        });
    }
}

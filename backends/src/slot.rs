//! A value that is out while somebody works on it: taken, changed in a synchronous closure, put
//! back. Never waited for in the kernel. Not a general lock: whoever finds it out lets others run.

use crossbeam::queue::ArrayQueue;

pub(crate) struct Slot<T> {
    place: ArrayQueue<Box<T>>,
}

/// Puts the value back, also when the closure panics.
struct Taken<'a, T> {
    slot: &'a Slot<T>,
    value: Option<Box<T>>,
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // The place holds one value, and this is the one.
            let _ = self.slot.place.push(value);
        }
    }
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Slot<T> {
        let place = ArrayQueue::new(1);
        let _ = place.push(Box::new(value));
        Slot { place }
    }

    fn take(&self) -> Option<Taken<'_, T>> {
        let value = self.place.pop()?;
        Some(Taken {
            slot: self,
            value: Some(value),
        })
    }

    fn run<R>(mut taken: Taken<'_, T>, f: impl FnOnce(&mut T) -> R) -> R {
        f(taken.value.as_mut().expect("taken until dropped"))
    }

    /// Works on the value; where another core has it, this core's other tasks run meanwhile.
    pub(crate) async fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(taken) = self.take() {
                return Slot::run(taken, f);
            }
            atoll_reactor::yield_now().await;
        }
    }

    /// The same where nothing can be awaited: on a test's thread, and when dropping. Closures are
    /// short, so the wait is.
    pub(crate) fn with_now<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(taken) = self.take() {
                return Slot::run(taken, f);
            }
            std::hint::spin_loop();
        }
    }
}

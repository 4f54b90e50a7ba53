//! A one-shot answer that may cross threads: neither side locks or blocks. Model-checked with loom.

#[cfg(all(test, loom))]
mod loom_tests;

use crate::sync::AtomicWaker;
use crate::sync::shim::{Arc, AtomicU8, Ordering, UnsafeCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

const EMPTY: u8 = 0;
const FULL: u8 = 1;
const CLOSED: u8 = 2;
const TAKEN: u8 = 3;

struct Slot<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
    waker: AtomicWaker,
}

// SAFETY: the value is written by the sender before FULL is published and read by the receiver
// after it saw FULL; never both at once.
unsafe impl<T: Send> Send for Slot<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Slot<T> {}

/// The sending half; dropping it unused closes the channel.
pub struct Sender<T> {
    slot: Option<Arc<Slot<T>>>,
}

/// The receiving half, a future.
pub struct Receiver<T> {
    slot: Arc<Slot<T>>,
}

/// The sender was dropped without sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answering side is gone")
    }
}

impl std::error::Error for Closed {}

pub fn channel<T: Send>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot {
        state: AtomicU8::new(EMPTY),
        value: UnsafeCell::new(None),
        waker: AtomicWaker::new(),
    });
    (
        Sender {
            slot: Some(slot.clone()),
        },
        Receiver { slot },
    )
}

impl<T> Sender<T> {
    /// Hands the value over; gives it back if the receiver is gone.
    pub fn send(mut self, value: T) -> Result<(), T> {
        let slot = self.slot.take().expect("a sender sends once");
        // SAFETY: only the sender leaves EMPTY for FULL, and the receiver touches the value after
        // that only.
        slot.value.with_mut(|place| unsafe { *place = Some(value) });
        let published =
            slot.state
                .compare_exchange(EMPTY, FULL, Ordering::AcqRel, Ordering::Acquire);
        if published.is_err() {
            // SAFETY: the receiver closed without taking; the value is still only ours.
            let back = slot.value.with_mut(|place| unsafe { (*place).take() });
            return back.map_or(Ok(()), Err);
        }
        slot.waker.wake();
        Ok(())
    }

    /// True if nobody waits for the answer any more.
    pub fn is_closed(&self) -> bool {
        self.slot
            .as_ref()
            .is_none_or(|slot| slot.state.load(Ordering::Acquire) == CLOSED)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let _ = slot
                .state
                .compare_exchange(EMPTY, CLOSED, Ordering::AcqRel, Ordering::Acquire);
            slot.waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Closed>> {
        let slot = &self.slot;
        if slot.state.load(Ordering::Acquire) == EMPTY {
            slot.waker.register(cx.waker());
        }
        match slot.state.load(Ordering::Acquire) {
            EMPTY => Poll::Pending,
            FULL => {
                slot.state.store(TAKEN, Ordering::Relaxed);
                // SAFETY: FULL was published by the sender after it wrote the value.
                let value = slot.value.with_mut(|place| unsafe { (*place).take() });
                Poll::Ready(value.ok_or(Closed))
            }
            _ => Poll::Ready(Err(Closed)),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let _ =
            self.slot
                .state
                .compare_exchange(EMPTY, CLOSED, Ordering::AcqRel, Ordering::Acquire);
    }
}

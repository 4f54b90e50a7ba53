//! Bounded mailboxes: many senders on any thread, one receiver on a core. A full mailbox refuses
//! or lets its senders wait, so that the source is slowed (R3); a send wakes the receiver only if
//! it waits. Neither side ever spins. Model-checked with loom.

#[cfg(all(test, loom))]
mod loom_tests;
mod ring;
#[cfg(all(test, not(loom)))]
mod tests;
mod waiters;

use crate::sync::AtomicWaker;
use crate::sync::shim::{Arc, AtomicBool, AtomicUsize, Ordering, fence};
use ring::Ring;
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use waiters::Waiters;

/// How often a sender tries again that found every waiting place taken.
const CROWDED_RETRY: Duration = Duration::from_millis(1);

struct Shared<T> {
    ring: Ring<T>,
    receiver: AtomicWaker,
    waiters: Waiters,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
    /// Someone empties the ring of a mailbox without receiver.
    emptying: AtomicBool,
}

/// Sends from any thread. Clones send to the same mailbox.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Receives, on one core at a time.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// Why a message was not taken; it is given back.
pub enum SendError<T> {
    Full(T),
    Closed(T),
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => "Full(..)",
            SendError::Closed(_) => "Closed(..)",
        })
    }
}

/// A mailbox for at most `capacity` messages that were not received yet. Panics for none.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        ring: Ring::new(capacity),
        receiver: AtomicWaker::new(),
        waiters: Waiters::new(),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
        emptying: AtomicBool::new(false),
    });
    (
        Sender {
            shared: shared.clone(),
        },
        Receiver { shared },
    )
}

impl<T> Shared<T> {
    /// Drops what is in the ring once the receiver is gone. Messages may hold answers that
    /// somebody waits for, so they must not stay until the last sender goes.
    fn empty(&self) {
        while !self.emptying.swap(true, Ordering::AcqRel) {
            // SAFETY: the receiver takes nothing any more, and `emptying` is ours.
            while unsafe { self.ring.pop() }.is_some() {}
            // Whoever saw it taken pushed before: seen by the look below.
            self.emptying.swap(false, Ordering::AcqRel);
            if !self.ring.is_ready() {
                break;
            }
        }
    }
}

impl<T: Send> Sender<T> {
    /// Never waits; callable from any thread.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        let shared = &self.shared;
        if shared.receiver_gone.load(Ordering::Acquire) {
            return Err(SendError::Closed(message));
        }
        shared.ring.push(message).map_err(SendError::Full)?;
        // Pairs with the fence in the receiver's drop: it finds the message, or we see it gone.
        fence(Ordering::SeqCst);
        if shared.receiver_gone.load(Ordering::Relaxed) {
            shared.empty();
        }
        shared.receiver.wake();
        Ok(())
    }

    /// Waits for room, without using a processor meanwhile. The error is always `Closed`.
    /// On a reactor core only.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = match self.try_send(message) {
            Err(SendError::Full(back)) => Some(back),
            done => return done,
        };
        let mut place = None;
        loop {
            if place.is_none() {
                place = self.shared.waiters.place();
            }
            match &mut place {
                Some(place) => {
                    return poll_fn(|cx| place.poll(cx, || self.attempt(&mut message))).await;
                }
                None => crate::sleep(CROWDED_RETRY).await,
            }
        }
    }

    /// Sends what is in `message`; `None` puts it back: there is no room.
    fn attempt(&self, message: &mut Option<T>) -> Option<Result<(), SendError<T>>> {
        match self.try_send(message.take()?) {
            Err(SendError::Full(back)) => {
                *message = Some(back);
                None
            }
            done => Some(done),
        }
    }

    /// True if the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender {
            shared: self.shared.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.receiver.wake();
        }
    }
}

impl<T: Send> Receiver<T> {
    pub fn try_recv(&mut self) -> Option<T> {
        // SAFETY: there is one receiver, here borrowed uniquely.
        let message = unsafe { self.shared.ring.pop() };
        if message.is_some() {
            self.shared.waiters.wake_one();
        }
        message
    }

    /// The next message; `None` when it is empty and every sender is gone.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(message) = self.try_recv() {
                return Poll::Ready(Some(message));
            }
            self.shared.receiver.register(cx.waker());
            // Looked at before the ring: what the last sender sent is seen then.
            let gone = self.shared.senders.load(Ordering::Acquire) == 0;
            match self.try_recv() {
                Some(message) => Poll::Ready(Some(message)),
                None if gone => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.shared.empty();
        self.shared.waiters.wake_all();
    }
}

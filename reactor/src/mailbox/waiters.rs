//! Senders that wait for room in a full mailbox: a fixed number of places, woken one per message
//! taken. A wake-up that its sender does not need is passed on, so that none is lost.

use crate::sync::AtomicWaker;
use crate::sync::shim::{AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

/// Senders that can wait at once; more try again by timer.
pub(super) const PLACES: usize = if cfg!(loom) { 2 } else { 32 };

pub(super) struct Waiters {
    /// Places that a sender has.
    taken: AtomicU64,
    /// Places whose sender is to be woken.
    armed: AtomicU64,
    /// The place to look at first, so that each gets its turn.
    turn: AtomicUsize,
    wakers: [AtomicWaker; PLACES],
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        Waiters {
            taken: AtomicU64::new(0),
            armed: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            wakers: std::array::from_fn(|_| AtomicWaker::new()),
        }
    }

    /// A place to wait at, if one is free.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let index = (!taken).trailing_zeros() as usize;
            if index >= PLACES {
                return None;
            }
            let with = taken | 1 << index;
            // Acquire: the place's waker was left by who had it before.
            match self.taken.compare_exchange_weak(
                taken,
                with,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Some(Place {
                        waiters: self,
                        index,
                        armed: false,
                    });
                }
                Err(now) => taken = now,
            }
        }
    }

    /// Room was made for one: wakes one sender if any waits.
    pub(super) fn wake_one(&self) {
        // Pairs with the fence in `arm`: the sender sees the room, or we see it waiting.
        fence(Ordering::SeqCst);
        loop {
            let armed = self.armed.load(Ordering::Relaxed);
            if armed == 0 {
                return;
            }
            let turn = self.turn.load(Ordering::Relaxed) % PLACES;
            let later = armed & (u64::MAX << turn);
            let from = if later == 0 { armed } else { later };
            let index = from.trailing_zeros() as usize;
            if self.disarm(index) {
                self.turn.store(index + 1, Ordering::Relaxed);
                self.wakers[index].wake();
                return;
            }
        }
    }

    pub(super) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        let armed = self.armed.swap(0, Ordering::AcqRel);
        for (index, waker) in self.wakers.iter().enumerate() {
            if armed & 1 << index != 0 {
                waker.wake();
            }
        }
    }

    /// True if it was armed.
    fn disarm(&self, index: usize) -> bool {
        let bit = 1 << index;
        self.armed.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

/// A sender's place.
pub(super) struct Place<'a> {
    waiters: &'a Waiters,
    index: usize,
    armed: bool,
}

impl Place<'_> {
    /// Tries; waits for a wake-up if that gave nothing.
    pub(super) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Option<R>,
    ) -> Poll<R> {
        // A wake-up that came stands for the room that is used here.
        self.take_wake_up();
        if let Some(done) = attempt() {
            return Poll::Ready(done);
        }
        self.arm(cx.waker());
        attempt().map_or(Poll::Pending, Poll::Ready)
    }

    /// From now on a wake-up may come; the sender looks for room again after this.
    fn arm(&mut self, waker: &Waker) {
        self.waiters.wakers[self.index].register(waker);
        self.waiters
            .armed
            .fetch_or(1 << self.index, Ordering::AcqRel);
        self.armed = true;
        fence(Ordering::SeqCst);
    }

    /// True if a wake-up came since `arm`, which the sender now uses or passes on.
    fn take_wake_up(&mut self) -> bool {
        std::mem::take(&mut self.armed) && !self.waiters.disarm(self.index)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.take_wake_up() {
            self.waiters.wake_one();
        }
        let rest = !(1 << self.index);
        self.waiters.taken.fetch_and(rest, Ordering::Release);
    }
}

//! The bound on operations in flight: what comes beyond it waits its turn, first come, first
//! served, and a waiter that is dropped passes its turn on.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

enum Waiter {
    Waiting(Waker),
    /// May go on; a place is kept for it.
    Granted,
    /// Was dropped; its number is still in the line.
    Gone,
}

pub(super) struct Room {
    limit: usize,
    in_flight: Cell<usize>,
    /// Places kept for waiters that did not go on yet.
    granted: Cell<usize>,
    waiters: RefCell<Slab<Waiter>>,
    line: RefCell<VecDeque<usize>>,
}

impl Room {
    pub(super) fn new(limit: usize) -> Room {
        Room {
            limit,
            in_flight: Cell::new(0),
            granted: Cell::new(0),
            waiters: RefCell::new(Slab::new()),
            line: RefCell::new(VecDeque::new()),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// An operation was begun. What comes with [`enter`] does so in the same breath.
    pub(super) fn began(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(super) fn ended(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.pass_on();
    }

    fn has_place(&self) -> bool {
        self.in_flight.get() + self.granted.get() < self.limit
    }

    /// Gives free places to those that waited longest.
    fn pass_on(&self) {
        while self.has_place() {
            let Some(first) = self.line.borrow_mut().pop_front() else {
                return;
            };
            let mut waiters = self.waiters.borrow_mut();
            match std::mem::replace(&mut waiters[first], Waiter::Granted) {
                Waiter::Waiting(waker) => {
                    drop(waiters);
                    self.granted.set(self.granted.get() + 1);
                    waker.wake();
                }
                Waiter::Gone => drop(waiters.remove(first)),
                Waiter::Granted => unreachable!("a waiter is in the line once"),
            }
        }
    }

    fn poll(&self, known: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiters = self.waiters.borrow_mut();
        let Some(number) = *known else {
            let mut line = self.line.borrow_mut();
            if line.is_empty() && self.has_place() {
                return Poll::Ready(());
            }
            let number = waiters.insert(Waiter::Waiting(cx.waker().clone()));
            line.push_back(number);
            *known = Some(number);
            return Poll::Pending;
        };
        match &mut waiters[number] {
            Waiter::Waiting(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Waiter::Granted => {
                waiters.remove(number);
                self.granted.set(self.granted.get() - 1);
                *known = None;
                Poll::Ready(())
            }
            Waiter::Gone => unreachable!("the waiter is here"),
        }
    }
}

/// Waits for a place; it is taken with [`Room::began`] before anything else is awaited.
pub(super) fn enter(room: Rc<Room>) -> Enter {
    Enter { room, number: None }
}

pub(super) struct Enter {
    room: Rc<Room>,
    number: Option<usize>,
}

impl Future for Enter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.room.poll(&mut this.number, cx)
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut waiters = self.room.waiters.borrow_mut();
        if matches!(waiters[number], Waiter::Granted) {
            waiters.remove(number);
            drop(waiters);
            self.room.granted.set(self.room.granted.get() - 1);
            self.room.pass_on();
        } else {
            waiters[number] = Waiter::Gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_enter(waiting: &mut Enter) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(waiting).poll(&mut cx).is_ready()
    }

    #[test]
    fn waiters_go_in_line_and_those_that_are_dropped_pass_their_turn_on() {
        let room = Rc::new(Room::new(2));
        for _ in 0..2 {
            assert!(try_enter(&mut enter(room.clone())));
            room.began();
        }
        let mut line: Vec<Enter> = (0..4).map(|_| enter(room.clone())).collect();
        for waiting in &mut line {
            assert!(!try_enter(waiting));
        }
        drop(line.remove(1));
        room.ended();
        assert!(!try_enter(&mut line[1]), "the first has the place");
        assert!(
            !try_enter(&mut enter(room.clone())),
            "no one jumps the line"
        );
        drop(line.remove(0));
        assert!(try_enter(&mut line[0]), "the turn was passed on");
        room.began();
        assert!(!try_enter(&mut line[1]));
        room.ended();
        room.ended();
        assert!(try_enter(&mut line[1]));
        drop(line);
        assert_eq!(room.in_flight(), 0);
        assert!(try_enter(&mut enter(room.clone())));
        assert!(room.waiters.borrow().is_empty() && room.line.borrow().is_empty());
    }
}

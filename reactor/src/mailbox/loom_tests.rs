//! Interleavings of senders and the receiver of small mailboxes: all of them where that is
//! feasible, else those with a bounded number of preemptions.

use super::waiters::Waiters;
use super::{SendError, channel};
use crate::oneshot;
use crate::sync::shim::{Arc, AtomicUsize, Ordering};
use loom::future::block_on;
use loom::model::Builder;
use loom::thread;
use std::future::poll_fn;
use std::task::{Context, Waker};

fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 5_000;
    builder.check(model);
}

#[test]
fn loom_every_message_arrives_once_and_then_the_end() {
    bounded(2, || {
        let (sender, mut receiver) = channel(2);
        let sides: Vec<_> = (0..2)
            .map(|number| {
                let sender = sender.clone();
                thread::spawn(move || sender.try_send(number).expect("has room"))
            })
            .collect();
        drop(sender);
        block_on(async {
            let first = receiver.recv().await.expect("one");
            let second = receiver.recv().await.expect("two");
            assert_eq!(first + second, 1);
            assert_eq!(receiver.recv().await, None);
        });
        for side in sides {
            side.join().expect("ends");
        }
    });
}

#[test]
fn loom_a_receiver_that_sleeps_is_woken_and_a_full_mailbox_refuses() {
    bounded(3, || {
        let (sender, mut receiver) = channel(1);
        let side = thread::spawn(move || {
            sender.try_send(1).expect("has room");
            matches!(sender.try_send(2), Err(SendError::Full(2)))
        });
        let mut got = Vec::new();
        block_on(async {
            while let Some(number) = receiver.recv().await {
                got.push(number);
            }
        });
        let refused = side.join().expect("ends");
        assert_eq!(got, if refused { vec![1] } else { vec![1, 2] });
    });
}

#[test]
fn loom_a_sender_that_waits_for_room_gets_it() {
    bounded(2, || {
        let (sender, mut receiver) = channel(1);
        let side = thread::spawn(move || {
            block_on(async {
                for number in 0..3 {
                    sender.send(number).await.expect("open");
                }
            });
        });
        block_on(async {
            for number in 0..3 {
                assert_eq!(receiver.recv().await, Some(number));
            }
            assert_eq!(receiver.recv().await, None);
        });
        side.join().expect("ends");
    });
}

/// Room for a number of messages, and those who wait for it.
struct Rooms {
    free: AtomicUsize,
    waiters: Waiters,
}

impl Rooms {
    fn none() -> Arc<Rooms> {
        Arc::new(Rooms {
            free: AtomicUsize::new(0),
            waiters: Waiters::new(),
        })
    }

    fn try_take(&self) -> Option<()> {
        let taken = self
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                free.checked_sub(1)
            });
        taken.ok().map(drop)
    }

    fn give(&self) {
        self.free.fetch_add(1, Ordering::Release);
        self.waiters.wake_one();
    }

    fn wait(&self) {
        let mut place = self.waiters.place().expect("a place for each");
        block_on(poll_fn(|cx| place.poll(cx, || self.try_take())));
    }
}

#[test]
fn loom_two_that_wait_for_room_both_get_it() {
    bounded(2, || {
        let rooms = Rooms::none();
        let sides: Vec<_> = (0..2)
            .map(|_| {
                let rooms = rooms.clone();
                thread::spawn(move || rooms.wait())
            })
            .collect();
        rooms.give();
        rooms.give();
        for side in sides {
            side.join().expect("ends");
        }
    });
}

#[test]
fn loom_one_that_gives_up_passes_its_wake_up_on() {
    bounded(2, || {
        let rooms = Rooms::none();
        let patient = rooms.clone();
        let patient = thread::spawn(move || patient.wait());
        let hasty = rooms.clone();
        let hasty = thread::spawn(move || {
            let mut cx = Context::from_waker(Waker::noop());
            let mut place = hasty.waiters.place().expect("a place for each");
            let got = place.poll(&mut cx, || hasty.try_take()).is_ready();
            drop(place);
            if got {
                hasty.give();
            }
        });
        rooms.give();
        patient.join().expect("ends");
        hasty.join().expect("ends");
    });
}

#[test]
fn loom_a_message_to_a_receiver_that_leaves_is_dropped_at_once() {
    bounded(2, || {
        let (sender, receiver) = channel(2);
        let (answer, question) = oneshot::channel::<u8>();
        let side = thread::spawn(move || drop(receiver));
        let sent = sender.try_send(answer);
        if let Err(SendError::Closed(answer)) = sent {
            drop(answer);
        }
        // The sender lives: only emptying the mailbox drops the answer.
        assert_eq!(block_on(question), Err(oneshot::Closed));
        side.join().expect("ends");
        drop(sender);
    });
}

#[test]
fn loom_a_sender_that_waits_ends_when_the_receiver_leaves() {
    bounded(2, || {
        let (sender, receiver) = channel(1);
        sender.try_send(0).expect("has room");
        let side = thread::spawn(move || drop(receiver));
        // It may still have gone to the receiver's last moment; what counts is that it ends.
        match block_on(sender.send(1)) {
            Ok(()) | Err(SendError::Closed(1)) => {}
            Err(other) => panic!("{other:?}"),
        }
        side.join().expect("ends");
        assert!(sender.is_closed());
    });
}

//! Every interleaving of the two sides of a one-shot channel.

use super::{Closed, channel};
use loom::future::block_on;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts its drops, outside of the model.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn loom_a_waiting_receiver_gets_the_value() {
    loom::model(|| {
        let (sender, receiver) = channel();
        let side = thread::spawn(move || sender.send(7).expect("waited for"));
        assert_eq!(block_on(receiver), Ok(7));
        side.join().expect("ends");
    });
}

#[test]
fn loom_a_waiting_receiver_learns_that_the_sender_left() {
    loom::model(|| {
        let (sender, receiver) = channel::<u8>();
        let side = thread::spawn(move || drop(sender));
        assert_eq!(block_on(receiver), Err(Closed));
        side.join().expect("ends");
    });
}

#[test]
fn loom_a_value_is_dropped_once_when_the_receiver_leaves() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = channel();
        let value = Counted(drops.clone());
        let side = thread::spawn(move || drop(sender.send(value)));
        drop(receiver);
        side.join().expect("ends");
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn loom_a_receiver_that_leaves_after_a_poll_races_with_the_value() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (sender, mut receiver) = channel();
        let value = Counted(drops.clone());
        let side = thread::spawn(move || {
            if sender.is_closed() {
                drop(sender);
            } else {
                drop(sender.send(value));
            }
        });
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = std::future::Future::poll(std::pin::Pin::new(&mut receiver), &mut cx);
        drop(receiver);
        side.join().expect("ends");
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

//! Mailboxes on real threads and in a simulation.

use super::{SendError, channel};
use crate::sim::Sim;
use crate::{CoreId, cores, spawn, yield_now};
use std::cell::Cell;
use std::rc::Rc;

#[test]
fn a_full_mailbox_refuses_and_gives_the_message_back() {
    for capacity in [1, 2, 3, 7] {
        let (sender, mut receiver) = channel(capacity);
        for lap in 0..5 {
            for number in 0..capacity {
                sender.try_send(lap * 100 + number).expect("has room");
            }
            assert!(matches!(sender.try_send(999), Err(SendError::Full(999))));
            for number in 0..capacity {
                assert_eq!(receiver.try_recv(), Some(lap * 100 + number));
            }
            assert_eq!(receiver.try_recv(), None);
        }
    }
}

#[test]
fn threads_that_are_no_reactors_send_each_message_once_in_order() {
    const EACH: usize = 20_000;
    let (sender, mut receiver) = channel(64);
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..EACH {
                    let mut message = (thread, number);
                    while let Err(SendError::Full(back)) = sender.try_send(message) {
                        message = back;
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let mut next = [0; 3];
    while next != [EACH; 3] {
        if let Some((thread, number)) = receiver.try_recv() {
            assert_eq!(number, next[thread]);
            next[thread] += 1;
        } else {
            std::thread::yield_now();
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("ends"));
}

#[test]
fn more_senders_than_places_all_get_through_and_idle_takes_no_step() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed, 2);
        let (sender, mut receiver) = channel(2);
        let sent = Rc::new(Cell::new(0));
        for number in 0..100 {
            let (sender, sent) = (sender.clone(), sent.clone());
            drop(sim.spawn(CoreId(0), async move {
                sender.send(number).await.expect("open");
                sent.set(sent.get() + 1);
            }));
        }
        drop(sender);
        // Nobody receives: two fit, those at a place cost nothing, the others look by timer.
        sim.run_steps(5_000);
        assert_eq!(sent.get(), 2);
        let total = sim.block_on(async move {
            let mut total = 0;
            while let Some(number) = receiver.recv().await {
                total += number;
            }
            total
        });
        assert_eq!((sent.get(), total), (100, 4950));
    }
}

#[test]
fn a_waiting_sender_takes_no_step() {
    let mut sim = Sim::new(1, 1);
    let (sender, receiver) = channel(1);
    drop(sim.spawn(CoreId(0), async move {
        sender.send(1).await.expect("open");
        sender.send(2).await.expect_err("nobody receives");
    }));
    sim.run_until_idle();
    drop(receiver);
    sim.run_until_idle();
}

#[test]
fn messages_cross_cores() {
    let mut sim = Sim::new(3, 2);
    let sum = sim.block_on(async {
        let (sender, mut receiver) = channel(4);
        cores()[1]
            .spawn(move || async move {
                for number in 0..50 {
                    sender.send(number).await.expect("open");
                    yield_now().await;
                }
            })
            .expect("room");
        let receiving = spawn(async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                sum += number;
            }
            sum
        });
        receiving.await
    });
    assert_eq!(sum, 1225);
}

//! Every interleaving of waking and going to sleep, and of claiming a place.

use super::shim::{Arc, AtomicUsize, Ordering, UnsafeCell};
use super::{AtomicWaker, Claims, Parker};
use crate::CoreId;
use loom::future::block_on;
use loom::thread;
use std::future::poll_fn;
use std::task::Poll;

fn signals(parker: &Parker) -> usize {
    let event = parker.event.as_ref().expect("made with an event");
    event.signals.load(Ordering::Acquire)
}

#[test]
fn loom_a_task_that_registers_is_woken_by_every_publisher() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared = Arc::new((AtomicWaker::new(), AtomicUsize::new(0)));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    shared.0.wake();
                })
            })
            .collect();
        block_on(poll_fn(|cx| {
            shared.0.register(cx.waker());
            match shared.1.load(Ordering::Relaxed) {
                2 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        for publisher in publishers {
            publisher.join().expect("ends");
        }
    });
}

#[test]
fn loom_a_core_that_goes_to_sleep_sees_the_work_or_is_signalled_once() {
    loom::model(|| {
        let parker = Parker::with_eventfd().expect("a counter");
        let shared = Arc::new((parker, AtomicUsize::new(0)));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    shared.0.unpark();
                })
            })
            .collect();
        shared.0.prepare_sleep();
        let seen = shared.1.load(Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().expect("ends");
        }
        let signals = signals(&shared.0);
        assert!(signals <= 1, "one system call ends a sleep");
        assert!(seen == 2 || signals == 1, "saw {seen} of 2 and sleeps on");
    });
}

#[test]
fn loom_a_core_that_is_awake_costs_no_system_call() {
    loom::model(|| {
        let parker = Arc::new(Parker::with_eventfd().expect("a counter"));
        parker.prepare_sleep();
        parker.awake();
        let other = parker.clone();
        let publisher = thread::spawn(move || other.unpark());
        publisher.join().expect("ends");
        assert_eq!(signals(&parker), 0);
    });
}

#[test]
fn loom_a_claimed_place_has_one_core_inside_and_nobody_once_the_home_found_it_free() {
    struct Place {
        claims: Claims,
        content: UnsafeCell<u32>,
    }
    // SAFETY: what the test proves: `content` is touched only by who is inside.
    unsafe impl Sync for Place {}
    // SAFETY: as above.
    unsafe impl Send for Place {}

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let place = Arc::new(Place {
            claims: Claims::new(1),
            content: UnsafeCell::new(0),
        });
        // SAFETY: loom reports two that are inside at once.
        let work = |place: &Place| place.content.with_mut(|content| unsafe { *content += 1 });
        let others: Vec<_> = [CoreId(1), CoreId(2)]
            .into_iter()
            .map(|core| {
                let place = place.clone();
                thread::spawn(move || {
                    if place.claims.enter(0, core) {
                        work(&place);
                        place.claims.leave(0);
                    }
                })
            })
            .collect();
        let free = place.claims.want(0);
        if free {
            work(&place);
        }
        if !free {
            // Who is inside ends; nobody else gets in.
            for other in others {
                other.join().expect("ends");
            }
            assert!(place.claims.want(0));
            work(&place);
            place.claims.unwant(0);
        } else {
            place.claims.unwant(0);
            for other in others {
                other.join().expect("ends");
            }
        }
        assert!(place.claims.enter(0, CoreId(1)), "nothing is left behind");
    });
}

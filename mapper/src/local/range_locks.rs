//! Exclusive locks of block ranges, per object of a volume. First come, first served: a request waits
//! for every earlier one that overlaps it, so that whole-object requests are not starved.

use atoll_backends::{BlockRange, ObjectIndex};
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

struct Request {
    ticket: u64,
    range: BlockRange,
    waker: Option<Waker>,
}

type Requests = SmallVec<[Request; 2]>;

#[derive(Default)]
pub(crate) struct RangeLocks {
    /// Per object the requests in the order of their coming, held and waiting.
    objects: RefCell<HashMap<ObjectIndex, Requests>>,
    next: Cell<u64>,
}

/// A range that is held; dropping it lets the next ones go on.
pub(crate) struct RangeGuard {
    locks: Rc<RangeLocks>,
    object: ObjectIndex,
    ticket: u64,
}

impl RangeLocks {
    pub(crate) async fn lock(
        self: &Rc<RangeLocks>,
        object: ObjectIndex,
        range: BlockRange,
    ) -> RangeGuard {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        let request = Request {
            ticket,
            range,
            waker: None,
        };
        let free = {
            let mut objects = self.objects.borrow_mut();
            let requests = objects.entry(object).or_default();
            let free = !requests.iter().any(|earlier| earlier.range.overlaps(range));
            requests.push(request);
            free
        };
        let guard = RangeGuard {
            locks: self.clone(),
            object,
            ticket,
        };
        if free {
            return guard;
        }
        poll_fn(|cx| {
            let mut objects = self.objects.borrow_mut();
            let requests = objects.get_mut(&object).expect("our request is there");
            let place = requests
                .iter()
                .position(|r| r.ticket == ticket)
                .expect("ours");
            if requests[..place]
                .iter()
                .any(|earlier| earlier.range.overlaps(range))
            {
                requests[place].waker = Some(cx.waker().clone());
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        guard
    }

    /// True if somebody holds or waits for a part of the object.
    pub(crate) fn is_locked(&self, object: ObjectIndex) -> bool {
        self.objects.borrow().contains_key(&object)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.borrow().is_empty()
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let mut woken: SmallVec<[Waker; 4]> = SmallVec::new();
        {
            let mut objects = self.locks.objects.borrow_mut();
            let Some(requests) = objects.get_mut(&self.object) else {
                return;
            };
            let Some(place) = requests.iter().position(|r| r.ticket == self.ticket) else {
                return;
            };
            let range = requests.remove(place).range;
            for later in &mut requests[place..] {
                if later.range.overlaps(range) {
                    woken.extend(later.waker.take());
                }
            }
            if requests.is_empty() {
                objects.remove(&self.object);
            }
        }
        for waker in woken {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::{sim::Sim, sleep, spawn};
    use std::time::Duration;

    fn object() -> ObjectIndex {
        ObjectIndex::new(7).expect("small")
    }

    #[test]
    fn overlapping_ranges_take_turns_in_order_and_others_do_not_wait() {
        Sim::new(11, 1).block_on(async {
            let locks = Rc::new(RangeLocks::default());
            let order = Rc::new(RefCell::new(Vec::new()));
            let first = locks.lock(object(), BlockRange::new(0, 4)).await;
            let mut tasks = Vec::new();
            for (number, range) in [(1, (3, 2)), (2, (0, 1024)), (3, (8, 1))] {
                let (locks, order) = (locks.clone(), order.clone());
                tasks.push(spawn(async move {
                    let held = locks
                        .lock(object(), BlockRange::new(range.0, range.1))
                        .await;
                    order.borrow_mut().push(number);
                    sleep(Duration::from_millis(1)).await;
                    drop(held);
                }));
                sleep(Duration::from_micros(1)).await;
            }
            let free = locks
                .lock(ObjectIndex::new(8).expect("small"), BlockRange::new(0, 9))
                .await;
            drop((first, free));
            for task in tasks {
                task.await;
            }
            assert_eq!(*order.borrow(), [1, 2, 3]);
            assert!(locks.is_empty());
        });
    }
}

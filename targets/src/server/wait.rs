//! Small waiting primitives of one core: a signal that tasks wait at, the first of two futures, and many futures of
//! which only so many run at a time. No atomics, no locks; nothing here knows iSCSI.

use atoll_reactor::LocalFuture;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

/// Tasks that wait for a condition of this core's state to change.
#[derive(Default)]
pub(super) struct Signal {
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Waits until `condition` gives a value; it is asked again after every [`Signal::notify`].
    pub(super) async fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| {
            if let Some(value) = condition() {
                return Poll::Ready(value);
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Lets every waiting task ask its condition again. A waker only queues its task, so nothing runs in here.
    pub(super) fn notify(&self) {
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

/// Which of two futures ended first.
pub(super) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Awaits the first of two to end; the other is dropped. If both have ended it is the first.
pub(super) async fn race<A: Future, B: Future>(
    first: A,
    second: B,
) -> Either<A::Output, B::Output> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|cx| {
        if let Poll::Ready(output) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Runs the futures in order, at most `width` at a time; outputs in their order. After the first failure none is
/// begun any more, and those that run are awaited.
pub(super) async fn bounded<'a, T, E>(
    width: usize,
    jobs: impl Iterator<Item = LocalFuture<'a, Result<T, E>>>,
) -> Result<Vec<T>, E> {
    let mut jobs = jobs.fuse();
    let mut running: Vec<(usize, LocalFuture<'a, Result<T, E>>)> = Vec::with_capacity(width);
    let mut outputs: Vec<Option<T>> = Vec::new();
    let mut failure = None;
    poll_fn(|cx| {
        loop {
            while running.len() < width && failure.is_none() {
                let Some(job) = jobs.next() else { break };
                running.push((outputs.len(), job));
                outputs.push(None);
            }
            let mut ended = false;
            running.retain_mut(|(place, job)| match Pin::new(job).poll(cx) {
                Poll::Pending => true,
                Poll::Ready(output) => {
                    ended = true;
                    match output {
                        Ok(value) => outputs[*place] = Some(value),
                        Err(error) if failure.is_none() => failure = Some(error),
                        Err(_) => {}
                    }
                    false
                }
            });
            if running.is_empty() && (failure.is_some() || !ended) {
                return Poll::Ready(());
            }
            if !ended {
                return Poll::Pending;
            }
        }
    })
    .await;
    match failure {
        Some(error) => Err(error),
        None => Ok(outputs.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::{sim::Sim, sleep};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn bounded_keeps_the_order_of_outputs_and_never_runs_more_than_its_width() {
        Sim::new(5, 1).block_on(async {
            let running = Rc::new(Cell::new(0));
            let most = Rc::new(Cell::new(0));
            let jobs = (0..20_u64).map(|number| {
                let (running, most) = (running.clone(), most.clone());
                LocalFuture::new(async move {
                    running.set(running.get() + 1);
                    most.set(running.get().max(most.get()));
                    sleep(Duration::from_millis(number * 7 % 5)).await;
                    running.set(running.get() - 1);
                    Ok::<_, ()>(number)
                })
            });
            let outputs = bounded(3, jobs).await.expect("none fails");
            assert_eq!(outputs, (0..20).collect::<Vec<_>>());
            assert_eq!(most.get(), 3);
        });
    }

    #[test]
    fn after_a_failure_bounded_begins_nothing_and_awaits_what_runs() {
        Sim::new(6, 1).block_on(async {
            let ended = Rc::new(Cell::new(0));
            let begun = Rc::new(Cell::new(0));
            let jobs = (0..10).map(|number| {
                let (ended, begun) = (ended.clone(), begun.clone());
                LocalFuture::new(async move {
                    begun.set(begun.get() + 1);
                    let time = if number == 1 { 1 } else { 50 };
                    sleep(Duration::from_millis(time)).await;
                    ended.set(ended.get() + 1);
                    if number == 1 { Err(number) } else { Ok(()) }
                })
            });
            assert_eq!(bounded(4, jobs).await, Err(1));
            assert_eq!((begun.get(), ended.get()), (4, 4));
        });
    }

    #[test]
    fn bounded_of_nothing_ends() {
        let none = std::iter::empty::<LocalFuture<'_, Result<(), ()>>>();
        Sim::new(7, 1).block_on(async {
            assert_eq!(bounded(4, none).await, Ok(Vec::new()));
        });
    }
}

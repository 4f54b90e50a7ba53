//! Operations that run to their end at the store though their caller gave up: the face promises it,
//! and a half-done sequence of steps (create, extend, write) must not be left behind by a time-out.

use atoll_reactor::{LocalFuture, spawn_detached};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

enum State<T: 'static> {
    /// Nothing was begun: dropping it drops it.
    New(LocalFuture<'static, T>),
    Begun(LocalFuture<'static, T>),
    Ended,
}

struct Finish<T: 'static>(State<T>);

/// A future that, once polled, goes on as a task of its own if it is dropped before its end.
pub(crate) fn to_the_end<'a, T: 'static>(
    future: impl Future<Output = T> + 'static,
) -> LocalFuture<'a, T> {
    LocalFuture::new(Finish(State::New(LocalFuture::new(future))))
}

impl<T: 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut future = match std::mem::replace(&mut self.0, State::Ended) {
            State::New(future) | State::Begun(future) => future,
            State::Ended => panic!("a future is not polled after its end"),
        };
        let polled = Pin::new(&mut future).poll(cx);
        if polled.is_pending() {
            self.0 = State::Begun(future);
        }
        polled
    }
}

impl<T: 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let State::Begun(future) = std::mem::replace(&mut self.0, State::Ended) {
            spawn_detached(async move {
                future.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reactor::sim::Sim;
    use atoll_reactor::{sleep, timeout};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn what_was_begun_ends_though_its_caller_gave_up_and_what_was_not_begun_does_not_start() {
        Sim::new(1, 1).block_on(async {
            let ended = Rc::new(Cell::new(0));
            let work = |ended: Rc<Cell<u32>>| async move {
                sleep(Duration::from_secs(2)).await;
                ended.set(ended.get() + 1);
            };
            let late = timeout(Duration::from_secs(1), to_the_end(work(ended.clone()))).await;
            assert!(late.is_err());
            drop(to_the_end(work(ended.clone())));
            sleep(Duration::from_secs(5)).await;
            assert_eq!(ended.get(), 1);
        });
    }
}

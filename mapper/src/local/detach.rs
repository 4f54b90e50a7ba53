//! Operations that go on to their end when their caller gives up, so that what they hold (blocks,
//! a place inside of the gate) is kept until the store has really ended them.

use atoll_reactor::{LocalFuture, spawn_detached};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) struct Detached<T: 'static> {
    running: Option<LocalFuture<'static, T>>,
}

/// Awaiting it gives the output; dropping it before leaves the operation running.
pub(crate) fn run_to_end<T>(future: impl Future<Output = T> + 'static) -> Detached<T> {
    Detached {
        running: Some(LocalFuture::new(future)),
    }
}

impl<T> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let running = self.running.as_mut().expect("not polled after its end");
        let output = Pin::new(running).poll(cx);
        if output.is_ready() {
            self.running = None;
        }
        output
    }
}

impl<T> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            spawn_detached(async move {
                running.await;
            });
        }
    }
}

//! Awaiting several futures at once.

use atoll_reactor::LocalFuture;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// Awaits all, in any order; outputs in the order of the futures.
pub(crate) async fn join_all<T>(mut futures: Vec<LocalFuture<'_, T>>) -> Vec<T> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match Pin::new(future).poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        match pending {
            true => Poll::Pending,
            false => Poll::Ready(outputs.drain(..).flatten().collect()),
        }
    })
    .await
}

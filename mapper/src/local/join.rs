//! Awaiting several futures at once.

use atoll_reactor::LocalFuture;
use smallvec::SmallVec;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// What an aligned request is cut into at most, besides by objects: a few need no heap.
const FEW: usize = 4;

/// Awaits all, in any order; outputs in the order of the futures. Where one is the rule, as on the I/O path, callers await
/// it as it is: a helper for both cost up to 6 % more instructions per operation.
pub(crate) async fn join_all<'a, T>(
    futures: impl IntoIterator<Item = LocalFuture<'a, T>>,
) -> SmallVec<[T; FEW]> {
    let mut futures: SmallVec<[LocalFuture<'a, T>; FEW]> = futures.into_iter().collect();
    let mut outputs: SmallVec<[Option<T>; FEW]> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
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
            false => Poll::Ready(()),
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

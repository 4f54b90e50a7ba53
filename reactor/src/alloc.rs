//! Recycled memory for futures: blocks come from free lists of the thread, so that in the steady
//! state starting a task or boxing a future costs no call of the heap.
//! Not a general allocator: blocks above `MAX_BLOCK` go to the heap each time.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// Blocks are multiples of this many bytes, and aligned to it (a cache line).
const GRAIN: usize = 64;
/// Largest recycled block in bytes.
const MAX_BLOCK: usize = 8192;
const CLASSES: usize = MAX_BLOCK / GRAIN;
/// Bytes of free blocks kept per class and thread; more go back to the heap.
const MAX_FREE_BYTES: usize = 4 << 20;

const _: () = assert!(MAX_BLOCK.is_multiple_of(GRAIN));

struct FreeLists {
    classes: [Vec<NonNull<u8>>; CLASSES],
}

impl Drop for FreeLists {
    fn drop(&mut self) {
        for (index, list) in self.classes.iter_mut().enumerate() {
            let layout = class_layout(index);
            for block in list.drain(..) {
                // SAFETY: every block in list `index` was allocated with `class_layout(index)`.
                unsafe { std::alloc::dealloc(block.as_ptr(), layout) };
            }
        }
    }
}

thread_local! {
    static FREE: RefCell<FreeLists> =
        const { RefCell::new(FreeLists { classes: [const { Vec::new() }; CLASSES] }) };
}

fn class_layout(index: usize) -> Layout {
    Layout::from_size_align((index + 1) * GRAIN, GRAIN).expect("class sizes are valid layouts")
}

fn class_of(layout: Layout) -> Option<usize> {
    (layout.align() <= GRAIN && layout.size() <= MAX_BLOCK)
        .then(|| layout.size().max(1).div_ceil(GRAIN) - 1)
}

/// What is asked of the heap for `layout`; never of size zero.
fn real_layout(layout: Layout) -> Layout {
    match class_of(layout) {
        Some(index) => class_layout(index),
        None if layout.size() == 0 => {
            Layout::from_size_align(layout.align(), layout.align()).expect("as small as its align")
        }
        None => layout,
    }
}

/// Memory of at least `layout`, to be returned with [`release`] and the same layout, on any thread.
pub(crate) fn acquire(layout: Layout) -> NonNull<u8> {
    let class = class_of(layout);
    if let Some(index) = class
        && let Ok(Some(block)) = FREE.try_with(|free| free.borrow_mut().classes[index].pop())
    {
        return block;
    }
    let real = real_layout(layout);
    // SAFETY: the size is not zero.
    let block = unsafe { std::alloc::alloc(real) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(real))
}

/// Gives back what [`acquire`] returned.
///
/// # Safety
/// `block` came from `acquire(layout)` and is not used afterwards.
pub(crate) unsafe fn release(block: NonNull<u8>, layout: Layout) {
    let class = class_of(layout);
    if let Some(index) = class {
        let kept = FREE.try_with(|free| {
            let list = &mut free.borrow_mut().classes[index];
            let room = list.len() < MAX_FREE_BYTES / class_layout(index).size();
            if room {
                list.push(block);
            }
            room
        });
        if kept == Ok(true) {
            return;
        }
    }
    // SAFETY: the caller's contract; blocks of a class were allocated with the class's layout.
    unsafe { std::alloc::dealloc(block.as_ptr(), real_layout(layout)) };
}

/// A boxed `!Send` future in recycled memory: what object-safe asynchronous traits return.
#[must_use = "futures do nothing unless awaited"]
pub struct LocalFuture<'a, T> {
    future: NonNull<dyn Future<Output = T> + 'a>,
    _not_send: PhantomData<*mut ()>,
}

impl<'a, T> LocalFuture<'a, T> {
    pub fn new<F: Future<Output = T> + 'a>(future: F) -> LocalFuture<'a, T> {
        let place = acquire(Layout::new::<F>()).cast::<F>();
        // SAFETY: `place` is fresh memory of F's layout.
        unsafe { place.write(future) };
        let wide: *mut (dyn Future<Output = T> + 'a) = place.as_ptr();
        LocalFuture {
            // SAFETY: made from a NonNull.
            future: unsafe { NonNull::new_unchecked(wide) },
            _not_send: PhantomData,
        }
    }

    /// A future that is ready at once.
    pub fn ready(value: T) -> LocalFuture<'a, T>
    where
        T: 'a,
    {
        LocalFuture::new(std::future::ready(value))
    }
}

impl<T> Future for LocalFuture<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // SAFETY: the future is owned by us, lives in its block until we are dropped, and is
        // never moved out of it.
        unsafe { Pin::new_unchecked(self.get_mut().future.as_mut()) }.poll(cx)
    }
}

impl<T> Drop for LocalFuture<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is valid and owned; after drop_in_place the block is given back
        // with the layout it was acquired with.
        unsafe {
            let layout = Layout::for_value(self.future.as_ref());
            std::ptr::drop_in_place(self.future.as_ptr());
            release(self.future.cast::<u8>(), layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_dropped_future_drops_what_it_holds_and_its_block_is_used_again() {
        let held = Rc::new(());
        let copy = held.clone();
        let first = LocalFuture::new(async move {
            std::future::pending::<()>().await;
            drop(copy);
        });
        let address = first.future.cast::<u8>();
        assert_eq!(Rc::strong_count(&held), 2);
        drop(first);
        assert_eq!(Rc::strong_count(&held), 1);
        let copy = held.clone();
        let second = LocalFuture::new(async move {
            std::future::pending::<()>().await;
            drop(copy);
        });
        assert_eq!(second.future.cast::<u8>(), address);
    }

    #[test]
    fn zero_sized_and_large_futures_are_served() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut small = LocalFuture::ready(7_u8);
        assert_eq!(Pin::new(&mut small).poll(&mut cx), Poll::Ready(7));
        let big = [3_u8; 3 * MAX_BLOCK];
        let mut large = LocalFuture::new(async move { big[17] });
        assert_eq!(Pin::new(&mut large).poll(&mut cx), Poll::Ready(3));
        #[repr(align(256))]
        struct Nothing;
        impl Future for Nothing {
            type Output = usize;
            fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<usize> {
                Poll::Ready(std::ptr::from_ref(&*self) as usize % 256)
            }
        }
        let mut aligned = LocalFuture::new(Nothing);
        assert_eq!(Pin::new(&mut aligned).poll(&mut cx), Poll::Ready(0));
        let mut none = LocalFuture::new(async {});
        assert_eq!(Pin::new(&mut none).poll(&mut cx), Poll::Ready(()));
    }
}

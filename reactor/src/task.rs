//! Raw tasks: a future with its header in recycled memory, and the waker that queues it.
//! The future is touched on its own core only; wakers may be used from any thread.

use crate::alloc::{acquire, release};
use crate::core::CoreShared;
use std::alloc::Layout;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

struct TaskVTable {
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    drop_future: unsafe fn(NonNull<Header>),
    layout: Layout,
}

/// What every task begins with.
pub(crate) struct Header {
    refs: AtomicUsize,
    /// In a run queue (local or remote); whoever turns it from false to true owns the push.
    queued: AtomicBool,
    /// The future was dropped; owner core only.
    done: Cell<bool>,
    /// Place in the core's registry; owner core only.
    pub(crate) index: Cell<usize>,
    pub(crate) shared: Arc<CoreShared>,
    vtable: &'static TaskVTable,
    /// Link of the remote ready list.
    pub(crate) next: AtomicPtr<Header>,
}

#[repr(C)]
struct Cellar<F> {
    header: Header,
    future: F,
}

/// A counted reference to a task.
pub(crate) struct TaskRef(NonNull<Header>);

impl TaskRef {
    pub(crate) fn new<F: Future<Output = ()> + 'static>(
        future: F,
        shared: Arc<CoreShared>,
    ) -> TaskRef {
        let layout = Layout::new::<Cellar<F>>();
        let place = acquire(layout).cast::<Cellar<F>>();
        let vtable = const {
            &TaskVTable {
                poll: poll_future::<F>,
                drop_future: drop_future::<F>,
                layout: Layout::new::<Cellar<F>>(),
            }
        };
        let header = Header {
            refs: AtomicUsize::new(1),
            queued: AtomicBool::new(false),
            done: Cell::new(false),
            index: Cell::new(usize::MAX),
            shared,
            vtable,
            next: AtomicPtr::new(std::ptr::null_mut()),
        };
        // SAFETY: fresh memory of that layout.
        unsafe { place.write(Cellar { header, future }) };
        TaskRef(place.cast())
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: a TaskRef holds a count, so the header is alive.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn into_raw(self) -> NonNull<Header> {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }

    /// # Safety
    /// `raw` came from `into_raw` and is turned back once.
    pub(crate) unsafe fn from_raw(raw: NonNull<Header>) -> TaskRef {
        TaskRef(raw)
    }

    /// True if the caller must now put the task into a queue.
    pub(crate) fn mark_queued(&self) -> bool {
        !self.header().queued.swap(true, Ordering::AcqRel)
    }

    /// Runs the future once; true when it has ended. Owner core only.
    pub(crate) fn run(&self) -> bool {
        let header = self.header();
        // A waker that still found the task queued published before this exchange, which reads
        // from its own: the future sees what it was woken for.
        header.queued.swap(false, Ordering::AcqRel);
        if header.done.get() {
            return false;
        }
        // SAFETY: the waker does not outlive this call; it borrows our count.
        let waker = unsafe { std::mem::ManuallyDrop::new(borrowed_waker(self.0)) };
        let mut cx = Context::from_waker(&waker);
        // SAFETY: owner core, future not dropped yet (`done` is false).
        if unsafe { (header.vtable.poll)(self.0, &mut cx) }.is_ready() {
            self.drop_future();
            return true;
        }
        false
    }

    /// Drops the future if it is still there. Owner core only.
    pub(crate) fn drop_future(&self) {
        if !self.header().done.replace(true) {
            // SAFETY: `done` was false, so the future is there, and is dropped once.
            unsafe { (self.header().vtable.drop_future)(self.0) };
        }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> TaskRef {
        self.header().refs.fetch_add(1, Ordering::Relaxed);
        TaskRef(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if self.header().refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            debug_assert!(
                self.header().done.get(),
                "a core drops its futures before their headers"
            );
            let layout = self.header().vtable.layout;
            // SAFETY: last count; the future was dropped by its core, the header is dropped here.
            unsafe {
                std::ptr::drop_in_place(self.0.as_ptr());
                release(self.0.cast(), layout);
            }
        }
    }
}

/// # Safety
/// `header` is the head of a live `Cellar<F>` whose future was not dropped; owner core.
unsafe fn poll_future<F: Future<Output = ()>>(
    header: NonNull<Header>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let task = header.cast::<Cellar<F>>().as_ptr();
    // SAFETY: the caller's contract; the future never moves out of its block.
    unsafe { Pin::new_unchecked(&mut (*task).future) }.poll(cx)
}

/// # Safety
/// As [`poll_future`], once.
unsafe fn drop_future<F>(header: NonNull<Header>) {
    let task = header.cast::<Cellar<F>>().as_ptr();
    // SAFETY: the caller's contract.
    unsafe { std::ptr::drop_in_place(&raw mut (*task).future) };
}

static WAKER: RawWakerVTable =
    RawWakerVTable::new(waker_clone, waker_wake, waker_wake_by_ref, waker_drop);

/// # Safety
/// The waker stands for one count of the task.
unsafe fn borrowed_waker(header: NonNull<Header>) -> Waker {
    // SAFETY: the vtable's functions take the header pointer, which is alive while counted.
    unsafe { Waker::from_raw(RawWaker::new(header.as_ptr().cast(), &WAKER)) }
}

fn header_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("wakers hold a task")
}

unsafe fn waker_clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker's count keeps the header alive.
    let counted = unsafe { header_of(data).as_ref() };
    counted.refs.fetch_add(1, Ordering::Relaxed);
    RawWaker::new(data, &WAKER)
}

unsafe fn waker_wake(data: *const ()) {
    // SAFETY: the waker's count passes to us.
    schedule(unsafe { TaskRef::from_raw(header_of(data)) });
}

unsafe fn waker_wake_by_ref(data: *const ()) {
    // SAFETY: the waker's count stays with it, hence ManuallyDrop.
    let task = unsafe { std::mem::ManuallyDrop::new(TaskRef::from_raw(header_of(data))) };
    if task.mark_queued() {
        push(TaskRef::clone(&task));
    }
}

unsafe fn waker_drop(data: *const ()) {
    // SAFETY: the waker's count passes to us and is dropped.
    drop(unsafe { TaskRef::from_raw(header_of(data)) });
}

fn schedule(task: TaskRef) {
    if task.mark_queued() {
        push(task);
    }
}

/// Puts a task that was marked as queued into its core's queue.
fn push(task: TaskRef) {
    if let Some(task) = crate::core::push_if_local(task) {
        let shared = task.header().shared.clone();
        shared.push_remote(task);
    }
}

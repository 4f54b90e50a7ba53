//! One operation in flight: a cell that owns everything the kernel may touch until the kernel has
//! said that it ended. Futures only point at cells; dropping one leaves its cell to the ring.
//!
//! **Invariant:** memory handed to the kernel is freed by its completion only (R2).

use crate::alloc::{acquire, release};
use crate::core::{Core, Driver, with_core};
use crate::uring::UringDriver;
use crate::uring::room::enter;
use io_uring::squeue::Entry;
use std::alloc::Layout;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What the kernel said: the result (negative: an errno) and the flags of the completion.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// What every cell begins with; its address is the `user_data` of the submission.
pub(super) struct Head {
    complete: unsafe fn(NonNull<Head>, Completion),
}

impl Head {
    /// Delivers a completion.
    ///
    /// # Safety
    /// `user_data` is the address of a cell whose final completion did not come yet.
    pub(super) unsafe fn deliver(user_data: u64, completion: Completion) {
        let address = usize::try_from(user_data).expect("a pointer fits");
        let head = NonNull::new(std::ptr::with_exposed_provenance_mut::<Head>(address))
            .expect("cells are not at null");
        // SAFETY: the caller's contract: the cell is alive, and `complete` is its own function.
        unsafe { ((*head.as_ptr()).complete)(head, completion) };
    }
}

/// What an operation owns and how it is told to the kernel.
///
/// # Safety
/// All memory that `entry` names is owned by `self` (or static) and neither moves nor is freed
/// while `self` is neither moved nor dropped.
pub(super) unsafe trait Payload: Sized + 'static {
    fn entry(&mut self) -> Entry;

    /// The operation ended, but its future is gone: undo what it leaves behind.
    fn abandoned(self, _result: i32) {}
}

enum State {
    Waiting(Option<Waker>),
    Ended(i32),
    Abandoned,
}

#[repr(C)]
struct OpCell<P> {
    head: Head,
    state: RefCell<State>,
    payload: P,
}

/// Waits for one operation; see [`run`].
struct Op<P: Payload> {
    cell: Option<NonNull<OpCell<P>>>,
}

/// Runs an operation on this core's ring and gives back its result and what it owned.
pub(super) async fn run<P: Payload>(payload: P) -> (i32, P) {
    enter(with_uring(|driver| driver.room.clone())).await;
    start(payload).await
}

pub(super) fn with_uring<R>(f: impl FnOnce(&UringDriver) -> R) -> R {
    with_core(|core| f(uring_of(core)))
}

fn uring_of(core: &Core) -> &UringDriver {
    match &core.driver {
        Driver::Uring(driver) => driver,
        Driver::Sim(_) => panic!("a file or socket of the ring was used on a simulated core"),
    }
}

fn start<P: Payload>(payload: P) -> Op<P> {
    let place = acquire(Layout::new::<OpCell<P>>()).cast::<OpCell<P>>();
    let cell = OpCell {
        head: Head {
            complete: complete_op::<P>,
        },
        state: RefCell::new(State::Waiting(None)),
        payload,
    };
    // SAFETY: fresh memory of the cell's layout; the entry's pointers lead into the payload at
    // its final place.
    let entry = unsafe {
        place.write(cell);
        (*place.as_ptr()).payload.entry()
    };
    let user_data = place.as_ptr().expose_provenance() as u64;
    with_uring(|driver| driver.push(entry.user_data(user_data)));
    Op { cell: Some(place) }
}

/// The cell's state, without a reference to the payload, which the kernel may be writing to.
///
/// # Safety
/// The cell is alive for as long as the reference is used.
unsafe fn state_of<'a, P>(cell: NonNull<OpCell<P>>) -> &'a RefCell<State> {
    // SAFETY: the caller's contract.
    unsafe { &(*cell.as_ptr()).state }
}

/// Moves the payload out and gives the cell's memory back.
///
/// # Safety
/// The operation has ended and nothing else refers to the cell.
unsafe fn take_payload<P>(cell: NonNull<OpCell<P>>) -> P {
    // SAFETY: the caller's contract; each field is read or dropped once.
    unsafe {
        let OpCell { payload, .. } = cell.read();
        release(cell.cast(), Layout::new::<OpCell<P>>());
        payload
    }
}

/// # Safety
/// `head` begins a live `OpCell<P>`; this is its only completion.
unsafe fn complete_op<P: Payload>(head: NonNull<Head>, completion: Completion) {
    let cell = head.cast::<OpCell<P>>();
    // SAFETY: the cell is alive until its payload is taken, below or by the future.
    let before = unsafe { state_of(cell) }.replace(State::Ended(completion.result));
    match before {
        State::Waiting(Some(waker)) => waker.wake(),
        State::Waiting(None) => {}
        // SAFETY: ended, and the future is gone.
        State::Abandoned => unsafe { take_payload(cell) }.abandoned(completion.result),
        State::Ended(_) => unreachable!("an operation ends once"),
    }
}

impl<P: Payload> Future for Op<P> {
    type Output = (i32, P);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(i32, P)> {
        let cell = self.cell.expect("an operation is awaited once");
        {
            // SAFETY: the cell lives until we take its payload.
            let mut state = unsafe { state_of(cell) }.borrow_mut();
            match &mut *state {
                State::Ended(_) => {}
                State::Waiting(Some(known)) => {
                    known.clone_from(cx.waker());
                    return Poll::Pending;
                }
                State::Waiting(none) => {
                    *none = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                State::Abandoned => unreachable!("the future is here"),
            }
        }
        self.cell = None;
        // SAFETY: as above.
        let state = unsafe { state_of(cell) }.replace(State::Abandoned);
        let State::Ended(result) = state else {
            unreachable!("looked at above")
        };
        // SAFETY: ended; the future gives up its reference.
        Poll::Ready((result, unsafe { take_payload(cell) }))
    }
}

impl<P: Payload> Drop for Op<P> {
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else {
            return;
        };
        // SAFETY: the cell is alive: its payload was not taken.
        let before = unsafe { state_of(cell) }.replace(State::Abandoned);
        if let State::Ended(result) = before {
            // SAFETY: ended, and this was the last reference.
            unsafe { take_payload(cell) }.abandoned(result);
        }
    }
}

/// What a multishot poll reports to.
pub(super) trait PollTarget: 'static {
    /// `events` are `poll(2)` bits; `armed` is false when the kernel has ended the poll.
    fn polled(&self, events: u32, armed: bool);
}

#[repr(C)]
struct PollCell<T> {
    head: Head,
    target: Rc<T>,
}

/// An armed multishot poll, to be cancelled by [`cancel`].
#[derive(Clone, Copy)]
pub(super) struct PollToken(u64);

/// Arms a multishot poll: `target` hears of every change of `fd` to one of `events`, and at once
/// if it is so already.
pub(super) fn arm<T: PollTarget>(
    driver: &UringDriver,
    fd: i32,
    events: u32,
    target: Rc<T>,
) -> PollToken {
    let place = acquire(Layout::new::<PollCell<T>>()).cast::<PollCell<T>>();
    let head = Head {
        complete: complete_poll::<T>,
    };
    // SAFETY: fresh memory of the cell's layout.
    unsafe { place.write(PollCell { head, target }) };
    let user_data = place.as_ptr().expose_provenance() as u64;
    let entry = io_uring::opcode::PollAdd::new(io_uring::types::Fd(fd), events)
        .multi(true)
        .build();
    driver.push(entry.user_data(user_data));
    PollToken(user_data)
}

/// Ends a poll; its target hears of that with `armed` false.
pub(super) fn cancel(driver: &UringDriver, poll: PollToken) {
    let entry = io_uring::opcode::AsyncCancel::new(poll.0).build();
    driver.push(entry.user_data(super::NOBODY));
}

/// # Safety
/// `head` begins a live `PollCell<T>`.
unsafe fn complete_poll<T: PollTarget>(head: NonNull<Head>, completion: Completion) {
    let cell = head.cast::<PollCell<T>>();
    let armed = io_uring::cqueue::more(completion.flags);
    // An error means: try the call itself, it tells what is wrong.
    let events = u32::try_from(completion.result).unwrap_or(libc::POLLERR as u32);
    if armed {
        // SAFETY: the kernel will complete it again, so the cell is alive.
        let target = unsafe { cell.as_ref() }.target.clone();
        target.polled(events, true);
        return;
    }
    // SAFETY: the final completion: the cell is read out and freed once.
    let target = unsafe {
        let PollCell { target, .. } = cell.read();
        release(cell.cast(), Layout::new::<PollCell<T>>());
        target
    };
    target.polled(events, false);
}

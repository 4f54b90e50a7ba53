//! One core's executor: its run queue, timers and driver, and the handle other threads reach it by.
//! It schedules; what time and I/O are is the driver's business.

use crate::buf::Pool;
use crate::oneshot;
use crate::sim::SimDriver;
use crate::stats::{CoreStats, Counts};
use crate::task::{Header, TaskRef};
use crate::time::{Instant, Timers};
use crate::uring::UringDriver;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::task::{Context, Poll};

/// Jobs sent to a core from elsewhere and not begun yet.
pub(crate) const INBOX_CAPACITY: usize = 4096;
/// Tasks run in one turn before the driver is polled again.
const RUN_BUDGET: usize = 256;

/// A reactor core, numbered from 0 in the order of the configuration (not the CPU's number).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CoreId(pub u16);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The part of a core that other threads touch.
pub(crate) struct CoreShared {
    pub(crate) id: CoreId,
    /// Intrusive stack of tasks woken from other threads.
    remote: AtomicPtr<Header>,
    inbox: ArrayQueue<Job>,
    closed: AtomicBool,
    /// The runtime asked the core to end.
    stopping: AtomicBool,
    pub(crate) counts: CachePadded<Counts>,
    pub(crate) parker: crate::sync::Parker,
}

/// Marks the list of remotely woken tasks of a core that has closed: nobody takes them any more.
const NO_MORE: *mut Header = std::ptr::without_provenance_mut(usize::MAX);

impl CoreShared {
    pub(crate) fn new(id: CoreId, parker: crate::sync::Parker) -> Arc<CoreShared> {
        Arc::new(CoreShared {
            id,
            remote: AtomicPtr::new(std::ptr::null_mut()),
            inbox: ArrayQueue::new(INBOX_CAPACITY),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counts: CachePadded::default(),
            parker,
        })
    }

    /// Asks the core to end after its current turn.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.parker.unpark();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn push_remote(&self, task: TaskRef) {
        let raw = task.into_raw();
        let mut head = self.remote.load(Ordering::Relaxed);
        loop {
            if head == NO_MORE {
                // SAFETY: the count that was to go into the list.
                drop(unsafe { TaskRef::from_raw(raw) });
                return;
            }
            // SAFETY: we hold the task's count until it is in the list.
            unsafe { raw.as_ref() }.next.store(head, Ordering::Relaxed);
            match self.remote.compare_exchange_weak(
                head,
                raw.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.parker.unpark();
    }

    /// Takes all tasks that other threads woke, oldest first.
    fn take_remote(&self, each: impl FnMut(TaskRef)) {
        if !self.remote.load(Ordering::Relaxed).is_null() {
            self.swap_remote(std::ptr::null_mut(), each);
        }
    }

    /// Takes all that is in the list and leaves `instead`: nothing, or the mark of the end.
    fn swap_remote(&self, instead: *mut Header, mut each: impl FnMut(TaskRef)) {
        let mut head = self.remote.swap(instead, Ordering::AcqRel);
        if head == NO_MORE {
            return;
        }
        let mut reversed: *mut Header = std::ptr::null_mut();
        while let Some(task) = NonNull::new(head) {
            // SAFETY: tasks in the list carry a count each and are ours since the swap.
            let header = unsafe { task.as_ref() };
            head = header.next.swap(reversed, Ordering::Relaxed);
            reversed = task.as_ptr();
        }
        while let Some(task) = NonNull::new(reversed) {
            // SAFETY: as above; each is turned back into its count once.
            unsafe {
                reversed = task
                    .as_ref()
                    .next
                    .swap(std::ptr::null_mut(), Ordering::Relaxed);
                each(TaskRef::from_raw(task));
            }
        }
    }

    /// After `closed` was set: what is in the inbox will not be run.
    fn drop_jobs(&self) {
        while let Some(job) = self.inbox.pop() {
            drop(job);
        }
    }

    pub(crate) fn has_remote_work(&self) -> bool {
        !self.remote.load(Ordering::Acquire).is_null() || !self.inbox.is_empty()
    }
}

impl Drop for CoreShared {
    fn drop(&mut self) {
        self.swap_remote(NO_MORE, drop);
    }
}

/// How the world looks from this core: real, or simulated.
#[allow(
    clippy::large_enum_variant,
    reason = "one per core; the real one is not to be behind another pointer"
)]
pub(crate) enum Driver {
    Uring(UringDriver),
    Sim(SimDriver),
}

pub(crate) struct Core {
    pub(crate) shared: Arc<CoreShared>,
    pub(crate) peers: RefCell<Vec<CoreHandle>>,
    ready: RefCell<VecDeque<TaskRef>>,
    tasks: RefCell<Slab<TaskRef>>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) locals: crate::local::Locals,
    /// Before the pool: what the ring has registered is freed after the ring.
    pub(crate) driver: Driver,
    pub(crate) pool: Pool,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Core>>> = const { Cell::new(None) };
}

/// Makes a core the thread's current one until dropped.
pub(crate) struct Entered {
    before: Option<NonNull<Core>>,
    _core: Rc<Core>,
}

pub(crate) fn enter(core: &Rc<Core>) -> Entered {
    Entered {
        before: CURRENT.replace(Some(NonNull::from(core.as_ref()))),
        _core: core.clone(),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

pub(crate) fn try_with_core<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    // SAFETY: CURRENT is set by `enter` only, whose guard keeps the core alive.
    CURRENT.get().map(|core| f(unsafe { core.as_ref() }))
}

pub(crate) fn with_core<R>(f: impl FnOnce(&Core) -> R) -> R {
    try_with_core(f).expect("called outside a reactor: this runs on a reactor core only")
}

/// Queues the task if this thread is its core; gives it back otherwise.
pub(crate) fn push_if_local(task: TaskRef) -> Option<TaskRef> {
    let mut task = Some(task);
    try_with_core(|core| {
        if let Some(mine) = task.take_if(|t| Arc::ptr_eq(&t.header().shared, &core.shared)) {
            core.ready.borrow_mut().push_back(mine);
        }
    });
    task
}

impl Core {
    pub(crate) fn new(shared: Arc<CoreShared>, driver: Driver, pool: Pool) -> Rc<Core> {
        Rc::new(Core {
            shared,
            peers: RefCell::new(Vec::new()),
            ready: RefCell::new(VecDeque::new()),
            tasks: RefCell::new(Slab::new()),
            timers: RefCell::new(Timers::new()),
            pool,
            locals: crate::local::Locals::default(),
            driver,
        })
    }

    pub(crate) fn handle(&self) -> CoreHandle {
        CoreHandle {
            shared: self.shared.clone(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        match &self.driver {
            Driver::Uring(driver) => driver.now(),
            Driver::Sim(driver) => driver.now(),
        }
    }

    fn spawn_task(&self, future: impl Future<Output = ()> + 'static) {
        let task = TaskRef::new(future, self.shared.clone());
        let index = self.tasks.borrow_mut().insert(task.clone());
        task.header().index.set(index);
        task.mark_queued();
        self.ready.borrow_mut().push_back(task);
    }

    /// Takes in what other threads sent: woken tasks and jobs. True if there was anything.
    pub(crate) fn drain_remote(&self) -> bool {
        let mut any = false;
        self.shared.take_remote(|task| {
            self.ready.borrow_mut().push_back(task);
            any = true;
        });
        // No more than were there at the beginning: senders must not keep us here.
        for _ in 0..self.shared.inbox.len() {
            let Some(job) = self.shared.inbox.pop() else {
                break;
            };
            job();
            any = true;
        }
        any
    }

    pub(crate) fn fire_timers(&self) -> bool {
        let now = self.now();
        let mut any = false;
        // One at a time: a waker may set timers.
        while let Some(waker) = { self.timers.borrow_mut().pop_due(now) } {
            waker.wake();
            any = true;
        }
        any
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Runs the `pick`-th ready task (modulo their number); false when there is none.
    pub(crate) fn run_one(&self, pick: usize) -> bool {
        let task = {
            let mut ready = self.ready.borrow_mut();
            match ready.len() {
                0 => return false,
                _ if pick == 0 => ready.pop_front(),
                len => ready.remove(pick % len),
            }
        };
        let Some(task) = task else { return false };
        if task.run() {
            let known = self
                .tasks
                .borrow_mut()
                .try_remove(task.header().index.get());
            drop(known);
        }
        true
    }

    /// Runs ready tasks up to the turn's budget; the number run.
    pub(crate) fn run_turn(&self) -> usize {
        let mut ran = 0;
        while ran < RUN_BUDGET && self.run_one(0) {
            ran += 1;
        }
        ran
    }

    /// Drops all tasks, so that nothing of the core's is left but what the ring owns.
    /// Jobs that have not begun are dropped; their callers see that the core has closed.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Tasks that others woke are in the registry too.
        self.shared.swap_remote(NO_MORE, drop);
        loop {
            self.shared.drop_jobs();
            let tasks: Vec<TaskRef> = self.tasks.borrow_mut().drain().collect();
            self.ready.borrow_mut().clear();
            tasks.iter().for_each(TaskRef::drop_future);
            self.locals.clear();
            // What was dropped may have started something in its last breath.
            if self.tasks.borrow().is_empty() {
                break;
            }
        }
    }
}

/// Reaches a core from any thread.
#[derive(Clone)]
pub struct CoreHandle {
    pub(crate) shared: Arc<CoreShared>,
}

/// Why a job could not be run on another core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteError {
    /// The core's inbox has no room: it is overloaded.
    Full,
    /// The core has stopped.
    Closed,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "the core's inbox is full",
            RemoteError::Closed => "the core has stopped",
        })
    }
}

impl std::error::Error for RemoteError {}

impl fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoreHandle({})", self.shared.id)
    }
}

impl CoreHandle {
    pub fn id(&self) -> CoreId {
        self.shared.id
    }

    /// What the core did since it started, as of its last turn. All zeros in simulation.
    pub fn stats(&self) -> CoreStats {
        self.shared.counts.read()
    }

    /// Starts, on that core, the future that `make` returns there. Does not wait. On the core itself
    /// it never fails for want of room.
    pub fn spawn<F, Fut>(&self, make: F) -> Result<(), RemoteError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(RemoteError::Closed);
        }
        if try_with_core(|core| Arc::ptr_eq(&core.shared, &self.shared)) == Some(true) {
            // Here: no need of the inbox, which only we could make room in.
            spawn_detached(async move { make().await });
            return Ok(());
        }
        self.shared
            .inbox
            .push(Box::new(move || spawn_detached(make())))
            .map_err(|_| RemoteError::Full)?;
        if self.shared.closed.load(Ordering::SeqCst) {
            // The core may have looked at its inbox for the last time before the push.
            self.shared.drop_jobs();
            return Err(RemoteError::Closed);
        }
        self.shared.parker.unpark();
        Ok(())
    }

    /// Runs a future on that core and waits for what it returns. May be awaited from any executor.
    /// On the core itself it becomes a task like any other.
    pub async fn call<F, Fut, T>(&self, make: F) -> Result<T, RemoteError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.spawn(move || {
            let future = make();
            async move {
                // The caller may have given up; its answer is dropped then.
                let _ = sender.send(future.await);
            }
        })?;
        receiver.await.map_err(|_| RemoteError::Closed)
    }
}

/// The core this code runs on. Panics outside a reactor.
pub fn core_id() -> CoreId {
    with_core(|core| core.shared.id)
}

/// All cores of this runtime, by id. Panics outside a reactor.
pub fn cores() -> Vec<CoreHandle> {
    with_core(|core| core.peers.borrow().clone())
}

/// Starts a task on this core whose end nobody waits for.
pub fn spawn_detached(future: impl Future<Output = ()> + 'static) {
    with_core(|core| core.spawn_task(future));
}

/// Starts a task on this core. Dropping the handle leaves it running.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    let slot = Rc::new(JoinSlot {
        state: RefCell::new(JoinState::Running(None)),
    });
    let output = slot.clone();
    spawn_detached(async move {
        let value = future.await;
        let before = output.state.replace(JoinState::Ended(value));
        if let JoinState::Running(Some(waker)) = before {
            waker.wake();
        }
    });
    JoinHandle { slot }
}

enum JoinState<T> {
    Running(Option<std::task::Waker>),
    Ended(T),
    Taken,
}

struct JoinSlot<T> {
    state: RefCell<JoinState<T>>,
}

/// Waits for a task's output.
pub struct JoinHandle<T> {
    slot: Rc<JoinSlot<T>>,
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.slot.state.borrow_mut();
        match std::mem::replace(&mut *state, JoinState::Taken) {
            JoinState::Ended(value) => Poll::Ready(value),
            JoinState::Running(_) => {
                *state = JoinState::Running(Some(cx.waker().clone()));
                Poll::Pending
            }
            JoinState::Taken => panic!("a JoinHandle is awaited once"),
        }
    }
}

/// Lets the other ready tasks of this core run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

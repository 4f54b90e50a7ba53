//! The real runtime: one pinned thread per configured CPU, each with its core and ring, and the
//! loop that such a thread runs. Simulated cores have their own, in `sim`.

use crate::buf::Pool;
use crate::core::{Core, CoreHandle, CoreId, CoreShared, Driver, RemoteError, enter};
use crate::stats::CoreStats;
use crate::sync::Parker;
use crate::time::Instant;
use crate::uring::{UringDriver, WakePoll};
use crossbeam::channel::{Sender, bounded};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How long a core that ends waits for the kernel to end its operations.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Cores of one runtime.
const MAX_CORES: usize = 1024;

/// Largest buffer pool of one core in bytes.
const MAX_BUFFER_BYTES: usize = 64 << 30;

/// How a core waits for work (R5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PollMode {
    /// Spin always: lowest latency, a whole CPU.
    Always,
    /// Spin for a while after work, then sleep in the kernel.
    #[default]
    Adaptive,
    /// Sleep as soon as there is no work.
    Never,
}

/// What a runtime is started with.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// CPU numbers, one core each.
    pub cpus: Vec<usize>,
    pub poll: PollMode,
    /// How long `Adaptive` spins after the last work.
    pub spin: Duration,
    /// Bytes of the buffer pool per core, at most 64 GiB; 0 for none.
    pub buffer_bytes: usize,
}

impl Default for RuntimeConfig {
    fn default() -> RuntimeConfig {
        RuntimeConfig {
            cpus: vec![0],
            poll: PollMode::Adaptive,
            spin: Duration::from_micros(50),
            buffer_bytes: 32 << 20,
        }
    }
}

/// The running cores. Dropping it stops them as [`Runtime::shutdown`] does.
pub struct Runtime {
    handles: Vec<CoreHandle>,
    threads: Vec<JoinHandle<()>>,
}

/// CPUs that this process may use.
pub fn available_cpus() -> Vec<usize> {
    let found = core_affinity::get_core_ids().unwrap_or_default();
    found.iter().map(|cpu| cpu.id).collect()
}

fn check(config: &RuntimeConfig) -> io::Result<()> {
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if config.cpus.is_empty() || config.cpus.len() > MAX_CORES {
        let count = config.cpus.len();
        return invalid(format!(
            "{count} CPUs for reactors: 1 to {MAX_CORES} are possible"
        ));
    }
    if config.buffer_bytes > MAX_BUFFER_BYTES {
        let bytes = config.buffer_bytes;
        return invalid(format!(
            "{bytes} bytes of buffers per core: at most {MAX_BUFFER_BYTES} are possible"
        ));
    }
    let available = available_cpus();
    for (index, cpu) in config.cpus.iter().enumerate() {
        if !available.contains(cpu) {
            return invalid(format!(
                "CPU {cpu} is not among those we may use: {available:?}"
            ));
        }
        if config.cpus[..index].contains(cpu) && config.poll == PollMode::Always {
            return invalid(format!(
                "CPU {cpu} is given twice, but a core would spin on it"
            ));
        }
    }
    Ok(())
}

/// Where the kernel's workers of the reactor on `cpu` may run: off all reactors if there is such
/// a CPU, else off this one; empty if there is no other.
fn worker_cpus(cpu: usize, reactors: &[usize]) -> libc::cpu_set_t {
    let available = available_cpus();
    let free: Vec<usize> = available
        .iter()
        .copied()
        .filter(|other| !reactors.contains(other))
        .collect();
    let chosen = if free.is_empty() { available } else { free };
    // SAFETY: an all-zero set is the empty one; CPU_SET checks its index.
    unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        for other in chosen.into_iter().filter(|other| *other != cpu) {
            libc::CPU_SET(other, &mut set);
        }
        set
    }
}

impl Runtime {
    /// Starts a core on each configured CPU. Fails, with none left running, if a CPU is not ours,
    /// or if the kernel has no usable io_uring.
    pub fn start(config: RuntimeConfig) -> io::Result<Runtime> {
        check(&config)?;
        let mut handles = Vec::new();
        for id in 0..config.cpus.len() {
            let id = CoreId(u16::try_from(id).expect("at most MAX_CORES"));
            let shared = CoreShared::new(id, Parker::with_eventfd()?);
            handles.push(CoreHandle { shared });
        }
        let mut runtime = Runtime {
            handles,
            threads: Vec::new(),
        };
        let (started, reports) = bounded(config.cpus.len());
        for (handle, cpu) in runtime.handles.clone().iter().zip(&config.cpus) {
            let seat = Seat {
                cpu: *cpu,
                workers: worker_cpus(*cpu, &config.cpus),
                config: config.clone(),
                shared: handle.shared.clone(),
                peers: runtime.handles.clone(),
            };
            let started = started.clone();
            let thread = std::thread::Builder::new()
                .name(format!("atoll-core-{}", handle.id()))
                .spawn(move || thread_main(&seat, started))?;
            runtime.threads.push(thread);
        }
        drop(started);
        for _ in &runtime.threads {
            let lost = || Err(io::Error::other("a reactor's thread panicked at its start"));
            reports.recv().unwrap_or_else(|_| lost())?;
        }
        Ok(runtime)
    }

    /// The cores, in the order of the configuration.
    pub fn cores(&self) -> &[CoreHandle] {
        &self.handles
    }

    /// Runs a future on the first core and waits for what it returns. Not from a reactor.
    pub fn run<F, Fut, T>(&self, make: F) -> Result<T, RemoteError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        block_on(self.handles[0].call(make))
    }

    /// Ends all cores: their tasks are dropped, operations in flight are waited for (for at most
    /// 10 s each core, at the same time), files are closed, threads joined.
    pub fn shutdown(self) {
        drop(self);
    }

    fn stop(&mut self) {
        for handle in &self.handles {
            handle.shared.stop();
        }
        for thread in self.threads.drain(..) {
            // A reactor that panics ends the process itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on a thread that is no reactor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    assert!(
        crate::core::try_with_core(|_| ()).is_none(),
        "a reactor never blocks (R1): block_on is for other threads"
    );
    let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// What a reactor's thread starts with.
struct Seat {
    cpu: usize,
    workers: libc::cpu_set_t,
    config: RuntimeConfig,
    shared: Arc<CoreShared>,
    peers: Vec<CoreHandle>,
}

impl Seat {
    fn take(&self) -> io::Result<Rc<Core>> {
        let id = self.shared.id;
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.cpu }) {
            let error = io::Error::last_os_error();
            let text = format!("core {id} cannot be pinned to CPU {}: {error}", self.cpu);
            return Err(io::Error::new(error.kind(), text));
        }
        let pool = Pool::new(id, self.config.buffer_bytes);
        let driver = UringDriver::new(&pool, &self.workers)?;
        let core = Core::new(self.shared.clone(), Driver::Uring(driver), pool);
        core.peers.borrow_mut().clone_from(&self.peers);
        Ok(core)
    }
}

fn thread_main(seat: &Seat, started: Sender<io::Result<()>>) {
    let core = match seat.take() {
        Ok(core) => core,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    drop(started);
    let _entered = enter(&core);
    let ended = catch_unwind(AssertUnwindSafe(|| Turns::new(&core, &seat.config).run()));
    if ended.is_err() {
        // The panic hook has said what. Half a daemon would be worse than none: its volumes would
        // hang instead of failing over.
        eprintln!("core {} has panicked: the process ends", seat.shared.id);
        std::process::abort();
    }
}

/// The loop of a core.
struct Turns<'a> {
    core: &'a Core,
    driver: &'a UringDriver,
    wake: WakePoll,
    poll: PollMode,
    spin: Duration,
    stats: CoreStats,
    /// The end of the last turn.
    mark: Instant,
    /// The end of the last turn that found work.
    worked: Instant,
}

impl<'a> Turns<'a> {
    fn new(core: &'a Core, config: &RuntimeConfig) -> Turns<'a> {
        let Driver::Uring(driver) = &core.driver else {
            unreachable!("a seat makes real cores")
        };
        let now = driver.now();
        Turns {
            core,
            driver,
            wake: driver.watch(&core.shared),
            poll: config.poll,
            spin: config.spin,
            stats: CoreStats::default(),
            mark: now,
            worked: now,
        }
    }

    fn run(&mut self) {
        while !self.core.shared.is_stopping() {
            let found_work = self.turn();
            self.account(found_work);
            if !found_work && self.may_sleep() {
                self.sleep();
            }
        }
        self.core.close();
        self.driver.unwatch(&self.wake);
        if !self.driver.drain(DRAIN_LIMIT) {
            let core = self.core.shared.id;
            tracing::error!(%core, "operations did not end in time; the ring keeps their buffers");
        }
    }

    /// One round: what others sent, tasks, timers, then the ring. True if anything was to do.
    fn turn(&mut self) -> bool {
        let core = self.core;
        let sent = core.drain_remote();
        let ran = core.run_turn();
        let fired = core.fire_timers();
        let completed = self.driver.submit_and_reap();
        self.driver.run_completions();
        self.stats.turns += 1;
        self.stats.tasks += ran as u64;
        sent || ran > 0 || fired || completed > 0
    }

    fn account(&mut self, found_work: bool) {
        let now = self.driver.now();
        let spent = now.since(self.mark);
        if found_work {
            self.stats.busy += spent;
            self.worked = now;
        } else {
            self.stats.polling += spent;
        }
        self.mark = now;
        self.publish();
    }

    fn publish(&mut self) {
        let counts = self.driver.counts();
        self.stats.submissions = counts.submissions;
        self.stats.enters = counts.enters;
        self.stats.completions = counts.completions;
        self.core.shared.counts.publish(&self.stats);
    }

    fn may_sleep(&self) -> bool {
        match self.poll {
            PollMode::Always => false,
            PollMode::Never => true,
            PollMode::Adaptive => self.mark.since(self.worked) >= self.spin,
        }
    }

    /// Sleeps until a completion, a timer or another thread has something to do.
    fn sleep(&mut self) {
        let shared = &self.core.shared;
        self.driver.rearm(&self.wake);
        shared.parker.prepare_sleep();
        if !shared.has_remote_work() && !shared.is_stopping() && self.core.ready_len() == 0 {
            let next = self.core.timers.borrow().next_deadline();
            let limit = next.map(|at| at.since(self.driver.now()));
            if limit != Some(Duration::ZERO) {
                self.driver.submit_and_wait(limit);
            }
        }
        shared.parker.awake();
        let now = self.driver.now();
        self.stats.asleep += now.since(self.mark);
        self.mark = now;
        self.driver.run_completions();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{TcpListener, TcpStream};
    use crate::{Buf, SharedBuf, sleep};

    /// Something of everything that the ring does.
    async fn errand(number: u8) -> u8 {
        sleep(Duration::from_micros(20)).await;
        let here = crate::fs::metadata(std::path::Path::new(".")).await;
        assert!(here.unwrap().is_dir);
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let one = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (two, _) = listener.accept().await.unwrap();
        let two = two.attach().unwrap();
        let answer = crate::spawn(async move { two.recv(Buf::alloc(16)).await });
        crate::yield_now().await;
        let text = vec![SharedBuf::copy_of(&[number])];
        one.send_all(text).await.unwrap();
        let (count, buf) = answer.await;
        assert_eq!(count.unwrap(), 1);
        buf[0]
    }

    #[test]
    fn rings_with_the_flags_of_older_kernels_serve_and_wake_up_too() {
        for poll in [PollMode::Never, PollMode::Adaptive] {
            for ring in crate::uring::rings_to_try() {
                let Ok(ring) = ring else {
                    println!("skipped: this kernel does not know the flags");
                    continue;
                };
                let parker = Parker::with_eventfd().unwrap();
                let shared = CoreShared::new(CoreId(0), parker);
                let pool = Pool::new(CoreId(0), 1 << 20);
                let driver = UringDriver::with_ring(ring, &pool, &worker_cpus(0, &[])).unwrap();
                let core = Core::new(shared, Driver::Uring(driver), pool);
                let handle = core.handle();
                let caller = std::thread::spawn(move || {
                    let answers: Vec<_> = (0..50)
                        .map(|number| block_on(handle.call(move || errand(number))))
                        .collect();
                    handle.shared.stop();
                    answers
                });
                let _entered = enter(&core);
                let config = RuntimeConfig {
                    poll,
                    ..RuntimeConfig::default()
                };
                Turns::new(&core, &config).run();
                let expected: Vec<_> = (0..50).map(Ok).collect();
                assert_eq!(caller.join().unwrap(), expected);
            }
        }
    }
}

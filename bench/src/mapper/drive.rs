//! Random 4 KiB reads and writes of a volume on some cores: operations per second, or how long those
//! took that took long.

use super::rows::Random;
use atoll_mapper::{Result, VolumeHandle};
use atoll_reactor::{Buf, CoreHandle, oneshot, spawn, yield_now};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const BLOCK: u64 = 4096;
/// Operations under way on each core.
pub const DEPTH: u64 = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Read,
    Write,
}

#[derive(Clone)]
pub struct Load {
    pub volume: VolumeHandle,
    pub operation: Operation,
    /// Only operations that took longer are told one by one.
    pub slow: Duration,
}

impl Load {
    pub fn of(volume: &VolumeHandle, operation: Operation) -> Load {
        Load {
            volume: volume.clone(),
            operation,
            slow: Duration::MAX,
        }
    }
}

/// What the operations of all cores were like.
#[derive(Default)]
pub struct Done {
    pub operations: u64,
    /// When the slow ones began and ended.
    pub slow: Vec<(Instant, Instant)>,
    /// Operations per second.
    pub rate: f64,
}

/// Operations that run until they are stopped.
pub struct Running {
    stop: Arc<AtomicBool>,
    began: Instant,
    cores: Vec<oneshot::Receiver<Done>>,
}

impl Running {
    pub fn begin(load: &Load, cores: &[CoreHandle], seed: u64) -> Running {
        let stop = Arc::<AtomicBool>::default();
        let began = Instant::now();
        let cores = cores.iter().map(|core| {
            let (sender, receiver) = oneshot::channel();
            let (load, stop) = (load.clone(), stop.clone());
            let seed = seed.wrapping_mul(1000) + u64::from(core.id().0) * 100;
            let begun = core.spawn(move || async move {
                // Who asks waits for it.
                let _ = sender.send(on_this_core(load, stop, seed).await);
            });
            begun.expect("an idle core takes it");
            receiver
        });
        let cores = cores.collect();
        Running { stop, began, cores }
    }

    pub async fn end(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Done::default();
        let mut seconds = self.began.elapsed().as_secs_f64();
        for core in self.cores {
            let done = core.await.expect("the core runs to the end");
            all.operations += done.operations;
            all.slow.extend(done.slow);
            seconds = seconds.max(self.began.elapsed().as_secs_f64());
        }
        all.rate = all.operations as f64 / seconds;
        all
    }
}

/// Operations per second for so long. Not from a reactor.
pub fn rate(load: &Load, cores: &[CoreHandle], seed: u64, span: Duration) -> Done {
    let running = Running::begin(load, cores, seed);
    pause(span);
    atoll_reactor::block_on(running.end())
}

/// Not from a reactor.
#[allow(
    clippy::disallowed_methods,
    reason = "the thread that measures is no reactor"
)]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

async fn on_this_core(load: Load, stop: Arc<AtomicBool>, seed: u64) -> Done {
    let tasks: Vec<_> = (0..DEPTH)
        .map(|number| {
            let random = Random(seed + number);
            spawn(task(load.clone(), stop.clone(), random))
        })
        .collect();
    let mut all = Done::default();
    for task in tasks {
        let done = task.await;
        all.operations += done.operations;
        all.slow.extend(done.slow);
    }
    all
}

async fn task(load: Load, stop: Arc<AtomicBool>, mut random: Random) -> Done {
    let mut data = Buf::alloc(BLOCK as usize);
    data.fill(0x5a);
    let block = data.freeze();
    let blocks = load.volume.size() / BLOCK;
    let mut done = Done::default();
    while !stop.load(Ordering::Relaxed) {
        let at = random.below(blocks) * BLOCK;
        let began = (load.slow < Duration::MAX).then(Instant::now);
        match load.operation {
            Operation::Read => {
                let read = load.volume.read(at, BLOCK).await;
                black_box(read.expect("what is mapped is read"));
            }
            Operation::Write => {
                let written = load.volume.write(at, block.clone(), false).await;
                written.expect("a block is written");
            }
        }
        if let Some(began) = began {
            let ended = Instant::now();
            if ended - began > load.slow {
                done.slow.push((began, ended));
            }
        }
        done.operations += 1;
        // A store that answers at once would keep a task running for ever.
        yield_now().await;
    }
    done
}

/// Writes so many random blocks, on the volume's home core.
pub async fn touch(volume: &VolumeHandle, blocks: u64, seed: u64) {
    let (home, volume) = (volume.home().clone(), volume.clone());
    let touched = home.call(move || async move {
        let mut random = Random(seed);
        for _ in 0..blocks {
            let at = random.below(volume.size() / BLOCK) * BLOCK;
            let data = Buf::zeroed(BLOCK as usize).freeze();
            let written = volume.write(at, data, false).await;
            written.expect("a block is written");
        }
    });
    touched.await.expect("the core runs");
}

/// Makes what was written durable.
pub async fn flush(volume: &VolumeHandle) -> Result<()> {
    let (home, volume) = (volume.home().clone(), volume.clone());
    let flushed = home.call(move || async move { volume.flush().await });
    flushed.await.expect("the core runs")
}

//! The real runtime: one pinned thread per configured CPU, each with its core and ring.

use std::time::Duration;

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
    /// Bytes of the buffer pool per core.
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

/// The running cores.
pub struct Runtime {}

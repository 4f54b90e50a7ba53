//! Starting real cores in tests.
#![allow(dead_code, reason = "each test binary uses a part")]

use atoll_reactor::runtime::available_cpus;
use atoll_reactor::{PollMode, Runtime, RuntimeConfig};

/// A runtime of `cores` cores on the CPUs that there are, several on one if need be.
pub fn start(cores: usize, poll: PollMode) -> Runtime {
    let available = available_cpus();
    let config = RuntimeConfig {
        cpus: available.iter().copied().cycle().take(cores).collect(),
        poll,
        buffer_bytes: 8 << 20,
        ..RuntimeConfig::default()
    };
    Runtime::start(config).expect("this kernel has io_uring")
}

/// Runs a future on the first core of a fresh runtime.
pub fn run<F, Fut, T>(make: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let runtime = start(1, PollMode::Adaptive);
    let value = runtime.run(make).expect("the core runs");
    runtime.shutdown();
    value
}

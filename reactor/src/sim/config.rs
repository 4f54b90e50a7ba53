//! What a simulation can be told: how long things take and what may go wrong by chance.

use std::ops::RangeInclusive;
use std::time::Duration;

const fn micros(low: u64, high: u64) -> RangeInclusive<Duration> {
    Duration::from_micros(low)..=Duration::from_micros(high)
}

/// A simulation's settings. Ranges are drawn from uniformly.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Virtual time that one run of a task takes.
    pub step: RangeInclusive<Duration>,
    /// Virtual time until a core sees what another thread, the disk or the network sent it.
    pub wake: RangeInclusive<Duration>,
    /// For the disk that the simulation makes; one that it is given keeps its own.
    pub disk: DiskConfig,
    pub net: NetConfig,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            step: Duration::ZERO..=Duration::from_nanos(500),
            wake: Duration::ZERO..=Duration::from_micros(5),
            disk: DiskConfig::default(),
            net: NetConfig::default(),
        }
    }
}

/// A simulated disk and the file system on it.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Room for file content, in bytes.
    pub capacity: u64,
    /// Bytes that a crash never tears, a power of two from 512 to 4096.
    pub atomic_unit: usize,
    /// Whether the file system takes `O_DIRECT`.
    pub direct: bool,
    /// Whether `syncfs` does anything. False as with FUSE: it succeeds and syncs nothing.
    pub honours_syncfs: bool,
    /// Time of everything but syncs.
    pub latency: RangeInclusive<Duration>,
    /// Time of `fsync`, `fdatasync` and `syncfs`.
    pub sync_latency: RangeInclusive<Duration>,
    /// Probability that an operation takes `slow` instead.
    pub slow_probability: f64,
    pub slow: RangeInclusive<Duration>,
    /// Probability that a read, write or sync of content fails with `EIO`.
    pub error_probability: f64,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig {
            capacity: 1 << 40,
            atomic_unit: 512,
            direct: true,
            honours_syncfs: true,
            latency: micros(10, 200),
            sync_latency: micros(100, 2000),
            slow_probability: 0.01,
            slow: micros(2000, 20_000),
            error_probability: 0.0,
        }
    }
}

/// The simulated network.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Time that a segment travels.
    pub latency: RangeInclusive<Duration>,
    /// Bytes that may be under way or unread in one direction.
    pub window: usize,
    /// Largest segment in bytes; each one's size is drawn.
    pub segment: usize,
    /// Probability per segment that the connection is reset instead.
    pub reset_probability: f64,
    /// Connections that wait to be accepted; more wait to connect.
    pub backlog: usize,
    /// Time after which a `connect` without answer fails with `TimedOut`.
    pub connect_timeout: Duration,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            latency: micros(5, 100),
            window: 256 << 10,
            segment: 64 << 10,
            reset_probability: 0.0,
            backlog: 128,
            connect_timeout: Duration::from_secs(127),
        }
    }
}

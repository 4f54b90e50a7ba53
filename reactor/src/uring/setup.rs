//! Setting a ring up: the best flags that this kernel has, checks, the kernel's worker threads,
//! and the registration of the buffer pool. What is missing is done without, or said clearly.

use crate::buf::Pool;
use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Largest buffer that a ring registers, in bytes; a pool's region is cut into such pieces.
/// No block of the pool crosses a multiple of it.
pub(super) const MAX_FIXED: usize = 1 << 30;
/// Kernel threads per ring for what cannot be done without blocking: for files, and for the rest.
const MAX_WORKERS: [u32; 2] = [16, 16];

/// A ring for this thread alone: with deferred task work, without it, then plain.
pub(super) fn rings(sq_entries: u32, cq_entries: u32) -> impl Iterator<Item = io::Result<IoUring>> {
    let mut best = IoUring::builder();
    best.setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag();
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let builders = [best, cooperative, IoUring::builder()];
    builders.into_iter().map(move |mut builder| {
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(cq_entries)
            .build(sq_entries)
    })
}

/// The best ring that this kernel has.
pub(super) fn ring(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    let mut error = None;
    for ring in rings(sq_entries, cq_entries) {
        match ring {
            Ok(ring) => return Ok(ring),
            // An older kernel does not know one of the flags.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => error = Some(e),
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    let error = error.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    let hint = match error.raw_os_error() {
        Some(libc::ENOSYS) => " (the kernel has none)",
        Some(libc::EPERM | libc::EACCES) => {
            " (forbidden: see sysctl kernel.io_uring_disabled and the container's seccomp profile)"
        }
        Some(libc::ENOMEM) => " (see ulimit -l)",
        _ => "",
    };
    let text = format!("io_uring cannot be set up{hint}: {error}");
    Err(io::Error::new(error.kind(), text))
}

/// Fails if the kernel lacks what we cannot do without; true if it has `IORING_OP_FTRUNCATE`.
pub(super) fn check(ring: &IoUring) -> io::Result<bool> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let params = ring.params();
    let enough = params.is_feature_ext_arg()
        && params.is_feature_nodrop()
        && probe.is_supported(opcode::MkDirAt::CODE)
        && probe.is_supported(opcode::Statx::CODE);
    if !enough {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's io_uring is too old: Linux 5.15 or later is needed",
        ));
    }
    Ok(probe.is_supported(opcode::Ftruncate::CODE))
}

/// Limits the ring's kernel threads and keeps them on `allowed`: a spinning reactor would starve
/// those that share its CPU.
pub(super) fn limit_workers(ring: &IoUring, allowed: &libc::cpu_set_t) {
    // SAFETY: reads the set.
    if unsafe { libc::CPU_COUNT(allowed) } > 0
        && let Err(error) = ring.submitter().register_iowq_aff(allowed)
    {
        tracing::debug!(%error, "the ring's kernel threads share the reactor's CPU");
    }
    let mut limits = MAX_WORKERS;
    if let Err(error) = ring.submitter().register_iowq_max_workers(&mut limits) {
        tracing::debug!(%error, "the ring's kernel threads are not limited");
    }
}

/// Registers the pool's memory with the ring; false if that is not allowed here.
pub(super) fn register_pool(ring: &IoUring, pool: &Pool) -> bool {
    let (start, len) = pool.region();
    if len == 0 {
        return false;
    }
    let pieces: Vec<libc::iovec> = (0..len)
        .step_by(MAX_FIXED)
        .map(|offset| libc::iovec {
            iov_base: start.wrapping_add(offset).cast(),
            iov_len: MAX_FIXED.min(len - offset),
        })
        .collect();
    // SAFETY: the region outlives the ring: the core drops its ring first, and the kernel keeps
    // the pages of what is in flight.
    match unsafe { ring.submitter().register_buffers(&pieces) } {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, bytes = len, "buffers are not registered with the ring (ulimit -l)");
            false
        }
    }
}

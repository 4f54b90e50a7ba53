//! The contract, applied to every store of this crate.

use atoll_backends::contract::{Check, Subject};
use atoll_backends::{
    Chaos, ChaosOptions, FileOptions, FilePool, MemoryOptions, MemoryPool, NullOptions, NullPool,
    ObjectSize, Pool, PoolId, contract_tests,
};
use atoll_reactor::sim::Sim;
use atoll_reactor::{LocalFuture, Runtime, RuntimeConfig};
use std::path::Path;
use std::sync::Arc;

const SIZE: ObjectSize = ObjectSize::new(128 << 10).expect("128 KiB");
const POOL: PoolId = PoolId([0x5a; 16]);
const LIMIT: u64 = 2 << 20;

fn memory(zeroes_new: bool) -> MemoryPool {
    MemoryPool::new(MemoryOptions {
        object_size: SIZE,
        capacity: 64 << 20,
        zeroes_new,
    })
}

fn in_sim(check: Check, subject: impl Fn() -> Subject + Copy + 'static) {
    for seed in 0..5 {
        Sim::new(seed, 2).block_on(async move { check(subject()).await });
    }
}

mod memory_pool {
    use super::*;

    fn harness(check: Check) {
        in_sim(check, || Subject::new(Arc::new(memory(true))));
    }
    contract_tests!(harness);
}

mod memory_pool_with_garbage {
    use super::*;

    fn harness(check: Check) {
        in_sim(check, || Subject::new(Arc::new(memory(false))));
    }
    contract_tests!(harness);
}

mod small_memory_pool {
    use super::*;

    fn harness(check: Check) {
        let options = MemoryOptions {
            object_size: SIZE,
            capacity: LIMIT,
            zeroes_new: true,
        };
        in_sim(check, move || Subject {
            limit: Some(LIMIT),
            ..Subject::new(Arc::new(MemoryPool::new(options)))
        });
    }

    #[test]
    fn refuses_what_does_not_fit() {
        harness(atoll_backends::contract::a_full_pool_refuses_writes_and_goes_on);
    }
}

mod memory_pool_on_real_cores {
    use super::*;

    fn harness(check: Check) {
        on_real_cores(check, || {
            LocalFuture::ready(Subject::new(Arc::new(memory(true))))
        });
    }
    contract_tests!(harness);
}

mod null_pool {
    use super::*;

    fn harness(check: Check) {
        let options = NullOptions {
            object_size: SIZE,
            ..NullOptions::default()
        };
        in_sim(check, move || Subject {
            keeps_content: false,
            ..Subject::new(Arc::new(NullPool::new(options)))
        });
    }
    contract_tests!(harness);
}

mod chaos_without_faults {
    use super::*;

    fn harness(check: Check) {
        in_sim(check, || {
            let (pool, handle) = Chaos::new(Arc::new(memory(true)), ChaosOptions::default());
            let again = pool.clone();
            Subject {
                power_loss: Some(Box::new(move |seed| {
                    let (handle, again) = (handle.clone(), again.clone());
                    LocalFuture::new(async move {
                        handle.crash(seed).await.expect("crashes");
                        let pool: Arc<dyn Pool> = Arc::new(again);
                        pool
                    })
                })),
                ..Subject::new(Arc::new(pool))
            }
        });
    }
    contract_tests!(harness);
}

async fn file_pool(path: &Path, options: FileOptions) -> Subject {
    let pool = FilePool::create(path, POOL, SIZE, options).await;
    Subject::new(Arc::new(pool.expect("is created")))
}

mod file_pool_in_simulation {
    use super::*;

    fn harness(check: Check) {
        // Few open files, so that they are closed and opened again.
        let options = FileOptions {
            open_files: 3,
            ..FileOptions::default()
        };
        for (seed, direct) in [(1, true), (2, true), (3, false), (4, false)] {
            Sim::new(seed, 2).block_on(async move {
                let options = FileOptions { direct, ..options };
                check(file_pool(Path::new("/pool"), options).await).await;
            });
        }
    }
    contract_tests!(harness);
}

/// Two cores of the machine, without pinning them apart where there is only one CPU.
fn on_real_cores(
    check: Check,
    subject: impl FnOnce() -> LocalFuture<'static, Subject> + Send + 'static,
) {
    let available = atoll_reactor::runtime::available_cpus();
    let first = *available.first().expect("a CPU");
    let cpus = vec![first, *available.get(1).unwrap_or(&first)];
    let runtime = Runtime::start(RuntimeConfig {
        cpus,
        poll: atoll_reactor::PollMode::Never,
        ..RuntimeConfig::default()
    })
    .expect("a runtime starts");
    runtime
        .run(move || async move { check(subject().await).await })
        .expect("the check passes");
    runtime.shutdown();
}

mod file_pool_on_a_real_disk {
    use super::*;

    fn harness(check: Check) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pool");
        on_real_cores(check, move || {
            LocalFuture::new(async move { file_pool(&path, FileOptions::default()).await })
        });
    }
    contract_tests!(harness);
}

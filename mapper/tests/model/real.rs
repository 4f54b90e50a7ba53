//! The same histories on io_uring, RocksDB and a file pool, in a directory. A life ends by a clean stop, or
//! like a killed process: nothing is said goodbye to, what the kernel has taken stays.

use crate::history::{self, Progress};
use crate::world::{OBJECT_SIZE, Shared};
use atoll_backends::file::{FileOptions, FilePool};
use atoll_backends::{ObjectSize, Pool};
use atoll_mapper::format::PoolRow;
use atoll_mapper::meta::rocks::{OpenMode, RocksMeta, RocksOptions};
use atoll_mapper::types::PoolNumber;
use atoll_mapper::{Error, PoolFactory, Result, fsck};
use atoll_reactor::{LocalFuture, Runtime, RuntimeConfig};
use rand::Rng;
use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Operations of one life, at most.
const MAX_LIFE: u64 = 300;

struct OneFilePool(PathBuf);

impl PoolFactory for OneFilePool {
    fn open(&self, row: &PoolRow, unused: bool) -> LocalFuture<'_, Result<Arc<dyn Pool>>> {
        let (id, size) = (row.id, row.object_size);
        LocalFuture::new(async move {
            let options = FileOptions::default();
            let opened = match unused {
                true => FilePool::create(&self.0, id, size, options).await,
                false => FilePool::open(&self.0, id, size, options).await,
            };
            let pool: Arc<dyn Pool> = Arc::new(opened.map_err(Error::from)?);
            Ok(pool)
        })
    }
}

pub fn run(seed: u64, steps: u64) -> Progress {
    let dir = tempfile::tempdir().expect("a directory");
    let mut shared = Shared::new(seed);
    while shared.progress.operations < steps {
        shared = live(dir.path(), shared);
        check(dir.path(), &shared);
    }
    shared.progress
}

fn runtime() -> Runtime {
    let cpus = atoll_reactor::runtime::available_cpus();
    let cpus = cpus[..cpus.len().min(2)].to_vec();
    let config = RuntimeConfig {
        cpus,
        buffer_bytes: 4 << 20,
        ..RuntimeConfig::default()
    };
    Runtime::start(config).expect("the reactors start")
}

fn live(dir: &Path, mut shared: Shared) -> Shared {
    let mode = match dir.join("meta").exists() {
        true => OpenMode::Existing,
        false => OpenMode::Create,
    };
    let meta = RocksMeta::open(&dir.join("meta"), mode, &RocksOptions::default());
    let meta = Arc::new(meta.expect("the metadata store opens after a kill"));
    let factory = Arc::new(OneFilePool(dir.join("pool")));
    (shared.stopped, shared.ended) = (false, false);
    shared.claimed.clear();
    let until = shared.progress.operations + shared.rng.random_range(1..MAX_LIFE);
    let runtime = runtime();
    let mut shared = runtime
        .run(move || async move {
            let shared = Rc::new(RefCell::new(shared));
            let mut life = pin!(history::life(meta, factory, None, shared.clone()));
            std::future::poll_fn(|cx| {
                let ended = life.as_mut().poll(cx).is_ready();
                match ended || shared.borrow().progress.operations >= until {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            shared.borrow_mut().ended = true;
            // Operations under way have said what they write; the model goes on without their answers.
            shared.borrow().clone()
        })
        .expect("the reactor runs");
    runtime.shutdown();
    match shared.stopped {
        true => shared.progress.clean_stops += 1,
        false => {
            shared.progress.crashes += 1;
            shared.crashed = true;
        }
    }
    shared
}

fn check(dir: &Path, shared: &Shared) {
    let meta = RocksMeta::open_read_only(&dir.join("meta")).expect("it opens for reading");
    let pool = dir.join("pool");
    let runtime = runtime();
    let findings = runtime.run(move || async move {
        let size = ObjectSize::new(OBJECT_SIZE).expect("valid");
        let opened = FilePool::open(&pool, history::POOL_ID, size, FileOptions::default()).await;
        let store = opened
            .expect("the pool opens")
            .attach()
            .await
            .expect("it is there");
        let pools = [(PoolNumber::FIRST, store)];
        let report = fsck::check(&meta, &pools, fsck::Options::default(), &mut |_| {}).await;
        let report = report.expect("both are readable");
        (!report.is_clean()).then(|| format!("{:#?}", report.findings))
    });
    runtime.shutdown();
    if let Some(findings) = findings.expect("the reactor runs") {
        panic!("after {:?}: {findings}", shared.progress);
    }
}

//! The engine: reactors, metadata, pools, maps and targets, composed; started and stopped in
//! order. What the verbs do is in `verbs`. Not the control plane, and not the I/O path itself.

mod check;
mod convert;
mod failure;
mod importing;
mod imports;
mod pools;
mod portal;
mod snapshots;
#[cfg(test)]
mod tests;
mod transfer;
mod verbs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atoll_backends::file::FilePool;
use atoll_mapper::meta::MetaStore;
use atoll_mapper::meta::rocks::{OpenMode, RocksMeta, RocksOptions};
use atoll_mapper::types::InstanceId;
use atoll_mapper::{ErrorKind as Below, GcConfig, Mapper, MapperConfig, VolumeHandle};
use atoll_reactor::{CoreHandle, Runtime, RuntimeConfig, block_on};
use uuid::Uuid;

use crate::api::{DEFAULT_OBJECT_SIZE, PoolType, default_pool};
use crate::config::{Config, PollMode};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::name::ResourceName;
use crate::units::ByteSize;

pub use check::{Depth, fsck};
use imports::Imports;
use pools::Factory;
use portal::Portal;

/// The default pool's directory inside the data directory.
const DEFAULT_POOL_DIR: &str = "pool";
/// How long sessions that were asked to log out may take for it.
const LOGOUT_GRACE: Duration = Duration::from_secs(5);

/// A running engine.
struct Engine {
    config: Config,
    /// The data directory, absolute.
    data: PathBuf,
    started: Instant,
    cores: Vec<CoreHandle>,
    meta: Arc<dyn MetaStore>,
    mapper: Mapper,
    portal: Portal,
    /// Exports that are not served, and why.
    unserved: Mutex<BTreeMap<ResourceName, String>>,
    imports: Imports,
    /// Of resources whose content admins read or write, by their ids.
    handles: Mutex<BTreeMap<Uuid, VolumeHandle>>,
    /// Held by whatever changes something: a change has several steps. True once stopping.
    stopped: tokio::sync::Mutex<bool>,
    /// Taken by the stop.
    runtime: Mutex<Option<Runtime>>,
}

/// Starts everything that `config` names; the caller holds the data directory's lock.
///
/// When it returns, initiators can log in to every export. Blocks.
pub fn start(config: &Config) -> Result<Arc<dyn Control>> {
    Ok(Arc::new(verbs::Verbs::new(start_engine(config)?)))
}

fn start_engine(config: &Config) -> Result<Arc<Engine>> {
    let data = absolute(&config.data)?;
    let imports = Imports::load(&data)?;
    let runtime = start_runtime(config)?;
    let meta = open_metadata(config, &data, &runtime)?;
    let engine = block_on(compose(config, data, &runtime, meta, imports))?;
    let volumes = block_on(engine.mapper.volumes()).map_err(|e| failure::of_mapper(&e))?;
    let there = |id: Uuid| volumes.iter().any(|info| info.id.0 == *id.as_bytes());
    engine.imports.retain(there);
    *lock(&engine.runtime) = Some(runtime);
    Ok(engine)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|e| Error::internal(format!("directory {}: {e}", path.display())))
}

/// Nobody panics while holding one of these locks, and what they guard is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn usize_of(size: ByteSize) -> usize {
    usize::try_from(size.get()).unwrap_or(usize::MAX)
}

fn start_runtime(config: &Config) -> Result<Runtime> {
    let reactor = &config.reactor;
    Runtime::start(RuntimeConfig {
        cpus: reactor.cores.iter().map(|cpu| *cpu as usize).collect(),
        poll: match reactor.poll {
            PollMode::Adaptive => atoll_reactor::PollMode::Adaptive,
            PollMode::Always => atoll_reactor::PollMode::Always,
            PollMode::Never => atoll_reactor::PollMode::Never,
        },
        spin: reactor.spin.0,
        buffer_bytes: usize_of(reactor.buffer_memory),
    })
    .map_err(|why| match why.kind() {
        std::io::ErrorKind::InvalidInput => Error::invalid(format!("reactor.cores: {why}"))
            .hint("name CPUs that the daemon may use, as in --cores 0"),
        std::io::ErrorKind::OutOfMemory => Error::internal(format!(
            "cannot start the reactors: {why}"
        ))
        .hint("a smaller reactor.buffer_memory, or a higher limit of locked memory (ulimit -l)"),
        _ => Error::internal(format!("cannot start the reactors: {why}")).hint(
            "io_uring is needed: Linux 5.11 or newer, and sysctl kernel.io_uring_disabled = 0",
        ),
    })
}

/// Opens the metadata store; makes a new one only where nothing says that there was one.
fn open_metadata(config: &Config, data: &Path, runtime: &Runtime) -> Result<Arc<dyn MetaStore>> {
    let path = absolute(&config.metadata_path())?;
    let options = RocksOptions::default();
    let opened = match RocksMeta::open(&path, OpenMode::Existing, &options) {
        Err(error) if error.kind() == Below::NotFound => {
            refuse_orphaned_pool(data, &path, runtime)?;
            tracing::info!(path = %path.display(), "a new metadata store");
            RocksMeta::open(&path, OpenMode::Create, &options)
        }
        other => other,
    };
    let meta = opened.map_err(|error| failure::of_mapper(&error).context("metadata store"))?;
    Ok(Arc::new(meta))
}

/// A pool without the metadata that names its objects: starting afresh would hide a mistake.
fn refuse_orphaned_pool(data: &Path, metadata: &Path, runtime: &Runtime) -> Result<()> {
    let pool = data.join(DEFAULT_POOL_DIR);
    let path = pool.clone();
    let probed = runtime.run(move || async move { FilePool::probe(&path).await.is_ok() });
    match probed {
        Ok(true) => Err(Error::refused(format!(
            "there is no metadata store in {}, but {} holds a pool whose objects it would name",
            metadata.display(),
            pool.display()
        ))
        .hint("is its file system mounted, and is metadata.path the one of before? To start afresh, move the pool's directory away")),
        _ => Ok(()),
    }
}

async fn compose(
    config: &Config,
    data: PathBuf,
    runtime: &Runtime,
    meta: Arc<dyn MetaStore>,
    imports: Imports,
) -> Result<Arc<Engine>> {
    let cores = runtime.cores().to_vec();
    let factory = Arc::new(Factory { data: data.clone() });
    let mapper_config = MapperConfig {
        page_memory: usize_of(config.metadata.page_memory) / cores.len(),
        io_timeout: config.io_timeout.0,
        gc: GcConfig {
            max_iops: config.gc.max_iops,
            fill: config.gc.fill,
        },
    };
    let instance = InstanceId(*Uuid::new_v4().as_bytes());
    let started = Mapper::start(
        meta.clone(),
        factory,
        instance,
        cores.clone(),
        mapper_config,
    );
    let mapper = match started.await {
        Ok(mapper) => mapper,
        Err(error) => {
            close_metadata(&cores[0], meta).await;
            return Err(failure::of_mapper(&error));
        }
    };
    match serve(config, &mapper, &cores).await {
        Ok((portal, unserved)) => Ok(Arc::new(Engine {
            config: config.clone(),
            data,
            started: Instant::now(),
            cores,
            meta,
            mapper,
            portal,
            unserved: Mutex::new(unserved),
            imports,
            handles: Mutex::default(),
            stopped: tokio::sync::Mutex::new(false),
            runtime: Mutex::default(),
        })),
        Err(error) => {
            // Nothing was served: the next start need not take this one for a crash.
            if let Err(why) = mapper.stop().await {
                tracing::warn!(error = %why, "the start that failed did not end cleanly either");
            }
            Err(error)
        }
    }
}

async fn close_metadata(core: &CoreHandle, meta: Arc<dyn MetaStore>) {
    let closed = core.call(move || async move { meta.close().await.map_err(|e| e.to_string()) });
    if let Ok(Err(error)) = closed.await {
        tracing::warn!(%error, "the metadata store could not be closed");
    }
}

/// Default pool, exported volumes, and last the listener: whoever comes finds its target.
async fn serve(
    config: &Config,
    mapper: &Mapper,
    cores: &[CoreHandle],
) -> Result<(Portal, BTreeMap<ResourceName, String>)> {
    ensure_default_pool(mapper).await?;
    let mut unserved = BTreeMap::new();
    let mut targets = Vec::new();
    let exports = mapper.exports().await.map_err(|e| failure::of_mapper(&e))?;
    for export in exports {
        let name = convert::name_above(&export.name)?;
        match verbs::target_of(mapper, &name, export.read_only).await {
            Ok(target) => targets.push(target),
            Err(error) => {
                // The others are served all the same.
                tracing::error!(export = %name, %error, "the export is not served");
                unserved.insert(name, error.message);
            }
        }
    }
    let portal = Portal::start(config, cores, targets).await?;
    Ok((portal, unserved))
}

async fn ensure_default_pool(mapper: &Mapper) -> Result<()> {
    let name = default_pool();
    match mapper.pool(convert::name_below(&name)?).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Below::NotFound => {
            let path = Some(DEFAULT_POOL_DIR.to_owned());
            let pool = verbs::new_pool(name, PoolType::File, path, DEFAULT_OBJECT_SIZE)?;
            let added = mapper.add_pool(pool).await;
            added.map(drop).map_err(|e| failure::of_mapper(&e))
        }
        Err(error) => Err(failure::of_mapper(&error)),
    }
}

impl Engine {
    /// Ends everything, in the order in which it depends on each other. Goes on after failures;
    /// the first is the answer.
    async fn stop(&self) -> Result<()> {
        let mut stopped = self.stopped.lock().await;
        if std::mem::replace(&mut *stopped, true) {
            return Ok(());
        }
        let logged_out = self.portal.shutdown(LOGOUT_GRACE).await;
        let flushed = self.mapper.stop().await.map_err(|e| failure::of_mapper(&e));
        let runtime = lock(&self.runtime).take();
        // Joins threads.
        let ended = tokio::task::spawn_blocking(move || drop(runtime)).await;
        let ended = ended.map_err(|e| Error::internal(format!("the end of the reactors: {e}")));
        flushed.and(logged_out).and(ended)
    }
}

//! `atoll serve`: lock, log, admin socket, engine, signals. What is served is the engine's business.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{server, socket::AdminSocket};
use crate::cli::{Global, Serve};
use crate::config::{Config, Overrides};
use crate::control::Control;
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::log;

/// The file in the data directory that a running daemon holds locked.
const LOCK_FILE: &str = "daemon.lock";
const DATA_DIR_MODE: u32 = 0o700;
/// Bytes read of the process id in a lock file.
const MAX_PID_TEXT: u64 = 32;
/// A process that a signal ended exits with this plus the signal's number.
const EXIT_SIGNAL: u8 = 128;

/// A data directory held by this process alone, as long as this lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Creates the directory where missing, for the daemon's user only, and takes it.
    pub fn create(data: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DATA_DIR_MODE)
            .create(data)
            .map_err(|e| Error::internal(format!("data directory {}: {e}", data.display())))?;
        Self::existing(data)
    }

    /// Takes a directory that is there. `InUse` while another process has it.
    pub fn existing(data: &Path) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::internal(format!("data directory {}: {e}", data.display()))
        };
        match fs::metadata(data) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "data directory {}: this is no directory",
                    data.display()
                )));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!(
                    "data directory {}: there is none",
                    data.display()
                ))
                .hint("name it with --data DIR"));
            }
            Err(e) => return Err(failed(&e)),
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data.join(LOCK_FILE))
            .map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(data, &mut file)),
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
        // The lock is what counts; the number is for people only.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn held(data: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(MAX_PID_TEXT).read_to_string(&mut text));
    let holder = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    Error::in_use(format!(
        "data directory {}: it is in use by {holder}",
        data.display()
    ))
    .hint("stop that daemon first, or name another directory with --data")
}

/// Runs the daemon until it is told to stop; gives the exit code.
pub fn serve(global: &Global, serve: Serve, out: &mut dyn Write) -> Result<u8> {
    let overrides = Overrides {
        data: global.data.clone(),
        cores: serve.cores,
        iscsi: serve.iscsi,
        advertise: serve.advertise,
        admin: global.admin.clone(),
        insecure_no_auth: serve.insecure_no_auth,
    };
    let config = Config::load(serve.config.as_deref(), overrides)?;
    let _flusher = log::start(&config.log.level)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data.display(),
        metadata = %config.metadata_path().display(),
        "starting"
    );
    tracing::debug!(?config, "configuration");
    let _lock = DataLock::create(&config.data)?;
    let socket = AdminSocket::bind(&config.admin_socket())?;
    // Until then a signal ends the process as it would any: nothing was promised to anybody.
    let control = engine::start(&config)?;
    let requests = StopRequests::from_signals()?;
    run(socket, requests, control, global.json, out)
}

/// The requests to stop, caught from the moment this is made; and the loop that they are waited
/// for in.
struct StopRequests {
    runtime: tokio::runtime::Runtime,
    /// Numbers of the signals that came.
    signals: mpsc::Receiver<u8>,
}

impl StopRequests {
    fn from_signals() -> Result<Self> {
        let (sender, requests) = Self::channel()?;
        let guard = requests.runtime.enter();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut caught = signal(kind)
                .map_err(|e| Error::internal(format!("cannot wait for signals: {e}")))?;
            let (sender, number) = (sender.clone(), kind.as_raw_value() as u8);
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    // Two are enough to stop at once; nobody waits for a third.
                    let _ = sender.try_send(number);
                }
            });
        }
        drop(guard);
        Ok(requests)
    }

    /// Requests that come from whoever holds the sender.
    fn channel() -> Result<(mpsc::Sender<u8>, Self)> {
        let (sender, signals) = mpsc::channel(2);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("no event loop: {e}")))?;
        Ok((sender, Self { runtime, signals }))
    }
}

/// Number of the next signal.
async fn next(signals: &mut mpsc::Receiver<u8>) -> u8 {
    match signals.recv().await {
        Some(number) => number,
        None => std::future::pending().await,
    }
}

/// Serves a started engine: admin API on a thread of its own, ready line, signals. Gives 0 after
/// a clean stop, 128 + signal when a second signal came before its end.
fn run(
    mut socket: AdminSocket,
    requests: StopRequests,
    control: Arc<dyn Control>,
    json: bool,
    out: &mut dyn Write,
) -> Result<u8> {
    let admin = AdminThread::start(&mut socket, Arc::clone(&control))?;
    announce(&socket, &*control, json, out);
    let StopRequests {
        runtime,
        mut signals,
    } = requests;
    let code = runtime.block_on(async {
        let failed = tokio::select! {
            number = next(&mut signals) => {
                tracing::info!(signal = number, "stopping; a second signal stops at once");
                None
            }
            error = control.failure() => {
                tracing::error!(%error, "the engine cannot go on: stopping");
                Some(error)
            }
        };
        let stopped = tokio::select! {
            stopped = admin.shut_down(Arc::clone(&control)) => stopped,
            number = next(&mut signals) => {
                tracing::warn!(signal = number, "stopping at once");
                // Ending the engine in order is just what is not waited for.
                std::mem::forget(Arc::clone(&control));
                return Ok(EXIT_SIGNAL + number);
            }
        };
        failed.map_or(stopped, Err).map(|()| 0)
    });
    if code.is_ok() {
        tracing::info!("stopped");
    }
    drop(socket);
    code
}

/// The ready line. Nobody may be listening any more: that stops no daemon.
fn announce(socket: &AdminSocket, control: &dyn Control, json: bool, out: &mut dyn Write) {
    let (iscsi, admin) = (control.iscsi_address(), socket.path().display());
    let line = if json {
        serde_json::json!({ "ready": { "iscsi": iscsi.to_string(), "admin": admin.to_string() } })
            .to_string()
    } else {
        format!("ready iscsi={iscsi} admin={admin}")
    };
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "cannot write the ready line");
    }
}

/// The thread that serves the admin API. A verb that takes long, or blocks where it should not,
/// holds up other verbs, but neither I/O nor signals.
struct AdminThread {
    handle: tokio::runtime::Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

impl AdminThread {
    fn start(socket: &mut AdminSocket, control: Arc<dyn Control>) -> Result<Self> {
        let failed = |e: std::io::Error| Error::internal(format!("admin thread: {e}"));
        let listener = socket
            .take_listener()
            .ok_or_else(|| Error::internal("admin thread: it is started already"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let serving = async move {
            tokio::select! {
                served = server::serve(listener, control) => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the admin API is not served");
                    }
                }
                _ = ended => {}
            }
        };
        std::thread::Builder::new()
            .name("atoll-admin".to_owned())
            .spawn(move || runtime.block_on(serving))
            .map_err(failed)?;
        Ok(Self { handle, _end: end })
    }

    /// Stops the engine from the admin thread, so that signals go on being heard meanwhile.
    async fn shut_down(&self, control: Arc<dyn Control>) -> Result<()> {
        let stopping = self.handle.spawn(async move { control.shutdown().await });
        stopping.await.unwrap_or_else(|e| {
            Err(Error::new(
                ErrorKind::Internal,
                format!("the engine's stop ended: {e}"),
            ))
        })
    }
}

#[cfg(test)]
mod tests;

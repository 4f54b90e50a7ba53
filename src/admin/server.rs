//! The daemon's end of the admin API: accepts on the Unix socket and serves the routes, with every
//! resource bounded (R3). Runs on a thread of its own, never on a reactor.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::routes;
use super::service::Service;
use crate::control::Control;

/// Connections served at a time; more wait in the socket's backlog.
pub const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's body.
pub const MAX_REQUEST_BODY: usize = 64 << 10;
/// How long a request's body may take to come.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to send a request's head, the time between requests included.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` failed for want of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves `control` on `listener` (nonblocking) until it is dropped.
pub async fn serve(listener: StdListener, control: Arc<dyn Control>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let router = routes::router(Service::new(control));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), slot));
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket: cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, router: Router, slot: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        // A client that is interrupted does not take its verb back halfway.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
    drop(slot);
}

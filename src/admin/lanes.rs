//! The command line's end of the routes that move content: several connections, each with one
//! request on its way, so that daemon and file are busy at the same time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::client::ANSWER_TIMEOUT;
use super::socket;
use crate::api::{DataRange, MAX_DATA};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;

/// Connections, which is how many requests are on their way at a time.
const LANES: usize = 4;
/// Requests that are made before the first one's answer is waited for: as many wait as are on their way.
pub const WINDOW: usize = 2 * LANES;
/// Bytes of an answer: content, or an error.
const MAX_ANSWER: usize = MAX_DATA as usize;
/// How often what may succeed when it is tried again is tried.
const ATTEMPTS: usize = 5;
/// How long to wait before that.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Something to be done with a resource's content.
#[derive(Clone, Debug)]
pub enum Work {
    Read(DataRange),
    Write(DataRange, Bytes),
    Zero(DataRange),
}

struct Job {
    work: Work,
    done: SyncSender<Result<Bytes>>,
}

/// An answer that comes.
#[derive(Debug)]
pub struct Ticket(Receiver<Result<Bytes>>);

impl Ticket {
    pub fn wait(self) -> Result<Bytes> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(Error::internal("a connection's thread ended")))
    }
}

/// Connections to the content of one resource. Their threads end when this is dropped.
pub struct Lanes {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    pub fn open(socket: &Path, resource: &ResourceName) -> Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(WINDOW);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..LANES {
            let mut lane = Lane::new(socket.to_owned(), resource.clone())?;
            let queue = Arc::clone(&queue);
            threads.push(std::thread::spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { work, done }) = next else { return };
                    // Who asked may have given up.
                    let _ = done.send(lane.perform(&work));
                }
            }));
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    /// Hands it over; waits while as many are waiting as may.
    pub fn begin(&self, work: Work) -> Ticket {
        let (done, answer) = sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // Without a thread the ticket says so.
            let _ = jobs.send(Job { work, done });
        }
        Ticket(answer)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Tickets of writes, of which not more than [`WINDOW`] are open.
#[derive(Default)]
pub struct Pending(VecDeque<Ticket>);

impl Pending {
    /// Adds one, and waits for the oldest if there are too many.
    pub fn add(&mut self, ticket: Ticket) -> Result<()> {
        self.0.push_back(ticket);
        match self.0.len() > WINDOW {
            true => self.0.pop_front().map_or(Ok(()), |t| t.wait().map(drop)),
            false => Ok(()),
        }
    }

    /// Waits for all; the first failure is the answer.
    pub fn settle(&mut self) -> Result<()> {
        let outcomes = self.0.drain(..).map(|ticket| ticket.wait().map(drop));
        outcomes.fold(Ok(()), Result::and)
    }
}

/// One connection, made when it is needed.
struct Lane {
    socket: PathBuf,
    resource: ResourceName,
    runtime: Runtime,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Lane {
    fn new(socket: PathBuf, resource: ResourceName) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("no event loop: {e}")))?;
        Ok(Self {
            socket,
            resource,
            runtime,
            sender: None,
        })
    }

    /// Every piece of work may be done twice: it says where, and with what.
    fn perform(&mut self, work: &Work) -> Result<Bytes> {
        let mut attempt = 1;
        loop {
            match self.attempt(work) {
                // A core that is busy, a store that is slow, a connection that was idle for too long.
                Err(error) if error.kind == ErrorKind::Unavailable && attempt < ATTEMPTS => {
                    self.sender = None;
                    std::thread::sleep(RETRY_PAUSE);
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn attempt(&mut self, work: &Work) -> Result<Bytes> {
        let Self {
            socket,
            resource,
            runtime,
            sender,
        } = self;
        let (method, range, body) = match work {
            Work::Read(range) => (Method::GET, range, Bytes::new()),
            Work::Write(range, bytes) => (Method::PUT, range, bytes.clone()),
            Work::Zero(range) => (Method::DELETE, range, Bytes::new()),
        };
        let DataRange {
            id, offset, length, ..
        } = range;
        let session = range.session.map(|session| format!("&session={session}"));
        let path = format!(
            "/v1/resources/{resource}/data?id={id}&offset={offset}&length={length}{}",
            session.unwrap_or_default()
        );
        let exchange = async {
            let usable = match sender.as_mut() {
                Some(kept) => kept.ready().await.is_ok(),
                None => false,
            };
            if !usable {
                *sender = Some(connect(socket).await?);
            }
            match sender.as_mut() {
                Some(sender) => exchange(sender, method, &path, body).await,
                None => Err(broken("it was not made")),
            }
        };
        let answered = runtime.block_on(async { timeout(ANSWER_TIMEOUT, exchange).await });
        let (status, bytes) = answered
            .unwrap_or_else(|_| Err(Error::unavailable("the daemon did not answer in time")))?;
        if !status.is_success() {
            return Err(serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                Error::internal(format!("the daemon's answer ({status}): {e}"))
            }));
        }
        if method_reads(work) && bytes.len() as u64 != *length {
            return Err(Error::internal(format!(
                "the daemon answered {} bytes instead of {length}",
                bytes.len()
            )));
        }
        Ok(bytes)
    }
}

fn method_reads(work: &Work) -> bool {
    matches!(work, Work::Read(_))
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the connection to the daemon broke: {what}"))
}

async fn connect(path: &Path) -> Result<SendRequest<Full<Bytes>>> {
    let stream = socket::connect(path)?;
    stream.set_nonblocking(true).map_err(broken)?;
    let stream = UnixStream::from_std(stream).map_err(broken)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "atoll")
        .body(Full::new(body))
        .map_err(|e| Error::internal(format!("the request: {e}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
    Ok((status, body.await.map_err(broken)?.to_bytes()))
}

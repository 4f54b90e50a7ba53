//! The command line's end of the admin API: one request, one answer, over the Unix socket.

use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::socket;
use crate::error::{Error, Result};

/// How long the daemon may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of an answer: the counters of some hundred thousand volumes. Lists come by pages.
const MAX_ANSWER: usize = 256 << 20;

/// A daemon, by its admin socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// An answer, and whether the request has made something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    pub value: T,
    pub created: bool,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new())
            .map(|answered| answered.value)
    }

    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::DELETE, path, Bytes::new())
            .map(|answered| answered.value)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answered<T>> {
        let body =
            serde_json::to_vec(body).map_err(|e| Error::internal(format!("the request: {e}")))?;
        self.call(Method::POST, path, body.into())
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answered<T>> {
        let stream = socket::connect(&self.socket)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("no event loop: {e}")))?;
        let exchange = exchange(stream, method, path, body);
        let answer = runtime.block_on(async { timeout(ANSWER_TIMEOUT, exchange).await });
        let (status, bytes) = answer.unwrap_or_else(|_| Err(timed_out()))?;
        decode(status, &bytes)
    }
}

fn timed_out() -> Error {
    let seconds = ANSWER_TIMEOUT.as_secs();
    Error::unavailable(format!("the daemon did not answer within {seconds} s"))
        .hint("it may still do what was asked: look before asking again")
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the connection to the daemon broke: {what}"))
        .hint("it may have stopped; what was asked may have been done: look before asking again")
}

async fn exchange(
    stream: StdStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes)> {
    stream.set_nonblocking(true).map_err(broken)?;
    let stream = UnixStream::from_std(stream).map_err(broken)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "atoll")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|e| Error::internal(format!("the request: {e}")))?;
    let response: Response<Incoming> = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(broken)?;
    Ok((status, body.to_bytes()))
}

fn decode<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<Answered<T>> {
    let unintelligible = |e: serde_json::Error| {
        Error::internal(format!(
            "the daemon's answer ({status}) is not understood: {e}"
        ))
        .hint("is this command as new as the daemon? `atoll --version`, `atoll status`")
    };
    if status.is_success() {
        let value = serde_json::from_slice(bytes).map_err(unintelligible)?;
        return Ok(Answered {
            value,
            created: status == StatusCode::CREATED,
        });
    }
    Err(serde_json::from_slice(bytes).unwrap_or_else(unintelligible))
}

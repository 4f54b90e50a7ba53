//! TCP: listeners and streams of this core, by the ring or simulated.

use crate::buf::{Buf, SharedBuf};
use crate::core::{Driver, with_core};
use crate::{sim, uring};
use std::io;
use std::net::SocketAddr;

/// Accepts connections on an address.
pub struct TcpListener {
    inner: ListenerInner,
}

enum ListenerInner {
    Uring(uring::net::TcpListener),
    Sim(sim::net::TcpListener),
}

impl TcpListener {
    /// Binds and listens; port 0 takes a free one.
    pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let real = with_core(|core| matches!(core.driver, Driver::Uring(_)));
        let inner = if real {
            ListenerInner::Uring(uring::net::TcpListener::bind(addr)?)
        } else {
            ListenerInner::Sim(sim::net::TcpListener::bind(addr)?)
        };
        Ok(TcpListener { inner })
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.inner {
            ListenerInner::Uring(listener) => listener.local_addr(),
            ListenerInner::Sim(listener) => listener.local_addr(),
        }
    }

    /// The next connection, detached: attach it on the core that is to serve it.
    pub async fn accept(&self) -> io::Result<(DetachedStream, SocketAddr)> {
        match &self.inner {
            ListenerInner::Uring(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((
                    DetachedStream {
                        inner: DetachedInner::Uring(stream),
                    },
                    peer,
                ))
            }
            ListenerInner::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((
                    DetachedStream {
                        inner: DetachedInner::Sim(stream),
                    },
                    peer,
                ))
            }
        }
    }
}

/// A connection on its way between cores.
pub struct DetachedStream {
    inner: DetachedInner,
}

enum DetachedInner {
    Uring(uring::net::Detached),
    Sim(sim::net::Detached),
}

impl DetachedStream {
    /// Makes it a stream of this core.
    pub fn attach(self) -> io::Result<TcpStream> {
        let inner = match self.inner {
            DetachedInner::Uring(stream) => StreamInner::Uring(stream.attach()?),
            DetachedInner::Sim(stream) => StreamInner::Sim(stream.attach()?),
        };
        Ok(TcpStream { inner })
    }
}

/// A connection of this core. Clones share it.
#[derive(Clone)]
pub struct TcpStream {
    inner: StreamInner,
}

#[derive(Clone)]
enum StreamInner {
    Uring(uring::net::TcpStream),
    Sim(sim::net::TcpStream),
}

impl TcpStream {
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let real = with_core(|core| matches!(core.driver, Driver::Uring(_)));
        let inner = if real {
            StreamInner::Uring(uring::net::TcpStream::connect(addr).await?)
        } else {
            StreamInner::Sim(sim::net::TcpStream::connect(addr).await?)
        };
        Ok(TcpStream { inner })
    }

    pub fn peer_addr(&self) -> SocketAddr {
        match &self.inner {
            StreamInner::Uring(stream) => stream.peer_addr(),
            StreamInner::Sim(stream) => stream.peer_addr(),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.inner {
            StreamInner::Uring(stream) => stream.local_addr(),
            StreamInner::Sim(stream) => stream.local_addr(),
        }
    }

    /// Receives up to `buf.len()` bytes to the buffer's beginning; 0 is the end of the stream.
    pub async fn recv(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        match &self.inner {
            StreamInner::Uring(stream) => stream.recv(buf).await,
            StreamInner::Sim(stream) => stream.recv(buf).await,
        }
    }

    /// Sends all of the slices, in order. One send at a time per stream. The list stays the caller's where only its
    /// slice is given, to be used again.
    pub async fn send_all(&self, data: impl AsRef<[SharedBuf]>) -> io::Result<()> {
        let data = data.as_ref();
        match &self.inner {
            StreamInner::Uring(stream) => stream.send_all(data).await,
            StreamInner::Sim(stream) => stream.send_all(data).await,
        }
    }

    /// Ends both directions; a pending `recv` or `send_all` returns.
    pub fn shutdown(&self) {
        match &self.inner {
            StreamInner::Uring(stream) => stream.shutdown(),
            StreamInner::Sim(stream) => stream.shutdown(),
        }
    }
}

//! Simulated network.
use crate::buf::{Buf, SharedBuf};
use std::io;
use std::net::SocketAddr;

fn no<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}
pub(crate) struct TcpListener {
    addr: SocketAddr,
}
impl TcpListener {
    pub(crate) fn bind(_addr: SocketAddr) -> io::Result<TcpListener> {
        no()
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
    pub(crate) async fn accept(&self) -> io::Result<(Detached, SocketAddr)> {
        no()
    }
}
pub(crate) struct Detached {}
impl Detached {
    pub(crate) fn attach(self) -> io::Result<TcpStream> {
        no()
    }
}
#[derive(Clone)]
pub(crate) struct TcpStream {
    peer: SocketAddr,
}
impl TcpStream {
    pub(crate) async fn connect(_addr: SocketAddr) -> io::Result<TcpStream> {
        no()
    }
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.peer
    }
    pub(crate) async fn recv(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        (no(), buf)
    }
    pub(crate) async fn send_all(&self, _data: Vec<SharedBuf>) -> io::Result<()> {
        no()
    }
    pub(crate) fn shutdown(&self) {}
}

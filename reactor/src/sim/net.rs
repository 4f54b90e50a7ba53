//! The socket face of the simulated driver: the calls of `crate::net` on this simulation's network.

use super::network::{Attempt, EndId, ListenerId};
use super::world::World;
use super::{driver, world};
use crate::buf::{Buf, SharedBuf};
use crate::core::{Driver, try_with_core};
use crate::time::{sleep, timeout};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Polls an attempt until it is done. Every attempt leaves the waker where it is needed.
async fn until_done<T>(mut attempt: impl FnMut(&mut Context<'_>) -> Attempt<T>) -> io::Result<T> {
    poll_fn(move |cx| match attempt(cx) {
        Attempt::Done(result) => Poll::Ready(result),
        Attempt::Wait => Poll::Pending,
    })
    .await
}

pub(crate) struct TcpListener {
    world: Rc<World>,
    id: ListenerId,
    addr: SocketAddr,
}

impl TcpListener {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let world = world();
        let (id, addr) = world.net.listen(addr)?;
        Ok(TcpListener { world, id, addr })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> io::Result<(Detached, SocketAddr)> {
        let net = &self.world.net;
        let (id, peer) = until_done(|cx| net.accept(self.id, cx.waker())).await?;
        Ok((Detached { id: Some(id) }, peer))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.world.net.stop_listening(self.id);
    }
}

/// Names a connection of the simulation; any core of it may attach it.
pub(crate) struct Detached {
    id: Option<EndId>,
}

impl Detached {
    pub(crate) fn attach(mut self) -> io::Result<TcpStream> {
        let id = self.id.take();
        let id = id.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))?;
        TcpStream::new(&world(), id)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // Outside of a core the simulation has ended, and its connections with it.
            try_with_core(|core| {
                if let Driver::Sim(_) = core.driver {
                    driver(core).world.net.close(id);
                }
            });
        }
    }
}

struct Handle {
    world: Rc<World>,
    id: EndId,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.world.net.close(self.id);
    }
}

#[derive(Clone)]
pub(crate) struct TcpStream {
    handle: Rc<Handle>,
}

impl TcpStream {
    fn new(world: &Rc<World>, id: EndId) -> io::Result<TcpStream> {
        let addresses = world.net.addresses(id);
        let (local, peer) =
            addresses.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))?;
        let handle = Handle {
            world: world.clone(),
            id,
            local,
            peer,
        };
        Ok(TcpStream {
            handle: Rc::new(handle),
        })
    }

    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let world = world();
        let there = world.draw(&world.net.config().latency);
        let back = world.draw(&world.net.config().latency);
        let attempt = async {
            sleep(there).await;
            let id = until_done(|cx| world.net.connect(addr, cx.waker())).await?;
            let stream = TcpStream::new(&world, id)?;
            sleep(back).await;
            Ok(stream)
        };
        let done = timeout(world.net.config().connect_timeout, attempt).await;
        done.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)))
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.handle.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.handle.local
    }

    pub(crate) async fn recv(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        let net = &self.handle.world.net;
        let done = until_done(|cx| net.recv(self.handle.id, &mut buf, cx.waker())).await;
        (done, buf)
    }

    pub(crate) async fn send_all(&self, data: &[SharedBuf]) -> io::Result<()> {
        let net = &self.handle.world.net;
        for slice in data {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let sent = until_done(|cx| net.send(self.handle.id, rest, cx.waker())).await?;
                rest = &rest[sent..];
            }
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        self.handle.world.net.shutdown(self.handle.id);
    }
}

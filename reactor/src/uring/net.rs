//! TCP by plain nonblocking calls, with the ring's multishot polls telling when to try again: a
//! call that would not block is cheaper than the ring at depth 1 and equal at depth, and nothing
//! is lost when a future is dropped, because the kernel holds no buffer of ours in between.

use super::op::{PollTarget, PollToken, arm, cancel, with_uring};
use super::socket;
use crate::buf::{Buf, SharedBuf};
use crate::core::{Driver, try_with_core};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long accepting pauses when the process or the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a stream's poll waits for.
const STREAM_EVENTS: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP) as u32;
const LISTENER_EVENTS: u32 = libc::POLLIN as u32;
/// Events after which there is always something to learn from a call.
const ENDED: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// Whether a call in one direction is worth trying, and who waits for that.
#[derive(Default)]
struct Side {
    ready: Cell<bool>,
    /// The last call succeeded at once: the next one lets other tasks run first.
    hot: Cell<bool>,
    waiting: RefCell<SmallVec<[Waker; 1]>>,
}

impl Side {
    fn set_ready(&self) {
        self.ready.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

struct Readiness {
    input: Side,
    output: Side,
    /// The peer has ended its direction, or all is over: a call never blocks any more.
    ended: Cell<bool>,
    poll: Cell<Option<PollToken>>,
}

impl PollTarget for Readiness {
    fn polled(&self, events: u32, armed: bool) {
        if !armed {
            // Nobody would tell the waiters any more: they try, and arm it again if need be.
            self.poll.set(None);
            self.input.set_ready();
            self.output.set_ready();
        }
        if events & ENDED != 0 {
            self.ended.set(true);
        }
        if events & (libc::POLLIN as u32 | ENDED) != 0 {
            self.input.set_ready();
        }
        // The peer's end of input says nothing about output, but its reset or our shutdown does.
        let over = (libc::POLLOUT | libc::POLLHUP | libc::POLLERR) as u32;
        if events & over != 0 {
            self.output.set_ready();
        }
    }
}

/// A socket that tells when calls on it are worth trying.
struct PolledFd {
    fd: OwnedFdSlot,
    events: u32,
    state: Rc<Readiness>,
}

/// The descriptor, closed after its poll was cancelled.
struct OwnedFdSlot(RawFd);

impl PolledFd {
    fn new(fd: OwnedFd, events: u32) -> PolledFd {
        let side = || Side {
            ready: Cell::new(true),
            ..Side::default()
        };
        let state = Readiness {
            input: side(),
            output: side(),
            ended: Cell::new(false),
            poll: Cell::new(None),
        };
        PolledFd {
            fd: OwnedFdSlot(fd.into_raw_fd()),
            events,
            state: Rc::new(state),
        }
    }

    fn raw(&self) -> RawFd {
        self.fd.0
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::In => &self.state.input,
            Direction::Out => &self.state.output,
        }
    }

    /// A call said that it would block.
    fn would_block(&self, direction: Direction) {
        self.side(direction).ready.set(false);
        if self.state.poll.get().is_none() {
            let token =
                with_uring(|driver| arm(driver, self.raw(), self.events, self.state.clone()));
            self.state.poll.set(Some(token));
        }
    }

    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let side = self.side(direction);
        if side.ready.get() {
            return Poll::Ready(());
        }
        let mut waiting = side.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Repeats a nonblocking call until it does not say that it would block.
    async fn call<T>(
        &self,
        direction: Direction,
        mut call: impl FnMut(RawFd) -> io::Result<T>,
    ) -> io::Result<T> {
        let side = self.side(direction);
        if side.hot.replace(false) {
            crate::yield_now().await;
        }
        let mut waited = false;
        loop {
            if !side.ready.get() {
                waited = true;
                poll_fn(|cx| self.poll_ready(direction, cx)).await;
            }
            match call(self.raw()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.would_block(direction);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    side.hot.set(!waited);
                    return other;
                }
            }
        }
    }
}

impl Drop for PolledFd {
    fn drop(&mut self) {
        if let Some(poll) = self.state.poll.get() {
            // The armed poll keeps the socket open.
            try_with_core(|core| {
                if let Driver::Uring(driver) = &core.driver {
                    cancel(driver, poll);
                }
            });
        }
        super::close(self.fd.0);
    }
}

pub(crate) struct TcpListener {
    socket: PolledFd,
    addr: SocketAddr,
}

impl TcpListener {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let fd = socket::listen(addr)?;
        let addr = socket::local_addr(fd.as_raw_fd())?;
        let socket = PolledFd::new(fd, LISTENER_EVENTS);
        Ok(TcpListener { socket, addr })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections that nobody asked for yet wait in the kernel's bounded backlog.
    pub(crate) async fn accept(&self) -> io::Result<(Detached, SocketAddr)> {
        loop {
            match self.socket.call(Direction::In, socket::accept).await {
                Ok((fd, peer)) => {
                    // A connection that ended meanwhile is not worth an error.
                    if let Ok(detached) = Detached::new(fd, peer) {
                        return Ok((detached, peer));
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        tracing::warn!(%error, "accepting pauses");
                        crate::sleep(ACCEPT_PAUSE).await;
                    }
                    // Errors of the connection, which accept(2) passes on.
                    Some(
                        libc::ECONNABORTED
                        | libc::EPROTO
                        | libc::EPERM
                        | libc::ENETDOWN
                        | libc::ENETUNREACH
                        | libc::EHOSTDOWN
                        | libc::EHOSTUNREACH
                        | libc::ENONET
                        | libc::ENOPROTOOPT,
                    ) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

pub(crate) struct Detached {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Detached {
    fn new(fd: OwnedFd, peer: SocketAddr) -> io::Result<Detached> {
        socket::set_options(fd.as_raw_fd())?;
        let local = socket::local_addr(fd.as_raw_fd())?;
        Ok(Detached { fd, peer, local })
    }

    pub(crate) fn attach(self) -> io::Result<TcpStream> {
        Ok(TcpStream::new(self.fd, self.peer, self.local))
    }
}

struct Connection {
    socket: PolledFd,
    peer: SocketAddr,
    local: SocketAddr,
    output: Cell<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Idle,
    Sending,
    /// A send was given up in its middle: what followed would be read as its rest.
    Torn,
}

#[derive(Clone)]
pub(crate) struct TcpStream {
    connection: Rc<Connection>,
}

/// Notes how a send ended, also when its future is dropped.
struct SendGuard<'a> {
    connection: &'a Connection,
    sent_some: bool,
    complete: bool,
}

impl Drop for SendGuard<'_> {
    fn drop(&mut self) {
        let torn = self.sent_some && !self.complete;
        self.connection
            .output
            .set(if torn { Output::Torn } else { Output::Idle });
    }
}

impl TcpStream {
    fn new(fd: OwnedFd, peer: SocketAddr, local: SocketAddr) -> TcpStream {
        TcpStream {
            connection: Rc::new(Connection {
                socket: PolledFd::new(fd, STREAM_EVENTS),
                peer,
                local,
                output: Cell::new(Output::Idle),
            }),
        }
    }

    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let (fd, under_way) = socket::start_connect(addr)?;
        let socket = PolledFd::new(fd, STREAM_EVENTS);
        if under_way {
            socket.would_block(Direction::Out);
            poll_fn(|cx| socket.poll_ready(Direction::Out, cx)).await;
            socket::take_error(socket.raw())?;
        }
        socket::set_options(socket.raw())?;
        let local = socket::local_addr(socket.raw())?;
        // What the handshake's poll saw says nothing about the connection's end.
        socket.state.ended.set(false);
        let connection = Connection {
            socket,
            peer: addr,
            local,
            output: Cell::new(Output::Idle),
        };
        Ok(TcpStream {
            connection: Rc::new(connection),
        })
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.connection.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.connection.local
    }

    pub(crate) async fn recv(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        if buf.is_empty() {
            return (Ok(0), buf);
        }
        let socket = &self.connection.socket;
        let received = socket
            .call(Direction::In, |fd| socket::recv(fd, &mut buf))
            .await;
        if let Ok(count) = received
            && count < buf.len()
            && !socket.state.ended.get()
        {
            // The socket is empty now: the poll tells of whatever comes later.
            socket.would_block(Direction::In);
        }
        (received, buf)
    }

    pub(crate) async fn send_all(&self, data: &[SharedBuf]) -> io::Result<()> {
        let connection = &*self.connection;
        match connection.output.get() {
            Output::Idle => connection.output.set(Output::Sending),
            Output::Sending => {
                let text = "another send on this connection has not ended";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Output::Torn => {
                let text = "an earlier send on this connection was given up in its middle";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
            }
        }
        let mut guard = SendGuard {
            connection,
            sent_some: false,
            complete: false,
        };
        let mut rest = Unsent::new(data);
        while rest.skip_empty() {
            let count = connection
                .socket
                .call(Direction::Out, |fd| {
                    socket::send(fd, rest.slices(), rest.has_more())
                })
                .await?;
            guard.sent_some = true;
            rest.advance(count);
        }
        guard.complete = true;
        Ok(())
    }

    pub(crate) fn shutdown(&self) {
        let socket = &self.connection.socket;
        socket::shutdown(socket.raw());
        socket.state.ended.set(true);
        socket.state.input.set_ready();
        socket.state.output.set_ready();
    }
}

/// What of a send is still to go.
struct Unsent<'a> {
    data: &'a [SharedBuf],
    /// Bytes of the first slice that went already.
    gone: usize,
}

impl<'a> Unsent<'a> {
    fn new(data: &'a [SharedBuf]) -> Unsent<'a> {
        Unsent { data, gone: 0 }
    }

    /// Passes over what is sent or empty; false at the end.
    fn skip_empty(&mut self) -> bool {
        while let Some(first) = self.data.first() {
            if self.gone < first.len() {
                return true;
            }
            self.data = &self.data[1..];
            self.gone = 0;
        }
        false
    }

    fn slices(&self) -> impl Iterator<Item = &'a [u8]> {
        let gone = self.gone;
        let part = move |(index, slice): (usize, &'a SharedBuf)| {
            let slice: &'a [u8] = slice;
            &slice[if index == 0 { gone } else { 0 }..]
        };
        self.data.iter().enumerate().map(part)
    }

    fn has_more(&self) -> bool {
        self.data.len() > socket::MAX_SLICES
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.data.first() {
            let left = first.len() - self.gone;
            if count < left {
                self.gone += count;
                return;
            }
            count -= left;
            self.data = &self.data[1..];
            self.gone = 0;
        }
        debug_assert_eq!(count, 0, "the kernel sent more than it was given");
    }
}

//! The socket calls, safe: each is nonblocking and gives `io::Result`. No state of ours is here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Connections that wait to be accepted, per listener; the kernel may allow fewer (`somaxconn`).
const BACKLOG: i32 = 1024;
/// Slices that one send passes to the kernel.
pub(super) const MAX_SLICES: usize = 256;
/// A silent peer is asked after this many seconds ...
const KEEPALIVE_IDLE: i32 = 60;
/// ... then every so many seconds ...
const KEEPALIVE_INTERVAL: i32 = 15;
/// ... and given up after so many unanswered questions.
const KEEPALIVE_COUNT: i32 = 4;

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// An address as the kernel wants it.
union RawAddr {
    any: libc::sockaddr,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

fn to_raw(addr: SocketAddr) -> (RawAddr, libc::socklen_t) {
    // SAFETY: addresses are plain numbers, for which zeros are valid.
    let mut raw: RawAddr = unsafe { std::mem::zeroed() };
    match addr {
        SocketAddr::V4(addr) => {
            raw.v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*addr.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(addr) => {
            raw.v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            };
            (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

fn from_raw(raw: &RawAddr) -> io::Result<SocketAddr> {
    // SAFETY: the union was zeroed before the kernel filled it, and every variant is plain numbers.
    unsafe {
        match i32::from(raw.any.sa_family) {
            libc::AF_INET => Ok(SocketAddr::V4(SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(raw.v4.sin_addr.s_addr)),
                u16::from_be(raw.v4.sin_port),
            ))),
            libc::AF_INET6 => Ok(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(raw.v6.sin6_addr.s6_addr),
                u16::from_be(raw.v6.sin6_port),
                raw.v6.sin6_flowinfo,
                raw.v6.sin6_scope_id,
            ))),
            family => Err(io::Error::other(format!("address family {family}"))),
        }
    }
}

fn tcp_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed; the new descriptor is nobody else's.
    unsafe {
        Ok(OwnedFd::from_raw_fd(checked(libc::socket(
            family, kind, 0,
        ))?))
    }
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is readable for `len` bytes.
    checked(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

pub(super) fn listen(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(addr)?;
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let (raw, len) = to_raw(addr);
    // SAFETY: the address is readable for `len` bytes.
    checked(unsafe { libc::bind(fd, (&raw const raw).cast(), len) })
        .map_err(|error| io::Error::new(error.kind(), format!("bind to {addr}: {error}")))?;
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(socket)
}

pub(super) fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: as in `to_raw`; the kernel writes at most `len` bytes.
    unsafe {
        let mut raw: RawAddr = std::mem::zeroed();
        let mut len = size_of::<RawAddr>() as libc::socklen_t;
        checked(libc::getsockname(fd, (&raw mut raw).cast(), &mut len))?;
        from_raw(&raw)
    }
}

pub(super) fn accept(fd: RawFd) -> io::Result<(OwnedFd, SocketAddr)> {
    // SAFETY: as in `local_addr`; the new descriptor is nobody else's.
    unsafe {
        let mut raw: RawAddr = std::mem::zeroed();
        let mut len = size_of::<RawAddr>() as libc::socklen_t;
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let new = libc::accept4(fd, (&raw mut raw).cast(), &mut len, flags);
        let socket = OwnedFd::from_raw_fd(checked(new)?);
        Ok((socket, from_raw(&raw)?))
    }
}

/// A socket that connects; true if that is still under way.
pub(super) fn start_connect(addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let socket = tcp_socket(addr)?;
    let (raw, len) = to_raw(addr);
    // SAFETY: the address is readable for `len` bytes.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), len) };
    match checked(result) {
        Ok(_) => Ok((socket, false)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EINTR) => Ok((socket, true)),
            _ => Err(error),
        },
    }
}

/// The error that the socket keeps, such as a connect's.
pub(super) fn take_error(fd: RawFd) -> io::Result<()> {
    let mut value: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is writable for `len` bytes.
    checked(unsafe {
        let place = (&raw mut value).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, place, &mut len)
    })?;
    match value {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// What every connection wants: no delay of small segments, and notice of a peer that vanished.
pub(super) fn set_options(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE)?;
    set_option(
        fd,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPINTVL,
        KEEPALIVE_INTERVAL,
    )?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_COUNT)
}

pub(super) fn recv(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Sends up to [`MAX_SLICES`] slices; `more` says that others follow at once.
pub(super) fn send<'a>(
    fd: RawFd,
    slices: impl Iterator<Item = &'a [u8]>,
    more: bool,
) -> io::Result<usize> {
    let none = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut vectors = [none; MAX_SLICES];
    let mut count = 0;
    for (vector, slice) in vectors.iter_mut().zip(slices) {
        vector.iov_base = slice.as_ptr().cast_mut().cast();
        vector.iov_len = slice.len();
        count += 1;
    }
    let mut flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    if more {
        flags |= libc::MSG_MORE;
    }
    // SAFETY: a zeroed header is an empty one; the vectors and what they name are readable during
    // the call, which copies.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = count;
        libc::sendmsg(fd, &message, flags)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Ends both directions. A connection that is gone already is no error.
pub(super) fn shutdown(fd: RawFd) {
    // SAFETY: no pointers are passed.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

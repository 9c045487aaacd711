//! Socket calls and options that the standard library does not offer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixName, UnixStream};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, sockopt,
};
use nix::sys::time::TimeVal;

/// `readv` and `sendmsg` refuse more segments (`IOV_MAX`).
const MAX_SEGMENTS: usize = 1024;
/// The kernel probes a TCP peer after this time without a byte, ...
const KEEP_ALIVE_IDLE_S: u32 = 60;
/// ... at this interval, ...
const KEEP_ALIVE_INTERVAL_S: u32 = 10;
/// ... and gives up after this many probes.
const KEEP_ALIVE_PROBES: u32 = 6;
/// The send buffer of a Unix socket. The kernel doubles it for its bookkeeping and caps it at
/// `net.core.wmem_max`. Measured with 256 MiB: 64 KiB gives 1.9 GB/s, the default (208 KiB, not doubled) 4.2,
/// 256 KiB 5.1, and 512 KiB to 4 MiB 5.2. Everything in the buffer delays the next small message.
const UNIX_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Reads into the first [`MAX_SEGMENTS`] of `segments`. One segment takes a faster system call.
pub(crate) fn read_vectored(fd: BorrowedFd<'_>, segments: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let count = segments.len().min(MAX_SEGMENTS);
    loop {
        let result = match &mut segments[..count] {
            [one] => recv(fd, one),
            many => nix::sys::uio::readv(fd, many),
        };
        match result {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Writes from the first [`MAX_SEGMENTS`] of `segments`, without `SIGPIPE`: a library cannot know if its
/// process ignores that signal. One segment takes a faster system call.
pub(crate) fn write_vectored(fd: BorrowedFd<'_>, segments: &[IoSlice<'_>]) -> io::Result<usize> {
    let segments = &segments[..segments.len().min(MAX_SEGMENTS)];
    loop {
        let result = match segments {
            [one] => send(fd, one),
            many => socket::sendmsg::<()>(fd.as_raw_fd(), many, &[], MsgFlags::MSG_NOSIGNAL, None),
        };
        match result {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

// The functions of the C library for these system calls are cancellation points: in a process with threads,
// each costs two locked instructions and thirty others. Nothing cancels a thread here.

fn recv(fd: BorrowedFd<'_>, segment: &mut [u8]) -> nix::Result<usize> {
    let (start, bytes) = (segment.as_mut_ptr(), segment.len());
    let no_address = ptr::null_mut::<libc::c_void>();
    // SAFETY: `fd` is open while it is borrowed. The kernel writes only to `segment`, which is borrowed until
    // the call returns, and no address.
    let result =
        unsafe { libc::syscall(libc::SYS_recvfrom, fd.as_raw_fd(), start, bytes, 0, no_address, no_address) };
    Errno::result(result).map(|bytes| bytes as usize)
}

fn send(fd: BorrowedFd<'_>, segment: &[u8]) -> nix::Result<usize> {
    let (start, bytes, flags) = (segment.as_ptr(), segment.len(), libc::MSG_NOSIGNAL);
    let no_address = ptr::null_mut::<libc::c_void>();
    // SAFETY: `fd` is open while it is borrowed. The kernel only reads `segment`, which is borrowed until the
    // call returns, and no address.
    let result =
        unsafe { libc::syscall(libc::SYS_sendto, fd.as_raw_fd(), start, bytes, flags, no_address, 0) };
    Errno::result(result).map(|bytes| bytes as usize)
}

/// Shuts down both directions.
pub(crate) fn shutdown(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(fd.as_raw_fd(), socket::Shutdown::Both)?)
}

/// Shuts down the direction to the peer.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(fd.as_raw_fd(), socket::Shutdown::Write)?)
}

/// Sets the options of a connected TCP socket. The kernel holds at most `max_unsent_bytes` unsent.
pub(crate) fn tune_tcp(fd: BorrowedFd<'_>, max_unsent_bytes: u32) -> io::Result<()> {
    socket::setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    socket::setsockopt(&fd, sockopt::KeepAlive, &true)?;
    socket::setsockopt(&fd, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_S)?;
    socket::setsockopt(&fd, sockopt::TcpKeepInterval, &KEEP_ALIVE_INTERVAL_S)?;
    socket::setsockopt(&fd, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES)?;
    set_tcp_not_sent_low(fd, max_unsent_bytes)
}

/// Limits the bytes that the kernel holds unsent. The socket becomes writable when half of them are sent. So
/// the kernel holds this much for a slow reader instead of 4 MiB, and the bytes that wait here can still be
/// reordered.
pub(crate) fn set_tcp_not_sent_low(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: `fd` is open while it is borrowed. The pointer and the length describe `value`, which lives
    // until the call returns, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Sets the options of a connected Unix socket. Bytes in transit count against the sender's buffer alone.
pub(crate) fn tune_unix(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::setsockopt(&fd, sockopt::SndBuf, &UNIX_SEND_BUFFER_BYTES)?)
}

/// Returns the process and user at the other end of a Unix socket.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32)> {
    let peer = socket::getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok((peer.pid(), peer.uid()))
}

/// Listens at one IP address. `[::]` accepts IPv4 too, whatever the machine's default.
pub(crate) fn listen_tcp(address: SocketAddr, max_waiting: u16) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = stream_socket(family, SockFlag::SOCK_CLOEXEC)?;
    // A restarted server must not wait until the kernel forgets its old connections.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&fd, Backlog::new(max_waiting)?)?;
    Ok(fd.into())
}

/// Connects a Unix socket. Blocks for at most `time`. The returned socket is in blocking mode.
pub(crate) fn connect_unix(name: &UnixName, time: Option<Duration>) -> io::Result<UnixStream> {
    let fd = stream_socket(AddressFamily::Unix, SockFlag::SOCK_CLOEXEC)?;
    // A non-blocking connect to a server with a full queue fails at once and cannot be waited for. A blocking
    // one respects the send time-out.
    if let Some(time) = time {
        set_send_timeout(&fd, time)?;
    }
    let target = unix_address(name)?;
    loop {
        match socket::connect(fd.as_raw_fd(), &target) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the server does not accept connections",
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fd.into())
}

/// Sets the send time-out. The kernel takes zero for no limit.
fn set_send_timeout(fd: &OwnedFd, time: Duration) -> io::Result<()> {
    let time = time.max(Duration::from_millis(1));
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    let value = TimeVal::new(seconds, time.subsec_micros().into());
    Ok(socket::setsockopt(fd, sockopt::SendTimeout, &value)?)
}

/// Returns true if a living process listens at `name`. Does not block. The process may notice a connection
/// that is closed at once.
pub(crate) fn is_listening(name: &UnixName) -> io::Result<bool> {
    let fd = stream_socket(AddressFamily::Unix, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    match socket::connect(fd.as_raw_fd(), &unix_address(name)?) {
        // Its queue is full, or it is a socket of another type: in both cases its process is alive.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn stream_socket(family: AddressFamily, flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket::socket(family, SockType::Stream, flags, None)?)
}

fn unix_address(name: &UnixName) -> io::Result<UnixAddr> {
    Ok(match (name.as_pathname(), name.as_abstract_name()) {
        (Some(path), _) => UnixAddr::new(path)?,
        (None, Some(name)) => UnixAddr::new_abstract(name)?,
        (None, None) => return Err(Errno::EINVAL.into()),
    })
}

/// Returns true if no descriptor or memory is left for another connection.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    use Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    is_one_of(error, &[EMFILE, ENFILE, ENOBUFS, ENOMEM])
}

/// Returns true if the error is about the accepted connection and not about the listener (accept(2), "Error
/// handling"). `ENOTCONN` and `ECONNRESET` may come from tuning a connection that has ended.
pub(crate) fn is_lost_connection(error: &io::Error) -> bool {
    use Errno::*;
    let lost = [
        ECONNABORTED,
        ECONNRESET,
        EHOSTDOWN,
        EHOSTUNREACH,
        EINTR,
        ENETDOWN,
        ENETUNREACH,
        ENONET,
        ENOPROTOOPT,
        ENOTCONN,
        EPERM,
        EPROTO,
        ETIMEDOUT,
    ];
    is_one_of(error, &lost)
}

/// Returns true if the machine does not have the address or its protocol.
pub(crate) fn is_absent_address(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT])
}

/// Returns the kernel's error for a port at which nobody listens.
pub(crate) fn connection_refused() -> io::Error {
    Errno::ECONNREFUSED.into()
}

fn is_one_of(error: &io::Error, wanted: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| wanted.contains(&Errno::from_raw(code)))
}

/// Reads back the option that [`tune_tcp`] set, which nix does not support.
#[cfg(test)]
pub(super) fn tcp_not_sent_low(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` is open while it is borrowed. The kernel writes at most `bytes` bytes into `value`, which
    // has that size, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw mut value).cast(),
            &raw mut bytes,
        )
    };
    Errno::result(result)?;
    Ok(value)
}

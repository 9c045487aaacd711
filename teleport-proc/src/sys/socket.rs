//! Pairs of sockets that carry small messages, and descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use super::descriptor::close_on_exec;

/// The length of every message. Where sockets do not keep messages apart, none can be cut in two.
pub(crate) const MESSAGE_BYTES: usize = 16;

/// A request carries seven descriptors, which is the most.
const MAX_DESCRIPTORS: usize = 8;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod kind {
    use super::{MsgFlags, SockFlag, SockType};
    pub(super) const TYPE: SockType = SockType::SeqPacket;
    pub(super) const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC;
    pub(super) const SEND: MsgFlags = MsgFlags::MSG_NOSIGNAL;
    pub(super) const RECEIVE: MsgFlags = MsgFlags::MSG_CMSG_CLOEXEC;
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kind {
    use super::{MsgFlags, SockFlag, SockType};
    pub(super) const TYPE: SockType = SockType::Stream;
    pub(super) const FLAGS: SockFlag = SockFlag::empty();
    pub(super) const SEND: MsgFlags = MsgFlags::empty();
    pub(super) const RECEIVE: MsgFlags = MsgFlags::empty();
}

/// Makes two connected sockets. Both are closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::Unix, kind::TYPE, None, kind::FLAGS)?;
    close_on_exec(&a)?;
    close_on_exec(&b)?;
    Ok((a, b))
}

/// Sends a message with descriptors. Does not wait: the other end gets few messages, and reads them.
pub(crate) fn send(
    socket: &OwnedFd,
    message: &[u8; MESSAGE_BYTES],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = kind::SEND | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message)], control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The result of reading a socket.
#[derive(Debug)]
pub(crate) enum Received<M> {
    /// A message and the descriptors that came with it.
    Message(M, Vec<OwnedFd>),
    /// No message is there now.
    Nothing,
    /// The other end is closed, and every message was read.
    Closed,
}

/// Takes the next message. Does not wait.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<Received<[u8; MESSAGE_BYTES]>> {
    let mut message = [0; MESSAGE_BYTES];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = kind::RECEIVE | MsgFlags::MSG_DONTWAIT;
    let (bytes, fds) = loop {
        let mut parts = [IoSliceMut::new(&mut message)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(received) => {
                let mut fds = Vec::new();
                for control in received.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(rights) = control {
                        // SAFETY: the kernel has just made these descriptors for this call.
                        fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                break (received.bytes, fds);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::ECONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    fds.iter().try_for_each(close_on_exec)?;
    match bytes {
        0 => Ok(Received::Closed),
        MESSAGE_BYTES => Ok(Received::Message(message, fds)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

//! Pairs of sockets that carry small messages, and descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, socketpair,
};

use super::descriptor::close_on_exec;
use super::platform;

/// A message. All have the same length, so that none is cut in two where sockets do not keep messages apart.
pub(crate) type Message = [u64; 2];

/// A request carries seven descriptors, which is the most.
const MAX_DESCRIPTORS: usize = 8;

/// Makes two connected sockets. Both are closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::Unix, platform::SOCKET_TYPE, None, platform::SOCKET_FLAGS)?;
    close_on_exec(&a)?;
    close_on_exec(&b)?;
    Ok((a, b))
}

/// Sends a message with descriptors. Does not wait: the other end gets few messages, and reads them.
pub(crate) fn send(socket: &OwnedFd, message: Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = platform::SEND_FLAGS | MsgFlags::MSG_DONTWAIT;
    let bytes = message.map(u64::to_ne_bytes);
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes.as_flattened())], control, flags, None) {
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
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<Received<Message>> {
    let mut message = [[0; 8]; 2];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = platform::RECEIVE_FLAGS | MsgFlags::MSG_DONTWAIT;
    let (bytes, fds) = loop {
        let mut parts = [IoSliceMut::new(message.as_flattened_mut())];
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
        16 => Ok(Received::Message(message.map(u64::from_ne_bytes), fds)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

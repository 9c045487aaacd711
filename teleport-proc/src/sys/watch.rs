//! Waiting for an owner, for children and for messages at the same time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};

use super::platform::{Children, ProcessFd};
use super::poll::{poll_until, readable};

/// The events that [`Watch::wait`] saw. There may be several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) owner_ended: bool,
    /// A child may have ended.
    pub(crate) child_ended: bool,
    pub(crate) socket_readable: bool,
}

/// Watches the owner of this process, and its children. SIGCHLD must be blocked.
#[derive(Debug)]
pub(crate) struct Watch {
    owner: ProcessFd,
    children: Children,
}

impl Watch {
    pub(crate) fn new(owner: ProcessFd) -> io::Result<Watch> {
        Ok(Watch { owner, children: Children::new()? })
    }

    /// **Blocks** until there is an event, or until `deadline`.
    pub(crate) fn wait(&self, socket: Option<&OwnedFd>, deadline: Option<Instant>) -> io::Result<Events> {
        let mut fds = vec![
            PollFd::new(self.owner.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(socket.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        poll_until(&mut fds, deadline)?;
        let hit = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        let events = Events { owner_ended: hit(0), child_ended: hit(1), socket_readable: hit(2) };
        if events.child_ended {
            self.children.clear();
        }
        Ok(events)
    }

    /// **Blocks** until a child may have ended, or until `deadline`.
    pub(crate) fn wait_for_child(&self, deadline: Instant) -> io::Result<()> {
        if readable(&self.children, Some(deadline))? {
            self.children.clear();
        }
        Ok(())
    }

    /// Returns the descriptors that this uses.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.owner.as_fd().as_raw_fd(), self.children.as_fd().as_raw_fd()]
    }
}

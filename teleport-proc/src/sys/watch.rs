//! Waiting for an owner, for children and for messages at the same time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};

use super::pidfd::ProcessFd;
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
    children: children::Children,
}

impl Watch {
    pub(crate) fn new(owner: ProcessFd) -> io::Result<Watch> {
        Ok(Watch { owner, children: children::Children::new()? })
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

#[cfg(any(target_os = "linux", target_os = "android"))]
mod children {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};

    /// Is readable when a child has ended.
    #[derive(Debug)]
    pub(super) struct Children(SignalFd);

    impl Children {
        pub(super) fn new() -> io::Result<Children> {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGCHLD);
            Ok(Children(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
        }

        pub(super) fn clear(&self) {
            // One signal stands for any number of children, so one read is enough.
            let _ = self.0.read_signal();
        }
    }

    impl AsFd for Children {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod children {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    /// Is readable when a child has ended.
    #[derive(Debug)]
    pub(super) struct Children(Kqueue);

    impl Children {
        pub(super) fn new() -> io::Result<Children> {
            let queue = Kqueue::new()?;
            queue.kevent(&[event()], &mut [], None)?;
            Ok(Children(queue))
        }

        pub(super) fn clear(&self) {
            let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = self.0.kevent(&[], &mut [event()], Some(time));
        }
    }

    fn event() -> KEvent {
        let signal = libc::SIGCHLD as usize;
        KEvent::new(signal, EventFilter::EVFILT_SIGNAL, EvFlags::EV_ADD, FilterFlag::empty(), 0, 0)
    }

    impl AsFd for Children {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

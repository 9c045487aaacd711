//! The messages between an owner, its zygote and its reapers.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys::{self, Exit, Message, Received};

/// A message. The sender and receiver of each are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Zygote to owner: the zygote is ready.
    Ready,
    /// Zygote to owner: the zygote cannot fork, since it has this many threads.
    Threads { count: u32 },
    /// Owner to zygote, with descriptors: start a process.
    Start,
    /// Reaper to owner, with the reaper's pidfd where the system has them: the process has started.
    Started { pid: i32 },
    /// Zygote or reaper to owner: the process could not be started.
    Failed { step: Step, errno: i32 },
    /// Owner to reaper: send SIGTERM to all processes, and SIGKILL after the grace.
    End { grace: Duration },
    /// Reaper to owner: the process has ended like this, and nothing that it started is left.
    Ended { exit: Exit },
}

/// The step of starting a process that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Receive,
    Reaper,
    Fork,
    Execute,
}

impl Step {
    const ALL: [Step; 4] = [Step::Receive, Step::Reaper, Step::Fork, Step::Execute];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Step::Receive => "its reaper cannot read the request",
            Step::Reaper => "its reaper cannot be set up",
            Step::Fork => "no process can be made",
            Step::Execute => "the program cannot be executed again",
        }
    }
}

/// The kind of the first step of [`Control::Failed`]. Those of the other steps follow.
const FAILED: u64 = 8;

impl Control {
    fn encode(self) -> Message {
        match self {
            Control::Ready => [1, 0],
            Control::Start => [2, 0],
            Control::Started { pid } => [3, pid as u64],
            Control::End { grace } => [4, grace.as_millis().try_into().unwrap_or(u64::MAX)],
            Control::Ended { exit: Exit::Code(code) } => [5, code as u64],
            Control::Ended { exit: Exit::Signal(signal) } => [6, signal as u64],
            Control::Threads { count } => [7, count.into()],
            Control::Failed { step, errno } => [FAILED + step as u64, errno as u64],
        }
    }

    fn decode([kind, value]: Message) -> Option<Control> {
        Some(match kind {
            1 => Control::Ready,
            2 => Control::Start,
            3 => Control::Started { pid: value as i32 },
            4 => Control::End { grace: Duration::from_millis(value) },
            5 => Control::Ended { exit: Exit::Code(value as i32) },
            6 => Control::Ended { exit: Exit::Signal(value as i32) },
            7 => Control::Threads { count: u32::try_from(value).ok()? },
            kind => {
                let step = usize::try_from(kind.checked_sub(FAILED)?).ok()?;
                Control::Failed { step: *Step::ALL.get(step)?, errno: value as i32 }
            }
        })
    }
}

/// Sends a message, without waiting.
pub(crate) fn send(socket: &OwnedFd, message: Control, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    sys::send(socket, message.encode(), fds)
}

/// Reports that a process could not be started.
pub(crate) fn send_failure(socket: &OwnedFd, step: Step, error: &io::Error) {
    let errno = error.raw_os_error().unwrap_or(0);
    // This fails if the owner is gone.
    let _ = send(socket, Control::Failed { step, errno }, &[]);
}

/// Takes the next message, without waiting.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<Received<Control>> {
    Ok(match sys::receive(socket)? {
        Received::Message(message, fds) => {
            Received::Message(Control::decode(message).ok_or(io::ErrorKind::InvalidData)?, fds)
        }
        Received::Nothing => Received::Nothing,
        Received::Closed => Received::Closed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (a, b) = sys::pair().unwrap();
        let messages = [
            Control::Ready,
            Control::Threads { count: 3 },
            Control::Started { pid: 42 },
            Control::Failed { step: Step::Execute, errno: 2 },
            Control::End { grace: Duration::from_millis(1 << 40) },
            Control::Ended { exit: Exit::Code(-1) },
            Control::Ended { exit: Exit::Signal(9) },
        ];
        for message in messages {
            send(&a, message, &[]).unwrap();
            assert!(matches!(receive(&b).unwrap(), Received::Message(received, _) if received == message));
        }
        assert!(matches!(receive(&b).unwrap(), Received::Nothing));
        send(&a, Control::End { grace: Duration::MAX }, &[]).unwrap();
        let longest = Duration::from_millis(u64::MAX);
        assert!(
            matches!(receive(&b).unwrap(), Received::Message(Control::End { grace }, _) if grace == longest)
        );
        let (read, write) = sys::pipe().unwrap();
        use std::os::fd::AsFd;
        send(&a, Control::Start, &[read.as_fd(), write.as_fd()]).unwrap();
        assert!(matches!(receive(&b).unwrap(), Received::Message(Control::Start, fds) if fds.len() == 2));
        drop(a);
        assert!(matches!(receive(&b).unwrap(), Received::Closed));
    }
}

//! The few things that owner, guardian and keepers tell each other.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::exit::Exit;
use crate::sys::{self, MESSAGE_BYTES, Received};

/// One thing that is told. Which of them a socket carries depends on whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Guardian to owner: it has started.
    Ready,
    /// Guardian to owner: it cannot start anything, as it has so many threads.
    Threads { count: u32 },
    /// Owner to guardian, with descriptors: start a process.
    Start,
    /// Keeper to owner: the process has started.
    Started { pid: i32 },
    /// Guardian or keeper to owner: it could not be started.
    Failed { step: Step, errno: i32 },
    /// Owner to keeper: end it all; after this time, by force.
    End { grace: Duration },
    /// Keeper to owner: the process has ended like this, and nothing that it started is left.
    Ended { exit: Exit },
}

/// What was to be done when starting a process failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Receive,
    Keeper,
    Fork,
    Execute,
}

impl Step {
    const ALL: [Step; 4] = [Step::Receive, Step::Keeper, Step::Fork, Step::Execute];

    pub(crate) fn what(self) -> &'static str {
        match self {
            Step::Receive => "the guardian process cannot take the request",
            Step::Keeper => "the keeper of the process cannot be set up",
            Step::Fork => "no process can be made",
            Step::Execute => "the program cannot be executed again",
        }
    }
}

impl Word {
    fn encode(self) -> [u8; MESSAGE_BYTES] {
        let (kind, a, b): (u32, i32, u64) = match self {
            Word::Ready => (1, 0, 0),
            Word::Start => (2, 0, 0),
            Word::Started { pid } => (3, pid, 0),
            Word::Failed { step, errno } => (4, errno, step as u64),
            Word::End { grace } => (5, 0, grace.as_millis().try_into().unwrap_or(u64::MAX)),
            Word::Ended { exit: Exit::Code(code) } => (6, code, 0),
            Word::Ended { exit: Exit::Signal(signal) } => (7, signal, 0),
            Word::Threads { count } => (8, 0, count.into()),
        };
        let mut message = [0; MESSAGE_BYTES];
        message[..4].copy_from_slice(&kind.to_le_bytes());
        message[4..8].copy_from_slice(&a.to_le_bytes());
        message[8..].copy_from_slice(&b.to_le_bytes());
        message
    }

    fn decode(message: [u8; MESSAGE_BYTES]) -> Option<Word> {
        let part = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| message[at + i]));
        let (a, b) = (part(4) as i32, u64::from(part(8)) | u64::from(part(12)) << 32);
        Some(match part(0) {
            1 => Word::Ready,
            2 => Word::Start,
            3 => Word::Started { pid: a },
            4 => Word::Failed { step: *Step::ALL.get(usize::try_from(b).ok()?)?, errno: a },
            5 => Word::End { grace: Duration::from_millis(b) },
            6 => Word::Ended { exit: Exit::Code(a) },
            7 => Word::Ended { exit: Exit::Signal(a) },
            8 => Word::Threads { count: u32::try_from(b).ok()? },
            _ => return None,
        })
    }
}

/// Tells something, without waiting.
pub(crate) fn tell(socket: &OwnedFd, word: Word, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    sys::send(socket, &word.encode(), fds)
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Word(Word, Vec<OwnedFd>),
    Nothing,
    Closed,
}

/// Takes what was told next, without waiting.
pub(crate) fn hear(socket: &OwnedFd) -> io::Result<Heard> {
    Ok(match sys::receive(socket)? {
        Received::Message(message, fds) => {
            Heard::Word(Word::decode(message).ok_or(io::ErrorKind::InvalidData)?, fds)
        }
        Received::Nothing => Heard::Nothing,
        Received::Closed => Heard::Closed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_as_they_were_told() {
        let (a, b) = sys::pair().unwrap();
        let words = [
            Word::Ready,
            Word::Threads { count: 3 },
            Word::Started { pid: 42 },
            Word::Failed { step: Step::Execute, errno: 2 },
            Word::End { grace: Duration::from_millis(1 << 40) },
            Word::Ended { exit: Exit::Code(-1) },
            Word::Ended { exit: Exit::Signal(9) },
        ];
        for word in words {
            tell(&a, word, &[]).unwrap();
            assert!(matches!(hear(&b).unwrap(), Heard::Word(heard, _) if heard == word));
        }
        assert!(matches!(hear(&b).unwrap(), Heard::Nothing));
        tell(&a, Word::End { grace: Duration::MAX }, &[]).unwrap();
        let longest = Duration::from_millis(u64::MAX);
        assert!(matches!(hear(&b).unwrap(), Heard::Word(Word::End { grace }, _) if grace == longest));
        let (read, write) = sys::pipe().unwrap();
        use std::os::fd::AsFd;
        tell(&a, Word::Start, &[read.as_fd(), write.as_fd()]).unwrap();
        assert!(matches!(hear(&b).unwrap(), Heard::Word(Word::Start, fds) if fds.len() == 2));
        drop(a);
        assert!(matches!(hear(&b).unwrap(), Heard::Closed));
    }
}

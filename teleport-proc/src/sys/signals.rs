//! Listens for SIGINT and SIGTERM for a while, in a program that may have any other threads.
//!
//! The handler writes a byte to the pipe of each listener. Pipes are never closed but given to later
//! listeners, since a handler may be about to write to one. A signal that was ignored before stays ignored,
//! and the previous handlers are restored when the last listener is dropped.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::descriptor::nonblocking_pipe;

const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// A program that runs more than one group at a time is rare.
const MAX_LISTENERS: usize = 64;

/// The descriptors to which the handler writes, or -1.
static PIPE_ENDS: [AtomicI32; MAX_LISTENERS] = [const { AtomicI32::new(-1) }; MAX_LISTENERS];

/// The reading end and the writing end.
type Pipe = (OwnedFd, OwnedFd);

static STATE: Mutex<State> = Mutex::new(State::new());

struct State {
    /// All pipes. A listener has a copy of its own.
    pipes: Vec<Arc<Pipe>>,
    /// The handlers that this module has replaced.
    before: Vec<(Signal, SigAction)>,
    listeners: usize,
}

extern "C" fn handle(_signal: i32) {
    let errno = Errno::last_raw();
    for end in PIPE_ENDS.iter().map(|end| end.load(Ordering::SeqCst)).filter(|end| *end >= 0) {
        // SAFETY: `write` is async-signal-safe, the byte is a constant, and the pipe is never closed.
        unsafe { libc::write(end, b"!".as_ptr().cast(), 1) };
    }
    Errno::set_raw(errno);
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    pipe: Arc<Pipe>,
    count: Cell<u32>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let free = state.pipes.iter().find(|pipe| Arc::strong_count(pipe) == 1).cloned();
        let pipe = free.map_or_else(|| state.add_pipe(), Ok)?;
        if state.before.is_empty() {
            state.listen()?;
        }
        let signals = Signals { pipe, count: Cell::new(0) };
        // Forgets the signals for an earlier listener.
        signals.count();
        signals.count.set(0);
        state.listeners += 1;
        Ok(signals)
    }

    /// Returns a descriptor that is readable when a signal has arrived since the last
    /// [`count`](Signals::count).
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }

    /// Returns how many signals have arrived since this was made.
    pub(crate) fn count(&self) -> u32 {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = nix::unistd::read(self.descriptor(), &mut bytes) {
            self.count.set(self.count.get() + count as u32);
        }
        self.count.get()
    }
}

/// Stops listening in a process that was forked from one that listened.
pub(crate) fn forget_signals() {
    // A process that forks has one thread, so no other thread can hold the lock.
    let Ok(mut state) = STATE.try_lock() else { return };
    state.restore();
    PIPE_ENDS.iter().for_each(|end| end.store(-1, Ordering::SeqCst));
    *state = State::new();
}

impl State {
    const fn new() -> State {
        State { pipes: Vec::new(), before: Vec::new(), listeners: 0 }
    }

    fn restore(&mut self) {
        for (signal, action) in self.before.drain(..) {
            // SAFETY: this is the action that the program itself had set.
            let _ = unsafe { sigaction(signal, &action) };
        }
    }

    fn add_pipe(&mut self) -> io::Result<Arc<Pipe>> {
        let slot = PIPE_ENDS.get(self.pipes.len()).ok_or(io::ErrorKind::QuotaExceeded)?;
        // A handler never waits: a full pipe needs no more bytes.
        let pipe = Arc::new(nonblocking_pipe()?);
        slot.store(pipe.1.as_raw_fd(), Ordering::SeqCst);
        self.pipes.push(pipe.clone());
        Ok(pipe)
    }

    fn listen(&mut self) -> io::Result<()> {
        for signal in SIGNALS {
            let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
            // SAFETY: the handler calls only async-signal-safe functions.
            let previous = unsafe { sigaction(signal, &action) }?;
            if matches!(previous.handler(), SigHandler::SigIgn) {
                // SAFETY: this is the action that the program itself had set.
                unsafe { sigaction(signal, &previous) }?;
            } else {
                self.before.push((signal, previous));
            }
        }
        Ok(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        state.listeners -= 1;
        if state.listeners == 0 {
            state.restore();
        }
    }
}

//! Hearing SIGINT and SIGTERM for a while, beside threads that may be anywhere.
//!
//! The handler writes a byte into the pipe of each listener. Pipes are kept for later listeners, since a handler may be about
//! to write to one. What was ignored before stays ignored, and what was handled is handled again afterwards.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What is heard.
const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// How often one of them has come since the process started.
static HEARD: AtomicU32 = AtomicU32::new(0);

/// Where the handler writes.
static PIPE_ENDS: [AtomicI32; MAX_LISTENERS] = [const { AtomicI32::new(-1) }; MAX_LISTENERS];

/// Groups that run at the same time: more than one is rare.
const MAX_LISTENERS: usize = 64;

static STATE: Mutex<State> = Mutex::new(State { pipes: Vec::new(), before: Vec::new() });

struct State {
    /// The listeners' pipes, and which have one.
    pipes: Vec<(Arc<(OwnedFd, OwnedFd)>, bool)>,
    /// What handled the signals before the first of them.
    before: Vec<(Signal, SigAction)>,
}

extern "C" fn hear(_signal: i32) {
    let errno = Errno::last_raw();
    HEARD.fetch_add(1, Ordering::SeqCst);
    for end in PIPE_ENDS.iter().map(|end| end.load(Ordering::SeqCst)).filter(|end| *end >= 0) {
        // SAFETY: write may be called by handlers; the byte is a constant, and the pipe is never closed.
        unsafe { libc::write(end, b"!".as_ptr().cast(), 1) };
    }
    Errno::set_raw(errno);
}

/// Hears the signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    pipe: Arc<(OwnedFd, OwnedFd)>,
    /// How many had come before.
    since: u32,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pipes.iter().all(|(_, is_taken)| *is_taken) {
            state.add_pipe()?;
        }
        if state.before.is_empty() {
            state.listen()?;
        }
        let since = HEARD.load(Ordering::SeqCst);
        let free = state.pipes.iter_mut().find(|(_, is_taken)| !is_taken);
        let (pipe, is_taken) = free.ok_or(io::ErrorKind::QuotaExceeded)?;
        *is_taken = true;
        Ok(Signals { pipe: pipe.clone(), since })
    }

    /// Readable when a signal has come that was not [`heard`](Signals::heard).
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }

    /// How many have come since this was made.
    pub(crate) fn heard(&self) -> u32 {
        let mut bytes = [0; 64];
        while let Ok(1..) = nix::unistd::read(self.descriptor(), &mut bytes) {}
        HEARD.load(Ordering::SeqCst).wrapping_sub(self.since)
    }
}

/// Hears nothing more, in a process that was forked from one that did: neither its signals nor its pipes are meant for this one.
pub(crate) fn forget_signals() {
    // Nobody else could have it: a process that forks has one thread.
    let Ok(mut state) = STATE.try_lock() else { return };
    state.restore();
    PIPE_ENDS.iter().for_each(|end| end.store(-1, Ordering::SeqCst));
    state.pipes.clear();
}

impl State {
    fn restore(&mut self) {
        for (signal, action) in self.before.drain(..) {
            // SAFETY: as it was before anybody heard them.
            let _ = unsafe { sigaction(signal, &action) };
        }
    }

    fn add_pipe(&mut self) -> io::Result<()> {
        let slot = PIPE_ENDS.get(self.pipes.len()).ok_or(io::ErrorKind::QuotaExceeded)?;
        let pipe = super::pipe()?;
        for end in [&pipe.0, &pipe.1] {
            // A full pipe needs no more bytes.
            super::set_nonblocking(end)?;
        }
        slot.store(pipe.1.as_raw_fd(), Ordering::SeqCst);
        self.pipes.push((Arc::new(pipe), false));
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        for signal in SIGNALS {
            let action = SigAction::new(SigHandler::Handler(hear), SaFlags::SA_RESTART, SigSet::empty());
            // SAFETY: the handler calls only what handlers may.
            let previous = unsafe { sigaction(signal, &action) }?;
            if matches!(previous.handler(), SigHandler::SigIgn) {
                // SAFETY: as it was.
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
        for (pipe, is_taken) in &mut state.pipes {
            *is_taken &= !Arc::ptr_eq(pipe, &self.pipe);
        }
        if state.pipes.iter().all(|(_, is_taken)| !is_taken) {
            state.restore();
        }
    }
}

//! The read role of a link and the flags that its threads read without a lock, in one word.
//!
//! At most one thread *leads*: it reads in place of the event loop. When it leaves, nobody reads, because
//! most threads return soon and each change of the event loop's interest takes a system call. The event loop
//! watches again when a thread waits for an answer, at one of its checks, or at its timeout. Each change is
//! one atomic operation, so threads never see an intermediate state. Actions that follow from a change, such
//! as registering with the kernel, come after it.

#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
use mio::Interest;

/// A thread reads, not the event loop.
const LED: u64 = 1;
/// The event loop watches for readable bytes. Never together with `LED`.
const WATCHED: u64 = 1 << 1;
/// The event loop has a timeout for a socket that nobody reads.
const TIMED: u64 = 1 << 2;
/// The lowest bit of the count of threads that began to lead.
const LEADS: u64 = 1 << 32;

/// A condition that one thread reports to the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(u64);

impl Flag {
    /// The event loop writes next, when the socket is writable.
    pub(super) const BLOCKED: Flag = Flag(1 << 3);
    /// A message is held back and not being written.
    pub(super) const COALESCED: Flag = Flag(1 << 4);
    /// The event loop checks from time to time how fast the peer moves the memory that it holds.
    pub(super) const RATE_CHECKED: Flag = Flag(1 << 5);
    /// The end of the stream has arrived, after bytes that are still unread. The kernel reports it once.
    pub(super) const ENDS: Flag = Flag(1 << 6);
    /// Writing failed: the link is over once all bytes from the peer are read.
    pub(super) const BROKEN: Flag = Flag(1 << 7);
    /// The goodbye was sent: arriving bytes are dropped, until the peer closes or the time to linger is over.
    pub(super) const LINGERS: Flag = Flag(1 << 8);
    /// Large results were charged to the budget, or the layer above waits until such results are sent. Set
    /// and cleared under the lock of the sending half.
    pub(super) const CHARGED: Flag = Flag(1 << 9);
}

/// The word.
// All operations are sequentially consistent. Where one thread must see a flag or find what another has
// queued, the queue is under a lock, and each thread uses word and lock in the opposite order of the other.
#[derive(Debug)]
pub(super) struct Status(AtomicU64);

impl Status {
    /// Returns the initial status: the event loop watches, and no flag is set.
    pub(super) fn new() -> Status {
        Status(AtomicU64::new(WATCHED))
    }

    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Changes the word unless `change` returns `None`. Returns the word before.
    fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).ok()
    }

    // ---- Flags ----

    pub(super) fn has(&self, flag: Flag) -> bool {
        self.load() & flag.0 != 0
    }

    /// Sets the flag. Returns true if it was not set.
    pub(super) fn set(&self, flag: Flag) -> bool {
        self.0.fetch_or(flag.0, Ordering::SeqCst) & flag.0 == 0
    }

    /// Clears the flag. Returns true if it was set.
    pub(super) fn clear(&self, flag: Flag) -> bool {
        self.0.fetch_and(!flag.0, Ordering::SeqCst) & flag.0 != 0
    }

    // ---- The read role ----

    /// Makes the caller the leader, unless another thread leads. Returns true if the event loop was watching:
    /// the caller must stop it.
    pub(super) fn lead(&self) -> Option<bool> {
        let lead = |word: u64| (word & LED == 0).then_some(((word | LED) & !WATCHED).wrapping_add(LEADS));
        self.update(lead).map(|before| before & WATCHED != 0)
    }

    /// Ends the caller's lead. Returns true if the caller must set a timeout for `handle_quiet_timeout`.
    pub(super) fn leave(&self) -> bool {
        self.update(|word| Some((word & !LED) | TIMED)).is_some_and(|before| before & TIMED == 0)
    }

    /// Lets the event loop watch, unless a thread leads. The caller must then register the interest.
    pub(super) fn watch(&self) {
        self.update(|word| (word & LED == 0).then_some(word | WATCHED));
    }

    /// Lets the event loop watch if nobody reads. Returns true if the caller must register the interest.
    pub(super) fn watch_if_unread(&self) -> bool {
        self.is_unread()
            && self.update(|word| (word & (LED | WATCHED) == 0).then_some(word | WATCHED)).is_some()
    }

    /// Returns true if neither a thread nor the event loop reads.
    pub(super) fn is_unread(&self) -> bool {
        self.load() & (LED | WATCHED) == 0
    }

    /// Returns the interest to register.
    pub(super) fn interest(&self) -> Option<Interest> {
        let word = self.load();
        match (word & WATCHED != 0, word & Flag::BLOCKED.0 != 0) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    /// Returns true if no thread leads and the socket is not full.
    pub(super) fn only_reads(&self) -> bool {
        self.load() & (LED | Flag::BLOCKED.0) == 0
    }

    /// Returns how often a thread has begun to lead.
    pub(super) fn leads(&self) -> u32 {
        (self.load() / LEADS) as u32
    }

    /// Handles the event loop's timeout for a socket that nobody reads. `seen` is the number of leads at the
    /// last one.
    pub(super) fn handle_quiet_timeout(&self, seen: &mut u32) -> QuietTimeout {
        if self.load() & TIMED == 0 {
            return QuietTimeout::Done;
        }
        let leads = self.leads();
        if std::mem::replace(seen, leads) != leads {
            return QuietTimeout::Again;
        }
        // In this order: a leader that leaves in between sets a new timeout.
        self.0.fetch_and(!TIMED, Ordering::SeqCst);
        if self.watch_if_unread() { QuietTimeout::Watch } else { QuietTimeout::Done }
    }
}

/// The outcome of a timeout for an unread socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuietTimeout {
    /// The timeout is no longer needed.
    Done,
    /// A thread has led since the last timeout: check again later.
    Again,
    /// The event loop watches from now on: register the interest.
    Watch,
}

//! Waiting in the caller's thread.
//!
//! With the feature `threads`, a `Thread` of `teleport-proc` that is killed does not wait any longer: it unwinds here, where
//! nothing is locked, and drops what it has as it goes. Any other thread pays for looking at a flag of its own.

use std::task::{Context, Poll};
use std::time::Instant;

use teleport_transport::Driver;

#[cfg(not(feature = "threads"))]
pub(crate) use self::unkillable::checkpoint;
#[cfg(not(feature = "threads"))]
use self::unkillable::{is_interruptible, poll_killed};
#[cfg(feature = "threads")]
pub(crate) use teleport_proc::checkpoint;
#[cfg(feature = "threads")]
use teleport_proc::{is_interruptible, poll_killed};

/// This thread was killed while it waited.
#[derive(Debug)]
pub(crate) struct Killed;

/// As the transport's `block_on`; does not return in a thread that is killed meanwhile.
pub(crate) fn block_on<T>(
    driver: &mut Option<Driver>,
    until: Option<Instant>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    until_killed(driver, until, poll).unwrap_or_else(|Killed| {
        // Others read the connection while this thread unwinds.
        *driver = None;
        checkpoint();
        None
    })
}

/// As the transport's `block_on`, for what must not unwind, or has to be done with something before.
pub(crate) fn until_killed<T>(
    driver: &mut Option<Driver>,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<Option<T>, Killed> {
    if !is_interruptible() {
        return Ok(teleport_transport::block_on(driver, until, poll));
    }
    let result = teleport_transport::block_on(driver, until, |cx| match poll_killed(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Killed)),
        Poll::Pending => poll(cx).map(Ok),
    });
    result.transpose()
}

/// Where a future is polled by an executor of the user's: unwinds a thread that was killed, and is polled again when it is.
pub(crate) fn point(cx: &mut Context<'_>) {
    if poll_killed(cx).is_ready() {
        checkpoint();
    }
}

/// What `teleport-proc` has, where nothing is known of its threads.
#[cfg(not(feature = "threads"))]
mod unkillable {
    use std::task::{Context, Poll};

    pub(crate) fn checkpoint() {}

    pub(crate) fn is_interruptible() -> bool {
        false
    }

    pub(crate) fn poll_killed(_: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

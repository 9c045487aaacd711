//! Waiting in the thread of a server's owner.
//!
//! With the feature `threads`, a `Thread` of `teleport-proc` that is killed does not wait any longer: it unwinds here, where
//! nothing is locked, and drops what it has as it goes. Any other thread pays for looking at a flag of its own.

#[cfg(not(feature = "threads"))]
pub(crate) use teleport_transport::block_on;

#[cfg(feature = "threads")]
pub(crate) use self::interruptible::block_on;

#[cfg(feature = "threads")]
mod interruptible {
    use std::task::{Context, Poll};
    use std::time::Instant;

    use teleport_proc::{checkpoint, poll_killed};
    use teleport_transport::Driver;

    /// As the transport's `block_on`; does not return in a thread that is killed meanwhile.
    pub(crate) fn block_on<T>(
        driver: &mut Option<Driver>,
        until: Option<Instant>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        let result = teleport_transport::block_on(driver, until, |cx| match poll_killed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => poll(cx).map(Some),
        });
        if matches!(result, Some(None)) {
            checkpoint();
        }
        result.flatten()
    }
}

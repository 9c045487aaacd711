//! Waiting in the caller's thread.
//!
//! With the feature `threads`, a `Thread` of `teleport-proc` that is killed does not wait any longer: it unwinds here, where
//! nothing is locked, and drops the future as it goes. Any other thread pays for looking at a flag of its own.

#[cfg(not(feature = "threads"))]
pub(crate) use teleport_transport::block_on;

#[cfg(feature = "threads")]
pub(crate) use interruptible::block_on;

#[cfg(feature = "threads")]
mod interruptible {
    use std::task::{Context, Poll};
    use std::time::Instant;

    use teleport_transport::Driver;

    /// As the transport's `block_on`; does not return in a thread that is killed meanwhile.
    pub(crate) fn block_on<T>(
        driver: &mut Option<Driver>,
        until: Option<Instant>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        if !teleport_proc::is_interruptible() {
            return teleport_transport::block_on(driver, until, poll);
        }
        let result = teleport_transport::block_on(driver, until, |cx| match teleport_proc::poll_killed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => poll(cx).map(Some),
        });
        if matches!(result, Some(None)) {
            // Others read the connection while this thread unwinds.
            *driver = None;
            teleport_proc::checkpoint();
        }
        result.flatten()
    }
}

//! Waits that another library can interrupt.
//!
//! A library that can stop its threads installs one [`InterruptHook`] for the process.
//! [`block_on_interruptible`] calls it at each poll, and returns early in a thread that is interrupted. This
//! crate does not depend on such a library. Without a hook, a wait costs one more load than [`block_on`].

use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Instant;

use super::block_on::block_on;
use super::reader_role::ReaderRole;

/// The functions by which a library interrupts waits of its threads.
#[derive(Clone, Copy, Debug)]
pub struct InterruptHook {
    /// Returns true in a thread that the library may interrupt.
    pub is_interruptible: fn() -> bool,
    /// Returns `Ready` in a thread that is interrupted. Otherwise registers the waker for the interruption.
    pub poll_interrupted: fn(&mut Context<'_>) -> Poll<()>,
    /// Unwinds a thread that is interrupted. May return, for example while the thread is unwinding already.
    pub unwind: fn(),
}

static HOOK: OnceLock<InterruptHook> = OnceLock::new();

impl InterruptHook {
    /// Installs the hook for this process. Only the first one has an effect.
    pub fn install(self) {
        let _ = HOOK.set(self);
    }

    fn of_this_thread() -> Option<&'static InterruptHook> {
        HOOK.get().filter(|hook| (hook.is_interruptible)())
    }
}

/// The error of a thread that was interrupted while it waited.
#[derive(Debug)]
pub struct Interrupted(&'static InterruptHook);

impl Interrupted {
    /// Returns a value if this thread is interrupted. Otherwise registers the waker of `cx` for that.
    pub fn poll(cx: &mut Context<'_>) -> Option<Interrupted> {
        let hook = InterruptHook::of_this_thread()?;
        (hook.poll_interrupted)(cx).is_ready().then_some(Interrupted(hook))
    }

    /// Unwinds this thread, unless it is unwinding already.
    pub fn unwind(self) {
        (self.0.unwind)();
    }
}

/// Unwinds this thread if it is interrupted. For a function that waits, but need not wait now.
pub fn unwind_if_interrupted() {
    if let Some(hook) = InterruptHook::of_this_thread() {
        (hook.unwind)();
    }
}

/// Blocks like [`block_on`], but ends early in a thread that is interrupted.
///
/// # Errors
/// [`Interrupted`] if the thread was interrupted before `poll` was ready.
pub fn block_on_interruptible<T>(
    role: &mut Option<ReaderRole>,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<Option<T>, Interrupted> {
    if InterruptHook::of_this_thread().is_none() {
        return Ok(block_on(role, until, poll));
    }
    let result = block_on(role, until, |cx| match Interrupted::poll(cx) {
        Some(interrupted) => Poll::Ready(Err(interrupted)),
        None => poll(cx).map(Ok),
    });
    result.transpose()
}

/// Blocks like [`block_on`], but unwinds a thread that is interrupted.
///
/// Drops `role` before that, so that another thread can read the connection. If the hook does not unwind,
/// returns `None` as for a timeout.
pub fn block_on_or_unwind<T>(
    role: &mut Option<ReaderRole>,
    until: Option<Instant>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    block_on_interruptible(role, until, poll).unwrap_or_else(|interrupted| {
        *role = None;
        interrupted.unwind();
        None
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static IS_INTERRUPTED: Cell<Option<bool>> = const { Cell::new(None) };
        static UNWINDS: Cell<u32> = const { Cell::new(0) };
    }

    fn poll_interrupted(cx: &mut Context<'_>) -> Poll<()> {
        // The next poll finds the interruption.
        cx.waker().wake_by_ref();
        if IS_INTERRUPTED.replace(Some(true)) == Some(true) { Poll::Ready(()) } else { Poll::Pending }
    }

    #[test]
    fn a_thread_that_is_interrupted_waits_no_longer() {
        let hook = InterruptHook {
            is_interruptible: || IS_INTERRUPTED.get().is_some(),
            poll_interrupted,
            unwind: || UNWINDS.set(UNWINDS.get() + 1),
        };
        hook.install();
        // A thread that the hook does not know waits as if there were no hook.
        assert!(matches!(block_on_interruptible(&mut None, None, |_| Poll::Ready(7)), Ok(Some(7))));
        IS_INTERRUPTED.set(Some(false));
        assert!(matches!(block_on_interruptible(&mut None, None, |_| Poll::Ready(7)), Ok(Some(7))));
        IS_INTERRUPTED.set(Some(false));
        assert!(block_on_interruptible(&mut None, None, |_| Poll::<()>::Pending).is_err());
        IS_INTERRUPTED.set(Some(false));
        assert_eq!(block_on_or_unwind(&mut None, None, |_| Poll::<()>::Pending), None);
        assert_eq!(UNWINDS.get(), 1);
        unwind_if_interrupted();
        assert_eq!(UNWINDS.get(), 2);
        IS_INTERRUPTED.set(None);
        unwind_if_interrupted();
        assert_eq!(UNWINDS.get(), 2, "the hook does not know this thread");
    }
}

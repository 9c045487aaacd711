//! Blocks a thread until something is ready. A thread with the read role reads its link meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::coalesce::flush_coalesced;
use super::reader_role::ReaderRole;
use super::sleeper::{Sleeper, left_until};
use crate::reactor::source::{Scratch, Turn};

/// State of a waiting thread, kept for its next wait.
struct Local {
    sleeper: Arc<Sleeper>,
    waker: Waker,
    scratch: Scratch,
}

thread_local! {
    static LOCAL: RefCell<Option<Box<Local>>> = const { RefCell::new(None) };
}

/// The waker of a thread that polls again by itself. One value, since [`Waker::noop`] may differ by place.
static NO_WAKER: &Waker = Waker::noop();

/// Returns false if the thread polls again by itself, as [`block_on`] does while it spins: then nothing needs
/// to wake it.
pub fn needs_wake(cx: &Context<'_>) -> bool {
    !cx.waker().will_wake(NO_WAKER)
}

/// Polls until ready, and **blocks** this thread in between. Returns `None` if `until` is reached first.
///
/// While it waits with a [`ReaderRole`], the thread reads that link itself, which saves two context switches
/// if the answer arrives on it. As long as it spins, it polls again after each read, so `poll` gets
/// a waker that does nothing, which it need not register ([`needs_wake`]). It gets the thread's waker before
/// the thread sleeps.
pub fn block_on<T>(
    role: &mut Option<ReaderRole>,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    // Taken out, not borrowed, because `poll` may run code that waits too. Fails while the thread ends; then
    // the state is not kept.
    let mut local = LOCAL.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| {
        let sleeper = Sleeper::new();
        Box::new(Local { waker: Waker::from(sleeper.clone()), sleeper, scratch: Scratch::new() })
    });
    let Local { sleeper, waker, scratch } = &mut *local;
    let mut may_spin = role.as_mut().is_some_and(ReaderRole::may_spin);
    let result = loop {
        let waker = if may_spin { NO_WAKER } else { &*waker };
        if !may_spin {
            sleeper.state.reset();
        }
        if let Poll::Ready(value) = poll(&mut Context::from_waker(waker)) {
            break Some(value);
        }
        flush_coalesced();
        let left = left_until(until);
        if left == Some(Duration::ZERO) {
            break None;
        }
        let Some(leader) = role else {
            left.map_or_else(thread::park, thread::park_timeout);
            continue;
        };
        let turn = if may_spin {
            let turn = sleeper.without_own_wakes(|| leader.spin(scratch, left));
            may_spin = turn != Turn::Empty;
            turn
        } else {
            let turn = sleeper.without_own_wakes(|| leader.sleep(sleeper, scratch, left));
            may_spin = leader.may_spin();
            turn
        };
        if turn == Turn::Gone {
            // The end of the link completed everything that waited for it. What is still pending waits for
            // something else.
            *role = None;
            may_spin = false;
        }
    };
    let _ = LOCAL.try_with(|kept| kept.replace(Some(local)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_ends_the_wait() {
        let mut polls = 0;
        let value = block_on(&mut None, None, |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        });
        assert_eq!(value, Some(3));
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
        let thread = std::thread::spawn(move || receiver.recv().expect("the waker comes").wake());
        let mut polls = 0;
        block_on(&mut None, None, |cx| {
            polls += 1;
            if polls == 1 {
                sender.send(cx.waker().clone()).expect("the thread waits");
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        thread.join().expect("it does not panic");
    }

    #[test]
    fn time_ends_the_wait() {
        assert_eq!(block_on(&mut None, Some(Instant::now()), |_| Poll::<()>::Pending), None);
    }

    #[test]
    fn polling_may_block_on_something_else() {
        let outer = block_on(&mut None, None, |_| Poll::Ready(block_on(&mut None, None, |_| Poll::Ready(7))));
        assert_eq!(outer, Some(Some(7)));
    }
}

//! A thread that waits for an answer reads the connection itself.
//!
//! Without this, the poller would read the answer and then wake the thread, which costs two changes of threads for
//! each call. So a thread that is about to wait takes the link's read side if no other has it: the poller stops watching
//! the socket, the thread sleeps in `poll(2)` on it and on its own waker, and reads what comes, also for others.
//!
//! When it leaves, the poller watches again, but not at once, since the thread most likely calls again: a loop of calls then
//! needs no system call for taking turns. Where another waits for an answer, or such bets were in vain lately, it does so at
//! once; with calls open, at its second look (`gather`); with none, when only pings and a goodbye can come, once nobody has
//! driven the link for `UNWATCHED`.
//!
//! Never blocks past the time given. Bounds: one driver a link; the read-ahead buffer is one a waiting thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::{Link, release_held};
use crate::reactor::mailbox::Command;
use crate::reactor::source::{Scratch, Turn};
use crate::sys::EventFlag;

/// Wakes one thread, wherever it sleeps: parked, or in `poll(2)`.
struct Sleeper {
    thread: Thread,
    /// Ends a sleep in `poll(2)`; made for the first. None where the process had no descriptor left: then the thread does
    /// not drive.
    flag: OnceLock<Option<EventFlag>>,
    /// Whether the thread is in `poll(2)`, or about to be.
    polls: AtomicBool,
    /// Whether it was woken since it last looked.
    woken: AtomicBool,
}

// `polls` and `woken` are sequentially consistent: the thread sets the one and reads the other, who wakes it does the
// reverse, and one of them must see what the other wrote.
impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        // In this order: where `polls` is set, the flag has been made.
        let flag = if self.polls.load(Ordering::SeqCst) { self.flag.get() } else { None };
        match flag {
            Some(Some(flag)) => flag.raise(),
            _ => self.thread.unpark(),
        }
    }
}

impl Sleeper {
    fn new() -> Arc<Sleeper> {
        let (flag, thread) = (OnceLock::new(), thread::current());
        Arc::new(Sleeper { thread, flag, polls: AtomicBool::new(false), woken: AtomicBool::new(false) })
    }

    fn flag(&self) -> Option<&EventFlag> {
        self.flag.get_or_init(|| EventFlag::new().ok()).as_ref()
    }
}

struct Local {
    sleeper: Arc<Sleeper>,
    waker: Waker,
    scratch: Scratch,
}

thread_local! {
    static LOCAL: RefCell<Option<Box<Local>>> = const { RefCell::new(None) };
}

/// Polls until ready, and **blocks** this thread in between; none if `until` comes first.
///
/// While it waits with a [`Driver`], the thread reads that link itself, which saves two changes of threads when the answer
/// comes on it.
pub fn block_on<T>(
    driver: &mut Option<Driver>,
    until: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    // Taken out, not borrowed: what `poll` runs may wait for something of its own.
    // Fails while the thread ends: what it leaves is dropped then.
    let mut local = LOCAL.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| {
        let sleeper = Sleeper::new();
        Box::new(Local { waker: Waker::from(sleeper.clone()), sleeper, scratch: Scratch::new() })
    });
    let result = loop {
        local.sleeper.woken.store(false, Ordering::SeqCst);
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&local.waker)) {
            break Some(value);
        }
        release_held();
        let left = left_until(until);
        if left == Some(Duration::ZERO) {
            break None;
        }
        match driver {
            Some(of) if of.wait(&mut local, until) => {}
            // The link's end has completed all that waited for it, and what still waits is for another.
            Some(_) => *driver = None,
            None => left.map_or_else(thread::park, thread::park_timeout),
        }
    };
    let _ = LOCAL.try_with(|kept| kept.replace(Some(local)));
    result
}

fn left_until(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now()))
}

/// How long a link stays unwatched when a thread that read it left, and nothing is expected but pings.
pub(super) const UNWATCHED: Duration = Duration::from_millis(20);

/// The right to read a link, instead of the poller, which gets it back when this is dropped. Take it before sending what
/// is to be waited for, and wait with [`block_on`]: nobody else reads the link meanwhile.
#[derive(Debug)]
pub struct Driver {
    link: Arc<Link>,
}

impl Link {
    /// None if the link is over, or another thread has the right.
    pub fn drive(self: &Arc<Self>) -> Option<Driver> {
        if self.closed.get().is_some()
            || !self.poller.is_current()
            || self.driven.swap(true, Ordering::SeqCst)
        {
            return None;
        }
        self.drives.fetch_add(1, Ordering::Relaxed);
        self.stop_watching();
        Some(Driver { link: self.clone() })
    }

    /// Somebody waits for an answer: sends what any thread holds back, since that call may be among it, and has the poller
    /// watch the link at once, unless a thread reads it.
    pub fn expect_answers(self: &Arc<Self>) {
        if self.coalesce.is_held() {
            self.flush();
        }
        self.watch_unless_read();
    }

    pub(super) fn watch_unless_read(&self) {
        if !self.driven.load(Ordering::SeqCst) && self.unwatched.load(Ordering::SeqCst) {
            self.watch_again();
        }
    }

    /// Has the poller told of what has arrived, also if it was told before; unless a thread reads, which looks who comes
    /// after it when it leaves.
    pub(crate) fn watch_again(&self) {
        self.watch(|watch| {
            watch.readable = !self.driven.load(Ordering::SeqCst);
            // Only then, and under the lock that a driver takes as it begins: who leaves must find it set.
            if watch.readable {
                self.unwatched.store(false, Ordering::SeqCst);
            }
        });
    }
}

impl Driver {
    /// Waits until something comes, the thread is woken or the time is over; reads what came. False if the link is over.
    fn wait(&self, local: &mut Local, until: Option<Instant>) -> bool {
        let Local { sleeper, scratch, .. } = local;
        let since = match self.link.spin.find(left_until(until), |now| self.look(sleeper, scratch, now)) {
            Ok(goes_on) => return goes_on,
            Err(since) => since,
        };
        let Some(readable) = self.sleep(sleeper, until) else { return false };
        if readable {
            self.link.spin.woke(since);
        }
        !readable || self.link.read_for_a_turn(scratch, Instant::now()) != Turn::Gone
    }

    /// Reads what has come, if anything, without asking before whether there is something: that would be a system call more for
    /// each answer. None if there is no reason to wake.
    fn look(&self, sleeper: &Sleeper, scratch: &mut Scratch, now: Instant) -> Option<bool> {
        if sleeper.woken.load(Ordering::SeqCst) {
            return Some(true);
        }
        match self.link.read_for_a_turn(scratch, now) {
            Turn::Empty => None,
            turn => Some(turn != Turn::Gone),
        }
    }

    /// Whether the socket wants to be read; none if it is closed, or this thread cannot be woken from `poll(2)`.
    fn sleep(&self, sleeper: &Sleeper, until: Option<Instant>) -> Option<bool> {
        let (flag, socket) = (sleeper.flag()?, self.link.socket.read());
        sleeper.polls.store(true, Ordering::SeqCst);
        let woken = sleeper.woken.load(Ordering::SeqCst);
        let readable = socket.as_ref().map(|socket| !woken && flag.wait_with(socket, left_until(until)));
        sleeper.polls.store(false, Ordering::SeqCst);
        readable
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Sequentially consistent with `expect_answers`: a call that is sent meanwhile sees that nobody reads, or is seen
        // here as open.
        self.link.unwatched.store(true, Ordering::SeqCst);
        self.link.driven.store(false, Ordering::SeqCst);
        // Also with calls open: the guard that then looks ends with them, and they may be withdrawn before it has.
        if !self.link.rewatch.swap(true, Ordering::SeqCst) {
            self.link.poller.send(Command::Timeout(self.link.key, Instant::now() + UNWATCHED));
        }
        if self.link.outbound.lock().open_calls() > 0 {
            self.link.leave_unread();
        }
    }
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
    fn what_is_waited_for_may_wait_itself() {
        let outer = block_on(&mut None, None, |_| Poll::Ready(block_on(&mut None, None, |_| Poll::Ready(7))));
        assert_eq!(outer, Some(Some(7)));
    }
}

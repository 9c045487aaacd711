//! Commands for an event loop. Other threads send them through a channel and wake the loop. Its own thread
//! appends them to a queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::accept::Acceptor;
use super::source::{Request, Requested, Source};
use crate::net::socket::listener::Listener;

pub(crate) enum Command {
    Attach(Box<dyn Source>),
    Detach(usize),
    Read(usize),
    Timeout(usize, Instant),
    Check(usize, Instant),
    Request(Arc<dyn Requested>, Request),
    Listen(usize, Listener, Arc<dyn Acceptor>),
    Unlisten(usize, Sender<()>),
    Stop,
}

thread_local! {
    /// The poller whose event loop runs on this thread: the address of the state that its handles share, or
    /// 0.
    static POLLER: Cell<usize> = const { Cell::new(0) };
    static OWN: RefCell<VecDeque<Command>> = const { RefCell::new(VecDeque::new()) };
}

/// Returns true on a poller's thread. Such a thread must not wait for calls, because it would wait for
/// itself.
pub fn on_poller_thread() -> bool {
    POLLER.get() != 0
}

/// Makes this thread the thread of `poller`, or of no poller for 0.
pub(super) fn set_poller(poller: usize) {
    POLLER.set(poller);
}

/// Queues `command` if this is the thread of `poller`, and returns it otherwise.
pub(super) fn push_own(poller: usize, command: Command) -> Result<(), Command> {
    if POLLER.get() != poller {
        return Err(command);
    }
    let mut command = Some(command);
    // Fails while the thread ends: the event loop has ended then.
    let _ = OWN.try_with(|own| own.borrow_mut().extend(command.take()));
    Ok(())
}

/// Returns true if this thread has queued no command for itself.
pub(super) fn own_is_empty() -> bool {
    OWN.with_borrow(VecDeque::is_empty)
}

/// Removes and returns the commands that this thread has queued for itself.
pub(super) fn take_own() -> VecDeque<Command> {
    OWN.take()
}

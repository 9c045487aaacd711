//! Commands for an event loop. Other threads send them through a channel and wake the loop; its own thread
//! puts them into a queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::accept::Acceptor;
use super::source::{Request, Source};
use crate::net::socket::listener::Listener;

pub(crate) enum Command {
    Attach(Arc<dyn Source>),
    Detach(usize),
    Read(usize),
    Timeout(usize, Instant),
    Check(usize, Instant),
    Request(Arc<dyn Source>, Request),
    Listen(usize, Listener, Arc<dyn Acceptor>),
    Unlisten(usize, Sender<()>),
    Stop,
}

thread_local! {
    /// The poller whose event loop runs on this thread: the address of what its handles share, or 0.
    static POLLER: Cell<usize> = const { Cell::new(0) };
    static OWN: RefCell<VecDeque<Command>> = const { RefCell::new(VecDeque::new()) };
}

/// Returns true on the thread of a poller. Such a thread must not wait for calls: it would wait for itself.
pub fn on_poller_thread() -> bool {
    POLLER.get() != 0
}

/// Makes this thread that of `poller`, or of none for 0.
pub(super) fn set_poller(poller: usize) {
    POLLER.set(poller);
}

/// Queues `command` if this is the thread of `poller`, and gives it back otherwise.
pub(super) fn push_own(poller: usize, command: Command) -> Result<(), Command> {
    if POLLER.get() != poller {
        return Err(command);
    }
    let mut command = Some(command);
    // Fails while the thread ends: the event loop is over then.
    let _ = OWN.try_with(|own| own.borrow_mut().extend(command.take()));
    Ok(())
}

/// Returns true if no command of this thread's own waits.
pub(super) fn own_is_empty() -> bool {
    OWN.with_borrow(VecDeque::is_empty)
}

/// Removes and returns the commands of this thread's own.
pub(super) fn take_own() -> VecDeque<Command> {
    OWN.take()
}

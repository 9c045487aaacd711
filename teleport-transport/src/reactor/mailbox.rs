//! The commands that an event loop carries out: other threads send them through a channel and wake the loop; its own thread
//! puts them into a queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::accept::Acceptor;
use super::source::{Request, Source};
use crate::net::socket::Listener;

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

/// Commands in the order in which they were given.
pub(super) struct Mailbox {
    /// From other threads.
    receiver: Receiver<Command>,
    queue: VecDeque<Command>,
}

impl Mailbox {
    pub(super) fn new(receiver: Receiver<Command>) -> Mailbox {
        Mailbox { receiver, queue: VecDeque::new() }
    }

    /// Moves the commands of other threads into the queue.
    fn collect(&mut self) {
        self.queue.extend(self.receiver.try_iter().take(self.receiver.len()));
    }

    /// Queues a command of the event loop's own thread behind all that were given before.
    fn push(&mut self, command: Command) {
        self.collect();
        self.queue.push_back(command);
    }

    /// Removes and returns the commands that were given so far.
    pub(super) fn take(&mut self) -> VecDeque<Command> {
        self.collect();
        std::mem::take(&mut self.queue)
    }

    /// Returns true if no command waits of which the event loop would not be woken.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

thread_local! {
    /// The poller whose event loop runs on this thread: the address of what its handles share, or 0.
    static POLLER: Cell<usize> = const { Cell::new(0) };
    static MAILBOX: RefCell<Option<Rc<RefCell<Mailbox>>>> = const { RefCell::new(None) };
}

/// Returns true on the thread of a poller. Such a thread must not wait for calls: it would wait for itself.
pub fn on_poller_thread() -> bool {
    POLLER.get() != 0
}

/// Makes this thread that of `poller`, whose commands are in `mailbox`.
pub(super) fn enter(poller: usize, mailbox: &Rc<RefCell<Mailbox>>) {
    POLLER.set(poller);
    MAILBOX.set(Some(mailbox.clone()));
}

/// The event loop of this thread has ended.
pub(super) fn leave() {
    POLLER.set(0);
    MAILBOX.set(None);
}

/// Queues `command` if this is the thread of `poller`, and gives it back otherwise.
pub(super) fn push_own(poller: usize, command: Command) -> Result<(), Command> {
    if POLLER.get() != poller {
        return Err(command);
    }
    let mut command = Some(command);
    // Fails while the thread ends: the event loop is over then.
    let _ = MAILBOX.try_with(|mailbox| {
        if let (Some(mailbox), Some(command)) = (&*mailbox.borrow(), command.take()) {
            mailbox.borrow_mut().push(command);
        }
    });
    Ok(())
}

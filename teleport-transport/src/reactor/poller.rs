//! Handles of threads that wait for many sockets at once.
//!
//! A [`PollerThread`] owns one event loop. A [`Poller`] sends it commands, from any thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use mio::event::Source as _;
use mio::{Interest, Poll, Registry, Token, Waker};

use super::accept::Acceptor;
use super::event_loop::EventLoop;
use super::mailbox::{self, Command, on_poller_thread};
use crate::fork_guard::{ForkGuard, wrong_process};
use crate::net::socket::listener::Listener;

/// The token of the waker. Keys of sources and listeners are larger.
const WAKER: Token = Token(0);

/// Keys are never reused, so an event with an old key has no effect.
static NEXT_KEY: AtomicUsize = AtomicUsize::new(WAKER.0 + 1);

/// A handle of a polling thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Poller {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    waker: Waker,
    commands: Sender<Command>,
    /// Detects a forked process, in which the thread does not exist.
    fork_guard: ForkGuard,
}

/// A polling thread. Dropping this ends it, with all its connections.
#[derive(Debug)]
pub struct PollerThread {
    poller: Poller,
    thread: Option<JoinHandle<()>>,
}

impl PollerThread {
    /// Starts a polling thread called `name`.
    ///
    /// # Errors
    /// Returns the system's error if no descriptor or thread is left.
    pub fn start(name: &str) -> io::Result<PollerThread> {
        let poll = Poll::new()?;
        let (poller, receiver) = Poller::new(&poll)?;
        let id = poller.id();
        let mut event_loop = EventLoop::new(poll, receiver);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            mailbox::set_poller(id);
            // Even after a panic, all threads that wait on its connections must be notified.
            if catch_unwind(AssertUnwindSafe(|| event_loop.run())).is_err() {
                tracing::error!("a poller panicked: all its connections end");
            }
            event_loop.end();
        })?;
        Ok(PollerThread { poller, thread: Some(thread) })
    }

    /// Returns the handle that attaches connections.
    pub fn poller(&self) -> &Poller {
        &self.poller
    }
}

impl Drop for PollerThread {
    fn drop(&mut self) {
        self.poller.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && self.poller.is_current()
            && thread.thread().id() != std::thread::current().id()
        {
            // The panic hook has printed the thread's panic already.
            let _ = thread.join();
        }
    }
}

impl Poller {
    /// Creates a handle of the thread that will wait with `poll`, and the receiver of its commands.
    pub(super) fn new(poll: &Poll) -> io::Result<(Poller, Receiver<Command>)> {
        let (commands, receiver) = crossbeam_channel::unbounded();
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let inner = Inner { registry, waker, commands, fork_guard: ForkGuard::current() };
        Ok((Poller { inner: Arc::new(inner) }, receiver))
    }

    /// Returns the poller that all clients of this process share. The first call starts it, and it never
    /// ends.
    ///
    /// # Errors
    /// Returns the system's error if no descriptor or thread is left. Fails in a process that was forked from
    /// one in which the poller was started.
    pub fn shared() -> io::Result<&'static Poller> {
        static SHARED: OnceLock<PollerThread> = OnceLock::new();
        if let Some(thread) = SHARED.get() {
            return if thread.poller.is_current() { Ok(thread.poller()) } else { Err(wrong_process()) };
        }
        let started = PollerThread::start("teleport-poller")?;
        Ok(SHARED.get_or_init(|| started).poller())
    }

    /// Accepts connections until the returned handle is dropped.
    ///
    /// # Errors
    /// Returns the system's error if it cannot watch the socket.
    pub fn listen(&self, listener: Listener, acceptor: Arc<dyn Acceptor>) -> io::Result<Listening> {
        let key = self.next_key();
        (&mut &listener).register(self.registry(), Token(key), Interest::READABLE)?;
        self.send(Command::Listen(key, listener, acceptor));
        Ok(Listening { key, poller: self.clone() })
    }

    pub(crate) fn next_key(&self) -> usize {
        NEXT_KEY.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Returns true unless this process was forked from the thread's.
    pub(crate) fn is_current(&self) -> bool {
        self.inner.fork_guard.is_current()
    }

    /// Sends a command to the event loop. Returns false if the loop has ended with all its sources, or if
    /// this process was forked from the poller's.
    pub(crate) fn send(&self, command: Command) -> bool {
        if !self.is_current() {
            return false;
        }
        let Err(command) = mailbox::push_own(self.id(), command) else { return true };
        let sent = self.inner.commands.send(command).is_ok();
        if sent && let Err(error) = self.inner.waker.wake() {
            tracing::error!(%error, "cannot wake a poller");
        }
        sent
    }

    fn id(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }
}

/// A listener of a poller. Dropping this closes the listener before it returns.
#[derive(Debug)]
pub struct Listening {
    key: usize,
    poller: Poller,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let (done, closed) = crossbeam_channel::bounded(1);
        self.poller.send(Command::Unlisten(self.key, done));
        if !on_poller_thread() && self.poller.is_current() {
            // Fails if the poller has stopped, which closed the listener too.
            let _ = closed.recv();
        }
    }
}

//! Threads that wait for many sockets at once and move their bytes.
//!
//! Flow: the kernel says which sockets are ready -> each link reads and writes for one turn; who has more goes to the
//! ready list, so that all get a turn -> commands of other threads -> timers. A poller owns the read-ahead buffer of all
//! its links. Never runs user code that blocks; an inline method is the user's promise not to.
//! Bounds: one turn a link a round, the commands that had come when theirs did, `MAX_ACCEPTS_PER_ROUND`, one timer entry a
//! link and one more when it closes.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use teleport_wire::QuickHash;

use crate::config::Config;
use crate::fork_guard::{ForkGuard, wrong_process};
use crate::link::{Guard, Handler, Link, Scratch, Turn};
use crate::memory::budget::{Budget, Charge};
use crate::net::socket::{AcceptError, Listener, Socket};
use crate::protocol::{Closed, Role};
use crate::reactor::spin::SharedSpin;
use crate::reactor::timers::Timers;
use crate::sys::wait_for;

/// The token of the waker; links and listeners count up from the one after it.
const WAKER: Token = Token(0);

/// Readiness events taken from the kernel at once.
const EVENTS_PER_ROUND: usize = 256;

/// Connections accepted before the other sockets get their turn again.
const MAX_ACCEPTS_PER_ROUND: usize = 64;

/// When accepting failed for lack of descriptors, it is tried again after this time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// While one link is busy, the others wait for so many looks at it in vain, of less than a microsecond each, or for so many of its
/// turns.
const LOOKS_PER_POLL: u32 = 4;

/// A link looks at the clock no more often than this.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// Takes the sockets that a [`Listener`] accepts. Called on the poller's thread; must not block.
pub trait Acceptor: Send + Sync + 'static {
    /// A client connected; pass the socket to [`Poller::attach`], or drop it to refuse.
    fn accepted(&self, socket: Socket);

    /// Accepting failed; it is tried again soon where that can help.
    fn failed(&self, error: &AcceptError);
}

pub(crate) enum Command {
    Attach(Arc<Link>),
    Read(Arc<Link>),
    Grant(Arc<Link>, u64, Charge),
    Want(Arc<Link>, u64),
    Drained(Arc<Link>),
    Timer(Arc<Link>, Instant),
    Abort(Arc<Link>),
    Guard(Guard),
    Forget(usize),
    Listen(usize, Listener, Arc<dyn Acceptor>),
    Unlisten(usize, Sender<()>),
    Stop,
}

/// A handle on a polling thread; clones share it.
#[derive(Clone, Debug)]
pub struct Poller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    waker: Waker,
    commands: Sender<Command>,
    /// A process that was forked from this one has no such thread.
    fork_guard: ForkGuard,
}

/// Keys of links and listeners are never reused, so that an event for one that is gone finds nothing.
static NEXT_KEY: AtomicUsize = AtomicUsize::new(WAKER.0 + 1);

thread_local! {
    static IS_POLLER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a poller's thread, which must not wait for calls: it would wait for itself.
pub fn on_poller_thread() -> bool {
    IS_POLLER.get()
}

/// A poller that ends when this is dropped, with all its links.
#[derive(Debug)]
pub struct PollerThread {
    poller: Poller,
    thread: Option<JoinHandle<()>>,
}

impl PollerThread {
    /// Starts a polling thread called `name`.
    ///
    /// # Errors
    /// What the system says when it has no descriptor or thread left.
    pub fn start(name: &str) -> io::Result<PollerThread> {
        let poll = Poll::new()?;
        let (poller, receiver) = Poller::of(&poll)?;
        let mut polling = Polling::new(poll, receiver);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Whatever ends the poller, those who wait on its links hear of it.
            if catch_unwind(AssertUnwindSafe(|| polling.run())).is_err() {
                tracing::error!("a poller panicked: all its connections end");
            }
            polling.end();
        })?;
        Ok(PollerThread { poller, thread: Some(thread) })
    }

    /// The handle that links are attached with.
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
            // The thread's panic was printed by its hook; there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

impl Poller {
    /// A handle on the thread that will wait with `poll`, and what that is asked for.
    fn of(poll: &Poll) -> io::Result<(Poller, Receiver<Command>)> {
        let (commands, receiver) = crossbeam_channel::unbounded();
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok((
            Poller {
                shared: Arc::new(Shared { registry, waker, commands, fork_guard: ForkGuard::current() }),
            },
            receiver,
        ))
    }

    /// The poller that all clients of this process share; it starts with the first one and never ends.
    ///
    /// # Errors
    /// What the system says when it has no descriptor or thread left. In a process that was forked from one whose clients had
    /// started it: it is not here.
    pub fn shared() -> io::Result<&'static Poller> {
        static SHARED: OnceLock<PollerThread> = OnceLock::new();
        if let Some(thread) = SHARED.get() {
            return if thread.poller.is_current() { Ok(thread.poller()) } else { Err(wrong_process()) };
        }
        let started = PollerThread::start("teleport-poller")?;
        Ok(SHARED.get_or_init(|| started).poller())
    }

    /// Puts a connected socket into the poller's hands and begins the handshake. With a `budget`, large messages wait for
    /// memory from it; without, all are taken.
    ///
    /// # Errors
    /// What the system says when it cannot watch the socket.
    pub fn attach<H: Handler>(
        &self,
        socket: Socket,
        role: Role,
        config: &Arc<Config>,
        budget: Option<Budget>,
        handler: Arc<H>,
    ) -> io::Result<Arc<Link>> {
        let link = Link::new(self, socket, role, config, budget, handler);
        link.register()?;
        if self.send(Command::Attach(link.clone())) {
            Ok(link)
        } else {
            Err(io::Error::other("the poller has ended"))
        }
    }

    /// Accepts connections until the returned handle is dropped.
    ///
    /// # Errors
    /// What the system says when it cannot watch the socket.
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
        &self.shared.registry
    }

    /// Whether its thread is one of this process, and not of the one that this was forked from.
    pub(crate) fn is_current(&self) -> bool {
        self.shared.fork_guard.is_current()
    }

    /// False if the poller has ended. It has dropped all its links then: nothing is left to do for them. False too in a process
    /// that was forked from the poller's: it is not here.
    pub(crate) fn send(&self, command: Command) -> bool {
        if !self.is_current() {
            return false;
        }
        let sent = self.shared.commands.send(command).is_ok();
        if sent && let Err(error) = self.shared.waker.wake() {
            tracing::error!(%error, "cannot wake a poller");
        }
        sent
    }
}

/// A listener in a poller's hands; dropping it closes the listener before it returns.
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
            // Fails when the poller has stopped, which closed the listener too.
            let _ = closed.recv();
        }
    }
}

/// The state of a polling thread.
struct Polling {
    poll: Poll,
    commands: Receiver<Command>,
    links: HashMap<usize, Arc<Link>, QuickHash>,
    listeners: HashMap<usize, (Listener, Arc<dyn Acceptor>)>,
    /// Links that had more to read when their turn was over.
    ready: VecDeque<Arc<Link>>,
    /// Listeners that had more to accept.
    accepting: Vec<usize>,
    timers: Timers,
    /// Links that hold messages back.
    guards: Vec<Guard>,
    /// Invariant: the earliest time at which one of them looks.
    next_look: Option<Instant>,
    /// Before it sleeps; for as long as the most patient of its links asks for.
    spin: SharedSpin,
    /// The link that brought something last, if it was the only one.
    hot: Option<Arc<Link>>,
    /// Looks that found something there since the kernel was asked about all.
    hot_rounds: u32,
    scratch: Scratch,
}

impl Polling {
    fn new(poll: Poll, commands: Receiver<Command>) -> Polling {
        Polling {
            poll,
            commands,
            links: HashMap::default(),
            listeners: HashMap::new(),
            ready: VecDeque::new(),
            accepting: Vec::new(),
            timers: Timers::default(),
            guards: Vec::new(),
            next_look: None,
            spin: SharedSpin::new(),
            hot: None,
            hot_rounds: 0,
            scratch: Scratch::new(),
        }
    }

    fn run(&mut self) {
        IS_POLLER.set(true);
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        let mut had_something = false;
        loop {
            events.clear();
            had_something = match self.find(&mut events, had_something) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
                Err(error) => {
                    tracing::error!(%error, "a poller cannot wait for its sockets and ends");
                    break;
                }
            };
            let now = Instant::now();
            self.take_turns(now);
            self.look_after(now);
            self.attend(&events, now);
            if self.obey(now) {
                break;
            }
            self.check_timers();
        }
    }

    /// Waits until there is something to do, looking for a moment before it sleeps if `looks`. Whether sockets had anything.
    fn find(&mut self, events: &mut Events, looks: bool) -> io::Result<bool> {
        let idle = self.ready.is_empty() && self.accepting.is_empty();
        if !(idle && looks) {
            self.sleep(events, idle)?;
            return Ok(!events.is_empty());
        }
        match self.look(events) {
            Ok(found) => found.map(|()| true),
            Err(since) => {
                self.sleep(events, idle)?;
                if !events.is_empty() {
                    self.spin.woke(since);
                }
                Ok(!events.is_empty())
            }
        }
    }

    /// One turn for each socket that the kernel told of.
    fn attend(&mut self, events: &Events, now: Instant) {
        let mut readers = 0;
        for event in events {
            let Token(key) = event.token();
            if let Some(link) = self.links.get(&key).cloned() {
                if event.is_writable() {
                    link.writable();
                }
                if event.is_read_closed() {
                    link.stream_ends();
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    readers += 1;
                    self.hot = Some(link.clone()).filter(|_| readers == 1);
                    self.read(link, now);
                }
            } else if self.listeners.contains_key(&key) {
                self.accept(key);
            }
        }
    }

    /// Looks for a moment: whether the link that brought something last has more, which saves a system call for each small
    /// call, and now and then for events. Gives when it began if there is nothing.
    fn look(&mut self, events: &mut Events) -> Result<io::Result<()>, Instant> {
        let limit = self.wait();
        let Polling { poll, spin, hot, hot_rounds, scratch, ready, .. } = self;
        let mut looks = 0;
        spin.find(limit, |now| {
            // One that always has something must not keep the others from being heard, nor itself from writing.
            let is_others_turn = *hot_rounds == LOOKS_PER_POLL;
            let hot = hot.as_ref().filter(|link| !is_others_turn && link.needs_only_reading());
            match hot.map(|link| (link, link.read(scratch, now))) {
                None | Some((_, Turn::Empty)) => {}
                Some((link, turn)) => {
                    if turn == Turn::More {
                        link.queued.store(true, Ordering::Relaxed);
                        ready.push_back(link.clone());
                    }
                    *hot_rounds += 1;
                    return Some(Ok(()));
                }
            }
            looks += 1;
            if hot.is_some() && looks % LOOKS_PER_POLL > 0 {
                return None;
            }
            *hot_rounds = 0;
            match poll.poll(events, Some(Duration::ZERO)) {
                Ok(()) if events.is_empty() => None,
                result => Some(result),
            }
        })
    }

    /// Waits for events, or until something else is due.
    fn sleep(&mut self, events: &mut Events, idle: bool) -> io::Result<()> {
        let mut wait = if idle { self.wait() } else { Some(Duration::ZERO) };
        if let Some(time) = wait.filter(|wait| !wait.is_zero() && !self.guards.is_empty()) {
            wait_for(&self.poll, time);
            wait = Some(Duration::ZERO);
        }
        self.poll.poll(events, wait)
    }

    /// How long nothing is due but what sockets and other threads want; none if nothing ever is.
    fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let timer = self.timers.wait(now);
        let guard = self.next_look.map(|at| at.saturating_duration_since(now));
        timer.map_or(guard, |timer| Some(guard.map_or(timer, |guard| timer.min(guard))))
    }

    /// Looks for what threads have left behind.
    fn look_after(&mut self, now: Instant) {
        if self.next_look.is_some_and(|at| at <= now) {
            self.guards.retain_mut(|guard| guard.due() > now || guard.look(now));
            self.next_look = self.guards.iter().map(Guard::due).min();
        }
    }

    /// One turn for each that had more than its last turn allowed.
    fn take_turns(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            if let Some(link) = self.ready.pop_front() {
                link.queued.store(false, Ordering::Relaxed);
                self.read(link, now);
            }
        }
        for key in std::mem::take(&mut self.accepting) {
            self.accept(key);
        }
    }

    /// One turn. A link that waits for its next turn has had this round's.
    fn read(&mut self, link: Arc<Link>, now: Instant) {
        if !link.queued.load(Ordering::Relaxed) && link.read(&mut self.scratch, now) == Turn::More {
            link.queued.store(true, Ordering::Relaxed);
            self.ready.push_back(link);
        }
    }

    fn accept(&mut self, key: usize) {
        let Some((listener, acceptor)) = self.listeners.get(&key) else { return };
        for _ in 0..MAX_ACCEPTS_PER_ROUND {
            match listener.accept() {
                Ok(Some(socket)) => acceptor.accepted(socket),
                Ok(None) => return,
                Err(error) => {
                    acceptor.failed(&error);
                    self.timers.add(Instant::now() + ACCEPT_AGAIN, key);
                    return;
                }
            }
        }
        if !self.accepting.contains(&key) {
            self.accepting.push(key);
        }
    }

    /// Carries out what was asked for so far; true if the poller is to end. What comes meanwhile, also from here, wakes it
    /// again: sockets get their turn before.
    fn obey(&mut self, now: Instant) -> bool {
        for _ in 0..self.commands.len() {
            let Ok(command) = self.commands.try_recv() else { break };
            match command {
                Command::Attach(link) => {
                    self.spin.join(link.spin_time());
                    self.links.insert(link.key(), link.clone());
                    self.timers.add(now, link.key());
                    // What the kernel told of it before the link was known here, it tells again.
                    link.watch_again();
                    link.flush();
                }
                Command::Read(link) => self.read(link, now),
                Command::Grant(link, id, charge) => link.grant(id, charge),
                Command::Want(link, id) => link.want(id),
                Command::Drained(link) => link.drained(),
                Command::Timer(link, at) => self.timers.add(at, link.key()),
                Command::Abort(link) => {
                    link.gone(Closed::Here, &mut self.scratch);
                }
                Command::Forget(key) => {
                    self.hot = self.hot.take().filter(|link| link.key() != key);
                    if let Some(link) = self.links.remove(&key) {
                        self.spin.leave(link.spin_time());
                        link.forget_input();
                    }
                }
                Command::Guard(guard) => {
                    self.next_look = self.next_look.into_iter().chain([guard.due()]).min();
                    self.guards.push(guard);
                }
                Command::Listen(key, listener, acceptor) => {
                    self.listeners.insert(key, (listener, acceptor));
                    self.accept(key);
                }
                Command::Unlisten(key, done) => {
                    self.listeners.remove(&key);
                    // The one who asked may be this thread, and not wait.
                    let _ = done.send(());
                }
                Command::Stop => return true,
            }
        }
        false
    }

    fn check_timers(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.timers.due(now) {
            if let Some(link) = self.links.get(&key).cloned() {
                if let Some(next) = link.timeout(&mut self.scratch, now) {
                    // Never at once: this loop would not end.
                    self.timers.add(next.max(now + MIN_SLEEP), key);
                }
            } else {
                self.accept(key);
            }
        }
    }

    fn end(mut self) {
        self.listeners.clear();
        for link in std::mem::take(&mut self.links).into_values() {
            link.gone(Closed::Here, &mut self.scratch);
        }
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Attach(link) = command {
                link.gone(Closed::Here, &mut self.scratch);
            }
        }
    }
}

/// A poller without a thread: a test carries out its commands.
#[cfg(test)]
pub(crate) struct StillPoller {
    pub(crate) poller: Poller,
    commands: Receiver<Command>,
    poll: Poll,
}

#[cfg(test)]
impl StillPoller {
    pub(crate) fn new() -> StillPoller {
        let poll = Poll::new().expect("there are descriptors");
        let (poller, commands) = Poller::of(&poll).expect("there are descriptors");
        StillPoller { poller, commands, poll }
    }

    /// The rounds in which a poller that looks, and last had something of `hot`, hears of `other` only: `before` each, the test
    /// does what is to be found. None if it never does.
    pub(crate) fn rounds_until_heard(
        self,
        hot: &Arc<Link>,
        other: &Arc<Link>,
        mut before: impl FnMut(),
    ) -> Option<usize> {
        let mut polling = Polling::new(self.poll, self.commands);
        polling.spin.join(Duration::MAX);
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        let heard = |events: &Events| events.iter().any(|event| event.token() == Token(other.key()));
        (0..1000).find(|_| {
            polling.hot = Some(hot.clone());
            before();
            events.clear();
            assert!(polling.find(&mut events, true).expect("it can wait"), "there is something");
            heard(&events)
        })
    }

    /// What it was asked for since this was last called.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.commands.try_iter().collect()
    }
}

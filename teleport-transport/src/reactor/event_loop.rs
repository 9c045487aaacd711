//! One thread's loop over its sockets, commands and timers.
//!
//! A round: wait for readiness -> sources whose last turn left bytes unread -> checks of what threads left
//! behind -> ready sockets -> commands -> timeouts. Each source gets one turn a round, so that none delays
//! the others. Never runs user code that blocks: inline methods promise not to. Bounds: one turn per source
//! and round, the commands that were queued when their turn began, `MAX_ACCEPTS_PER_ROUND`, one timer entry
//! per source.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::{Events, Poll, Token};
use teleport_wire::QuickHash;

use super::accept::Listeners;
use super::mailbox::{self, Command};
use super::source::{Scratch, Source, Turn};
use super::spin::SharedSpin;
use super::timers::Timers;
use crate::sys::wait_for;

/// Readiness events taken from the kernel at once.
const EVENTS_PER_ROUND: usize = 256;

/// While the event loop spins, the kernel is polled for events of all sockets after this many reads of the
/// hot source that found nothing. An empty read takes less than a microsecond.
const READS_PER_POLL: u32 = 4;

/// The kernel is polled at least this often for events of all sockets, also while the hot source always has
/// bytes.
const MAX_HOT_TIME: Duration = Duration::from_micros(50);

/// A source's timeout is handled at most this often.
const MIN_SLEEP: Duration = Duration::from_millis(1);

struct Entry {
    source: Box<dyn Source>,
    /// The source is in the list of those with more to read.
    is_ready: bool,
}

impl Entry {
    /// Reads for one turn. A source that is in `ready`, for its next turn, has had one in this round.
    fn read(&mut self, key: usize, ready: &mut VecDeque<usize>, scratch: &mut Scratch, now: Instant) -> Turn {
        if self.is_ready {
            return Turn::More;
        }
        let turn = self.source.read(scratch, now);
        if turn == Turn::More {
            self.is_ready = true;
            ready.push_back(key);
        }
        turn
    }
}

pub(super) struct EventLoop {
    poll: Poll,
    /// Sent by other threads.
    commands: Receiver<Command>,
    sources: HashMap<usize, Entry, QuickHash>,
    listeners: Listeners,
    /// Sources with unread bytes after their turn.
    ready: VecDeque<usize>,
    timeouts: Timers,
    checks: Timers,
    /// Runs before the thread sleeps, for the longest spin time of all sources.
    spin: SharedSpin,
    /// The source of the last bytes, if it was the only one.
    hot: Option<usize>,
    /// The time when the kernel was last polled for all sockets.
    polled: Instant,
    scratch: Scratch,
}

impl EventLoop {
    pub(super) fn new(poll: Poll, commands: Receiver<Command>) -> EventLoop {
        EventLoop {
            poll,
            commands,
            sources: HashMap::default(),
            listeners: Listeners::default(),
            ready: VecDeque::new(),
            timeouts: Timers::default(),
            checks: Timers::default(),
            spin: SharedSpin::new(),
            hot: None,
            polled: Instant::now(),
            scratch: Scratch::new(),
        }
    }

    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        let mut had_events = false;
        loop {
            events.clear();
            let waited = match self.wait(&mut events, had_events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((false, Instant::now())),
                result => result,
            };
            let now = match waited {
                Ok((found, now)) => {
                    had_events = found;
                    now
                }
                Err(error) => {
                    tracing::error!(%error, "a poller cannot wait for its sockets and ends");
                    break;
                }
            };
            self.take_turns(now);
            self.handle_checks(now);
            self.handle_events(&events, now);
            if self.run_commands(now) {
                break;
            }
            self.handle_timeouts(now);
            self.yield_after_long_turns(&events);
        }
    }

    // ---- Waiting ----

    /// Waits until there is something to do. Spins first if `may_spin`. Returns true if sockets are ready,
    /// and the time.
    fn wait(&mut self, events: &mut Events, may_spin: bool) -> io::Result<(bool, Instant)> {
        let start = Instant::now();
        if !self.ready.is_empty() || self.listeners.are_ready() || !mailbox::own_is_empty() {
            self.poll_all(events, Some(Duration::ZERO), start)?;
            return Ok((!events.is_empty(), start));
        }
        let mut limit = self.idle_time(start);
        if may_spin && self.spin.spin.should_try() {
            if let Some((result, now)) = self.spin(events, start, limit) {
                return result.map(|()| (true, now));
            }
            limit = self.idle_time(Instant::now());
        }
        // A check that is due in less than a millisecond: `poll` would round the time up.
        if let Some(short) = limit.filter(|time| !time.is_zero() && !self.checks.is_empty()) {
            wait_for(&self.poll, short);
            limit = Some(Duration::ZERO);
        }
        self.poll_all(events, limit, start)?;
        let now = Instant::now();
        self.polled = now;
        if may_spin && !events.is_empty() {
            self.spin.spin.woke(start, now);
        }
        Ok((!events.is_empty(), now))
    }

    /// Polls the kernel for events of all sockets.
    fn poll_all(&mut self, events: &mut Events, time: Option<Duration>, now: Instant) -> io::Result<()> {
        self.polled = now;
        self.poll.poll(events, time)
    }

    /// Reads the hot source for a moment, which saves a system call for each small call. Polls for all
    /// sockets now and then. Returns `None` if nothing arrives.
    fn spin(
        &mut self,
        events: &mut Events,
        start: Instant,
        limit: Option<Duration>,
    ) -> Option<(io::Result<()>, Instant)> {
        let EventLoop { poll, spin, sources, hot, polled, scratch, ready, .. } = self;
        let mut hot = hot.and_then(|key| sources.get_mut(&key).map(|entry| (key, entry)));
        let mut reads = 0;
        spin.spin.run(start, limit, |now| {
            // A source that always has bytes must not keep the others from being read, nor itself from being
            // written.
            let others_turn = now - *polled >= MAX_HOT_TIME;
            let hot = hot.as_mut().filter(|(_, entry)| !others_turn && entry.source.only_reads());
            let is_hot = hot.is_some();
            if let Some((key, entry)) = hot
                && entry.read(*key, ready, scratch, now) != Turn::Empty
            {
                return Some((Ok(()), now));
            }
            reads += 1;
            if is_hot && reads % READS_PER_POLL > 0 {
                return None;
            }
            *polled = now;
            match poll.poll(events, Some(Duration::ZERO)) {
                Ok(()) if events.is_empty() => None,
                result => Some((result, now)),
            }
        })
    }

    /// Returns the time until a timeout or check is due, or `None` without one.
    fn idle_time(&self, now: Instant) -> Option<Duration> {
        self.timeouts.wait(now).into_iter().chain(self.checks.wait(now)).min()
    }

    /// Lets other threads run after long turns of reading or writing. While a large array moves, this thread
    /// never sleeps, and a thread that shares its processor would wait for the scheduler's tick: 4 ms.
    fn yield_after_long_turns(&self, events: &Events) {
        if !self.ready.is_empty() || events.iter().any(Event::is_writable) {
            std::thread::yield_now();
        }
    }

    // ---- One round ----

    /// Gives a turn to each source whose last turn left bytes unread.
    fn take_turns(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            if let Some(key) = self.ready.pop_front()
                && let Some(entry) = self.sources.get_mut(&key)
            {
                entry.is_ready = false;
                entry.read(key, &mut self.ready, &mut self.scratch, now);
            }
        }
        self.listeners.take_turns(&mut self.timeouts);
    }

    fn handle_checks(&mut self, now: Instant) {
        while let Some(key) = self.checks.pop_due(now) {
            if let Some(entry) = self.sources.get(&key)
                && let Some(next) = entry.source.handle_check(now)
            {
                self.checks.add(next, key);
            }
        }
    }

    fn handle_events(&mut self, events: &Events, now: Instant) {
        let mut readers = 0;
        for event in events {
            let Token(key) = event.token();
            let Some(entry) = self.sources.get_mut(&key) else {
                self.listeners.accept(key, &mut self.timeouts);
                continue;
            };
            if event.is_writable() {
                entry.source.on_writable();
            }
            if event.is_read_closed() {
                entry.source.on_stream_end();
            }
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                readers += 1;
                self.hot = Some(key).filter(|_| readers == 1);
                entry.read(key, &mut self.ready, &mut self.scratch, now);
            }
        }
    }

    /// Runs the commands that are queued now. Returns true if the loop should end. Commands that are queued
    /// meanwhile wait for the next round, so that sockets get their turn first.
    fn run_commands(&mut self, now: Instant) -> bool {
        if mailbox::own_is_empty() && self.commands.is_empty() {
            return false;
        }
        // Commands of this thread come first: it may know of a source before the command that attaches it has
        // run.
        let (own, others) = (mailbox::take_own(), self.commands.len());
        let ends = own.into_iter().any(|command| self.run_command(command, now));
        ends || (0..others)
            .any(|_| self.commands.try_recv().is_ok_and(|command| self.run_command(command, now)))
    }

    /// Returns true if the loop should end.
    fn run_command(&mut self, command: Command, now: Instant) -> bool {
        match command {
            Command::Attach(source) => self.attach(source, now),
            Command::Detach(key) => {
                self.hot = self.hot.filter(|hot| *hot != key);
                if let Some(Entry { source, .. }) = self.sources.remove(&key) {
                    self.spin.leave(source.spin_time());
                    source.on_detached();
                }
            }
            Command::Read(key) => {
                if let Some(entry) = self.sources.get_mut(&key) {
                    entry.read(key, &mut self.ready, &mut self.scratch, now);
                }
            }
            Command::Timeout(key, at) => self.timeouts.add(at, key),
            Command::Check(key, at) => self.checks.add(at, key),
            Command::Request(source, request) => source.handle_request(request, &mut self.scratch),
            Command::Listen(key, listener, acceptor) => {
                self.listeners.add(key, listener, acceptor);
                self.listeners.accept(key, &mut self.timeouts);
            }
            Command::Unlisten(key, done) => {
                self.listeners.remove(key);
                // The sender of the command may be this thread, which does not wait.
                let _ = done.send(());
            }
            Command::Stop => return true,
        }
        false
    }

    fn attach(&mut self, source: Box<dyn Source>, now: Instant) {
        let key = source.key();
        self.spin.join(source.spin_time());
        self.timeouts.add(now, key);
        source.on_attached();
        self.sources.insert(key, Entry { source, is_ready: false });
    }

    fn handle_timeouts(&mut self, now: Instant) {
        while let Some(key) = self.timeouts.pop_due(now) {
            let Some(entry) = self.sources.get(&key) else {
                self.listeners.accept(key, &mut self.timeouts);
                continue;
            };
            if let Some(next) = entry.source.handle_timeout(&mut self.scratch, now) {
                // Never at once: otherwise this loop would not end.
                self.timeouts.add(next.max(now + MIN_SLEEP), key);
            }
        }
    }

    /// Ends all sources, also those whose attach command is still queued.
    pub(super) fn end(mut self) {
        self.listeners.clear();
        let mut sources: Vec<_> = self.sources.drain().map(|(_, entry)| entry.source).collect();
        let commands = mailbox::take_own().into_iter().chain(self.commands.try_iter());
        sources.extend(commands.filter_map(|command| match command {
            Command::Attach(source) => Some(source),
            _ => None,
        }));
        for source in sources {
            source.end(&mut self.scratch);
        }
        mailbox::set_poller(0);
    }
}

/// A poller without a thread: a test carries out its commands.
#[cfg(test)]
pub(crate) mod still {
    use super::super::poller::Poller;
    use super::*;

    pub(crate) struct StillPoller {
        pub(crate) poller: Poller,
        commands: Receiver<Command>,
        poll: Poll,
    }

    impl StillPoller {
        pub(crate) fn new() -> StillPoller {
            let poll = Poll::new().expect("there are descriptors");
            let (poller, commands) = Poller::new(&poll).expect("there are descriptors");
            StillPoller { poller, commands, poll }
        }

        /// Spins with `hot` as the last source, and `before` in each round makes what is to be found. Returns
        /// the number of rounds until only events of `other` are found, or `None` if that never happens.
        pub(crate) fn rounds_until_found(
            self,
            hot: Box<dyn Source>,
            other: usize,
            mut before: impl FnMut(),
        ) -> Option<usize> {
            let mut event_loop = EventLoop::new(self.poll, self.commands);
            event_loop.spin.join(Duration::MAX);
            let key = hot.key();
            event_loop.sources.insert(key, Entry { source: hot, is_ready: false });
            let mut events = Events::with_capacity(EVENTS_PER_ROUND);
            let found = |events: &Events| events.iter().any(|event| event.token() == Token(other));
            (0..1000).find(|_| {
                event_loop.hot = Some(key);
                before();
                events.clear();
                assert!(event_loop.wait(&mut events, true).expect("it can wait").0, "there is something");
                found(&events)
            })
        }

        /// Takes the events of the kernel. Returns true if the socket of `key` can be written.
        pub(crate) fn is_writable(&mut self, key: usize) -> bool {
            let mut events = Events::with_capacity(EVENTS_PER_ROUND);
            self.poll.poll(&mut events, Some(Duration::ZERO)).expect("it can poll");
            events.iter().any(|event| event.token() == Token(key) && event.is_writable())
        }

        /// Returns the commands given since this was last called.
        pub(crate) fn commands(&self) -> Vec<Command> {
            self.commands.try_iter().collect()
        }
    }
}

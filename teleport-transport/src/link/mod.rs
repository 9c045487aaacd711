//! One connection on one socket: what threads share of it.
//!
//! Flow in: the poller calls `read` -> [`Inbound`] -> [`Handler`]. Flow out: any thread queues into the [`Outbound`] half
//! and flushes; who gets the right to write stages and writes, and what the socket does not take, the poller finishes.
//! Locks, in this order: `inbound`, `writing` (only by the holder of the write right), `outbound`, `watch`, `socket`. The
//! socket's lock is held by readers and writers for one non-blocking system call, by a driver while it sleeps, and
//! exclusively to close the descriptor, which wakes the driver first. Wakers and the destructors of what was sent run with
//! none of them held: see [`Wakers`] and [`waste`](crate::memory::deferred_drop).
//!
//! Never blocks on the network. Bounds: those of the two halves; one turn of reading moves at most `MAX_BYTES_PER_TURN` and
//! ends after `MAX_TURN`, and one of writing has its own (`write`), so that no link keeps a thread for itself.

mod coalesce;
mod drive;
mod handler;
pub(crate) mod interrupt;
mod memory;
mod notsent_window;
mod resume;
mod write;
mod write_token;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use mio::event::Source as _;
use mio::{Interest, Token};
use parking_lot::{Mutex, RwLock};
use teleport_wire::{ErrorKind, Hello, Limits, Message};

pub use self::coalesce::{AnswersTogether, release_held};
use self::coalesce::{Coalesce, MAX_HELD_BYTES};
use self::drive::UNWATCHED;
pub use self::drive::{Driver, block_on};
pub use self::handler::Handler;
use self::write::Writing;
use self::write_token::WriteToken;
use crate::config::{Config, MAX_TIME};
use crate::memory::budget::{Budget, Charge, OnGrant};
use crate::memory::deferred_drop::DropScope;
use crate::net::socket::Socket;
use crate::protocol::{self, Closed, Event, Inbound, Outbound, Received, Role, SendError, Withdrawn};
use crate::reactor::mailbox::Command;
use crate::reactor::poller::Poller;
use crate::reactor::source::{Request, Scratch, Source, Turn};
use crate::reactor::spin::Spin;
use crate::reactor::wakers::Wakers;

/// What one turn of reading moves at most: a few chunks, so that links take turns within a millisecond or two.
const MAX_BYTES_PER_TURN: usize = 4 << 20;

/// Where so much is left of a chunk, a turn ends if somebody is to be woken: who has the answer would wait for what follows it.
const MIN_DELAYING_BYTES: usize = 256 << 10;

/// A turn of many small messages ends after this time, since what they cost is not their bytes.
const MAX_TURN: Duration = Duration::from_millis(2);

/// How long a link that said goodbye waits for the peer to read it, before the descriptor is closed.
const LINGER: Duration = Duration::from_secs(1);

/// After a read of at most so many bytes that was filled, answers wait for those of the next one, which comes at once. A larger
/// one takes longer than a system call.
const MAX_GATHERED_READ_BYTES: usize = 128 << 10;

/// A connection that threads share.
pub struct Link {
    key: usize,
    peer_address: String,
    poller: Poller,
    handler: Arc<dyn Handler>,
    budget: Option<Budget>,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    /// Locked by the holder of `right` alone.
    writing: Mutex<Writing>,
    watch: Mutex<Watch>,
    /// A waiting thread reads, not the poller.
    driven: AtomicBool,
    /// How often one began to.
    drives: AtomicUsize,
    /// The last one left, and the poller does not watch yet.
    unwatched: AtomicBool,
    /// The poller will look at the clock for that.
    rewatch: AtomicBool,
    /// `drives` when it looked last.
    drives_seen: AtomicUsize,
    write_token: WriteToken,
    coalesce: Coalesce,
    /// Of threads that drive the link.
    spin: Spin,
    /// WriteBuffer bytes that the socket has not taken.
    unwritten: AtomicUsize,
    /// Whether it matters how fast the peer moves memory that it holds.
    has_pace: bool,
    /// The poller looks at that from time to time.
    paced: AtomicBool,
    /// None once the descriptor is closed.
    socket: RwLock<Option<Socket>>,
    /// Why the link is over, once it is.
    closed: OnceLock<Arc<Closed>>,
    /// After a goodbye: what still comes is dropped, until the peer closes or this time is over.
    lingers: AtomicBool,
    linger: Mutex<Linger>,
    /// Writing failed: when everything the peer sent is read, the link is over.
    broken: AtomicBool,
    /// The end of the stream has arrived, behind what is still to be read. The kernel tells of it once.
    ending: AtomicBool,
}

/// When a link that closes gives up.
#[derive(Debug, Default)]
struct Linger {
    /// None while it does not close.
    until: Option<Instant>,
    /// The goodbye goes before everything that is queued, since the time for that is over.
    hurries: bool,
}

/// What the poller is told about the socket.
#[derive(Debug)]
struct Watch {
    /// False while a waiting thread reads.
    readable: bool,
    /// True while the socket is full. Always to be told would wake the poller for every message that the peer reads.
    writable: bool,
    /// Whether the poller knows the socket at all.
    registered: bool,
}

impl Watch {
    fn interest(&self) -> Option<Interest> {
        match (self.readable, self.writable) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("key", &self.key)
            .field("peer", &self.peer_address)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new<H: Handler>(
        poller: &Poller,
        socket: Socket,
        role: Role,
        config: &Arc<Config>,
        budget: Option<Budget>,
        handler: Arc<H>,
    ) -> Arc<Link> {
        Arc::new_cyclic(|me: &Weak<Link>| {
            let link = me.clone();
            // A thread that reads the link writes at the end of its turn, or earlier.
            let wake = move || {
                if let Some(link) = link.upgrade().filter(|link| !link.is_in_turn()) {
                    link.flush();
                }
            };
            let (inbound, outbound) = protocol::halves(role, config, budget.clone(), Instant::now(), wake);
            let has_pace = inbound.has_min_rate();
            Link {
                key: poller.next_key(),
                peer_address: socket.peer().to_owned(),
                poller: poller.clone(),
                handler,
                budget,
                inbound: Mutex::new(inbound),
                outbound: Mutex::new(outbound),
                writing: Mutex::new(Writing::new()),
                watch: Mutex::new(Watch { readable: true, writable: false, registered: false }),
                driven: AtomicBool::new(false),
                drives: AtomicUsize::new(0),
                unwatched: AtomicBool::new(false),
                rewatch: AtomicBool::new(false),
                drives_seen: AtomicUsize::new(0),
                write_token: WriteToken::new(),
                coalesce: Coalesce::default(),
                spin: Spin::new(config.spin),
                unwritten: AtomicUsize::new(0),
                has_pace,
                paced: AtomicBool::new(false),
                socket: RwLock::new(Some(socket)),
                closed: OnceLock::new(),
                lingers: AtomicBool::new(false),
                linger: Mutex::default(),
                broken: AtomicBool::new(false),
                ending: AtomicBool::new(false),
            }
        })
    }

    /// A number that no other link of this process has, or had.
    pub fn key(&self) -> usize {
        self.key
    }

    /// Where the peer is, for logs: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// What the peer said of itself; none before its hello came.
    pub fn peer(&self) -> Option<Hello> {
        self.outbound.lock().peer().cloned()
    }

    /// What messages to the peer must keep to; none before its hello came.
    pub fn peer_limits(&self) -> Option<Limits> {
        self.outbound.lock().peer().map(|peer| peer.limits)
    }

    /// Why the link is over; none while it is open.
    pub fn closed(&self) -> Option<&Arc<Closed>> {
        self.closed.get()
    }

    /// Bytes that wait for the socket, or for the peer to grant them.
    pub fn queued_bytes(&self) -> u64 {
        self.outbound.lock().ledger().queued_bytes()
    }

    /// Sends a call, as far as the socket takes it now; the poller sends the rest. `register` learns the call's id before
    /// it can be answered; it runs under a lock and must not use the link.
    ///
    /// A small call that is made while others are open may be held back, so that more go with it: until this thread waits with
    /// [`block_on`], anybody [expects answers](Link::expect_answers), or something else is sent on the link, and for a few
    /// milliseconds at most, since the poller looks after it. Whoever waits for anything in another way calls
    /// [`release_held`] first, or waits for the poller too.
    ///
    /// # Errors
    /// If the link is not open, or the peer allows no more calls at once.
    pub fn call(self: &Arc<Self>, message: Message, register: impl FnOnce(u64)) -> Result<u64, SendError> {
        self.check_home()?;
        let _bin = DropScope::enter();
        let mut outbound = self.outbound.lock();
        let id = outbound.send_call(message, register)?;
        let open_calls = outbound.open_calls();
        let may_wait = open_calls > 1 && outbound.ledger().queued_bytes() <= MAX_HELD_BYTES;
        drop(outbound);
        // While somebody writes, or the socket is full, it goes with what goes next as it is: there is nothing to save, and
        // the poller would find it left behind.
        if !(may_wait && self.write_token.is_idle() && self.holds(open_calls)) {
            self.leave_unread();
            self.flush();
        }
        Ok(id)
    }

    /// Before any lock, which a thread that is not here may hold.
    fn check_home(&self) -> Result<(), SendError> {
        if self.poller.is_current() { Ok(()) } else { Err(SendError::Forked) }
    }

    /// Answers a call with a result or an error. Never blocks: the memory of a large result is charged to the budget
    /// whether or not there is room, until the last of it is on its way. Keep a connection that does not fetch its results
    /// from making more of them with [`await_drain`](Link::await_drain).
    ///
    /// # Errors
    /// If the link is over, or the call was answered or withdrawn. Nobody waits for the answer then.
    pub fn answer(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        self.check_home()?;
        let _bin = DropScope::enter();
        let mut outbound = self.outbound.lock();
        self.queue_answer(&mut outbound, id, message)?;
        let may_wait = outbound.ledger().queued_bytes() <= MAX_HELD_BYTES;
        drop(outbound);
        if !(may_wait && self.is_corked()) {
            self.flush();
        }
        Ok(())
    }

    /// Withdraws a call as far as that is still possible.
    pub fn withdraw(self: &Arc<Self>, id: u64) -> Withdrawn {
        let _bin = DropScope::enter();
        let withdrawn = self.outbound.lock().withdraw(id);
        self.flush();
        withdrawn
    }

    /// Somebody waits for message `id`: if it waits for room in the budget, it is granted without. Changes nothing for a
    /// message that has not begun, was granted, or is gone; one that begins later asks [`Handler::is_awaited`]. Never from a
    /// handler, which would wait for itself: see [`want_later`](Link::want_later).
    pub fn want(self: &Arc<Self>, id: u64) {
        let Some(budget) = &self.budget else { return };
        {
            let mut inbound = self.inbound.lock();
            let Some(bytes) = inbound.wanted_bytes(id) else { return };
            // Charged before it leaves the line, so that what it takes is not given to others.
            let charge = budget.charge_anyway(bytes);
            budget.forget_message(self.key as u64, id);
            inbound.send_grant(id, Some(charge), &self.outbound);
        }
        self.flush();
    }

    /// As [`want`](Link::want), but the poller does it, soon: for handlers, which are called with the receiving half locked.
    pub fn want_later(self: &Arc<Self>, id: u64) {
        self.request(Request::Want { id });
    }

    /// Says goodbye once everything queued has gone, and closes. When `within` is over, what has not gone is dropped (for a
    /// grant it would wait as long as the peer likes), and the peer has another second to take the goodbye.
    pub fn close(self: &Arc<Self>, kind: Option<ErrorKind>, reason: &str, within: Duration) {
        self.outbound.lock().send_goodbye(kind, reason);
        self.linger(within);
        self.flush();
    }

    /// Ends the link now, without a goodbye.
    pub fn abort(self: &Arc<Self>) {
        self.request(Request::Abort);
    }

    fn request(self: &Arc<Self>, request: Request) {
        self.poller.send(Command::Request(self.clone(), request));
    }

    // ---- What the poller watches, and for how long ----

    /// A thread reads from now on, not the poller.
    fn stop_watching(&self) {
        // Most threads come back before the poller has watched again.
        if self.watch.lock().readable {
            self.watch(|watch| watch.readable = false);
        }
    }

    /// Changes what the poller is told of. An edge-triggered registration fires after each change, if the socket is ready
    /// then.
    fn watch(&self, change: impl FnOnce(&mut Watch)) {
        let mut watch = self.watch.lock();
        change(&mut watch);
        let socket = self.socket.read();
        let Some(mut socket) = socket.as_ref() else { return };
        let registry = self.poller.registry();
        let result = match (watch.interest(), watch.registered) {
            (Some(interest), true) => socket.reregister(registry, Token(self.key), interest),
            (Some(interest), false) => socket.register(registry, Token(self.key), interest),
            (None, true) => socket.deregister(registry),
            (None, false) => Ok(()),
        };
        watch.registered = result.is_ok() && watch.interest().is_some();
        if let Err(error) = result {
            tracing::error!(peer = %self.peer_address, %error, "cannot watch a socket: the connection will time out");
        }
    }

    fn say_no_more(self: &Arc<Self>) {
        if !self.lingers.swap(true, Ordering::AcqRel) {
            if let Some(socket) = self.socket.read().as_ref() {
                // An error means that the connection is gone already, which reading finds out.
                let _ = socket.shutdown_write();
            }
            self.linger(LINGER);
        }
    }

    /// Closes the descriptor in `within`, or earlier where an earlier time was set.
    fn linger(self: &Arc<Self>, within: Duration) {
        let until = Instant::now() + within.min(MAX_TIME);
        let mut linger = self.linger.lock();
        if linger.until.is_none_or(|earlier| until < earlier) {
            linger.until = Some(until);
            self.poller.send(Command::Timeout(self.key, until));
        }
    }

    fn linger_is_over(&self, now: Instant) -> bool {
        self.linger.lock().until.is_some_and(|until| until <= now)
    }

    /// The time to close is over: has the goodbye go at once, if it still waits for what is queued. True if so, once.
    fn hurry(&self, now: Instant) -> bool {
        let _bin = DropScope::enter();
        let mut linger = self.linger.lock();
        let hurries = !linger.hurries && self.outbound.lock().hurry_goodbye();
        if hurries {
            *linger = Linger { until: Some(now + LINGER), hurries };
        }
        hurries
    }

    // ---- Reading ----

    /// Reads what there is, for one turn. Called by one thread at a time. Cheap where nothing has come.
    pub(crate) fn read_for_a_turn(self: &Arc<Self>, scratch: &mut Scratch, now: Instant) -> Turn {
        let bin = DropScope::enter();
        let mut inbound = self.inbound.lock();
        self.begin_turn();
        let turn = self.read_turn(&mut inbound, scratch, now);
        self.end_turn();
        if turn == Turn::Empty {
            return turn;
        }
        if self.closed.get().is_some() {
            // Functions that still run may keep the link for long.
            inbound.discard();
        } else if inbound.poll_charged() {
            self.watch_pace();
        }
        drop(inbound);
        let has_work = self.outbound.lock().has_work();
        // One write answers all pings, grants and withdrawals of the turn.
        if turn != Turn::Gone && has_work {
            self.flush();
        }
        drop(bin);
        scratch.wakers.wake_all();
        turn
    }

    fn read_turn(self: &Arc<Self>, inbound: &mut Inbound, scratch: &mut Scratch, now: Instant) -> Turn {
        let mut taken = 0;
        loop {
            if self.closed.get().is_some() || self.lingers.load(Ordering::Acquire) {
                return self.drop_input(scratch);
            }
            let read = |slices: &mut [io::IoSliceMut<'_>]| match &*self.socket.read() {
                Some(socket) => socket.read_vectored(slices),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let received = inbound.on_readable(
                now,
                &mut scratch.ahead[..],
                &self.outbound,
                &*self.handler,
                &mut scratch.events,
                read,
            );
            let more_will_come =
                |received: &Received| received.filled && received.bytes <= MAX_GATHERED_READ_BYTES;
            self.gather_answers(scratch.events.len() > 1 || received.as_ref().is_ok_and(more_will_come));
            let goodbye = self.dispatch(inbound, scratch);
            match received {
                _ if goodbye.is_some() => {
                    return self.fail(goodbye.unwrap_or(Closed::Here), &mut scratch.wakers);
                }
                Ok(received) if !received.filled && self.broken.load(Ordering::Acquire) => {
                    return self.fail(Closed::Lost { error: None }, &mut scratch.wakers);
                }
                // A short read has emptied the socket, except that the end of the stream may stand behind it.
                Ok(received)
                    if !received.filled && (received.bytes == 0 || !self.ending.load(Ordering::Acquire)) =>
                {
                    return if taken + received.bytes == 0 { Turn::Empty } else { Turn::Drained };
                }
                Ok(received) => taken += received.bytes,
                Err(closed) => return self.fail(closed, &mut scratch.wakers),
            }
            let is_over = taken >= MAX_BYTES_PER_TURN || now.elapsed() >= MAX_TURN;
            let would_delay = || inbound.chunk_remaining() >= MIN_DELAYING_BYTES;
            if is_over || (!scratch.wakers.is_empty() && would_delay()) {
                return Turn::More;
            }
        }
    }

    /// Tells the handler what arrived; gives the reason if the peer said goodbye.
    fn dispatch(self: &Arc<Self>, inbound: &mut Inbound, scratch: &mut Scratch) -> Option<Closed> {
        let mut goodbye = None;
        for event in scratch.events.drain(..) {
            match event {
                Event::Open(peer) => {
                    // From now on silence counts, which may end earlier than the handshake's time.
                    self.poller.send(Command::Timeout(self.key, inbound.poll_timeout()));
                    self.handler.opened(self, &peer);
                }
                Event::Wants { id, bytes } => self.request_memory(inbound, id, bytes),
                Event::Call(call) => self.handler.called(self, call),
                Event::Answer { id, answer } => {
                    self.handler.answered(self, id, answer, &mut scratch.wakers);
                }
                Event::Acknowledged { ids } => self.handler.acknowledged(self, &ids),
                Event::Resume(resume) => self.handler.resuming(self, resume),
                Event::Resumed { calls } => self.handler.resumed(self, calls, &mut scratch.wakers),
                Event::Cancel { id } => self.handler.cancelled(self, id),
                Event::Withdrawn { id } => {
                    if let Some(budget) = &self.budget {
                        budget.forget_message(self.key as u64, id);
                    }
                }
                Event::Goodbye(bye) => goodbye = Some(Closed::Goodbye { kind: bye.kind, reason: bye.reason }),
            }
        }
        goodbye
    }

    /// A message waits for its memory: from the budget where there is one.
    fn request_memory(self: &Arc<Self>, inbound: &mut Inbound, id: u64, bytes: u64) {
        let Some(budget) = &self.budget else { return inbound.send_grant(id, None, &self.outbound) };
        let is_awaited = || self.handler.is_awaited(self, id);
        let on_grant = || -> OnGrant {
            let link = self.clone();
            Box::new(move |charge| {
                link.request(Request::Grant { id, charge });
            })
        };
        let charge = (budget.try_charge(bytes))
            .or_else(|| is_awaited().then(|| budget.charge_anyway(bytes)))
            .or_else(|| budget.request(self.key as u64, id, bytes, on_grant));
        if let Some(charge) = charge {
            inbound.send_grant(id, Some(charge), &self.outbound);
            self.watch_pace();
        }
    }

    /// The budget has room for a message that waited.
    pub(crate) fn grant(self: &Arc<Self>, id: u64, charge: Charge) {
        self.inbound.lock().send_grant(id, Some(charge), &self.outbound);
        self.watch_pace();
        self.flush();
    }

    /// The link is gone: gives back the memory of what came in part. Calls that still run may hold the link for long.
    pub(crate) fn forget_input(&self) {
        self.inbound.lock().discard();
    }

    /// Drops what still comes after the end, so that closing does not destroy the goodbye on its way.
    fn drop_input(self: &Arc<Self>, scratch: &mut Scratch) -> Turn {
        let mut taken = 0;
        while taken < MAX_BYTES_PER_TURN {
            let slices = &mut [io::IoSliceMut::new(&mut scratch.ahead[..])];
            let read = match &*self.socket.read() {
                Some(socket) => socket.read_vectored(slices),
                None => return Turn::Gone,
            };
            match read {
                Ok(bytes) if bytes > 0 => taken += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if taken == 0 { Turn::Empty } else { Turn::Drained };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return self.close_socket(Closed::Here, &mut scratch.wakers),
            }
        }
        Turn::More
    }

    // ---- Time ----

    /// Looks at the clock; gives the next time to do so, or none if the link is gone.
    pub(crate) fn timeout(self: &Arc<Self>, scratch: &mut Scratch, now: Instant) -> Option<Instant> {
        // Results that are given up here may stand on owners of the user's.
        let _bin = DropScope::enter();
        if self.linger_is_over(now) && !self.hurry(now) {
            self.gone(Closed::Here, scratch);
            return None;
        }
        // After a late wake-up bytes may be waiting that show that the peer lives: read first, then judge.
        if self.inbound.lock().poll_timeout() <= now && self.read_for_a_turn(scratch, now) == Turn::Gone {
            return None;
        }
        let mut inbound = self.inbound.lock();
        let result = inbound.handle_timeout(now, &self.outbound);
        let next = inbound.poll_timeout();
        let paced = self.handle_pace(&mut inbound, now);
        drop(inbound);
        if let Err(closed) = result {
            self.gone(closed, scratch);
            return None;
        }
        let next = match paced {
            Ok(again) => again.map_or(next, |again| again.min(next)),
            Err(closed) => {
                self.inbound.lock().discard();
                self.fail(closed, &mut scratch.wakers);
                // Others wait for it, and the goodbye may linger.
                self.forget_input();
                scratch.wakers.wake_all();
                next
            }
        };
        self.flush();
        let next = self.linger.lock().until.map_or(next, |until| until.min(next));
        Some(self.watch_when_quiet(now).map_or(next, |again| again.min(next)))
    }

    /// A link that no thread has driven for a while is watched again; gives when to look again otherwise.
    fn watch_when_quiet(&self, now: Instant) -> Option<Instant> {
        if !self.rewatch.load(Ordering::SeqCst) {
            return None;
        }
        let drives = self.drives.load(Ordering::Relaxed);
        if self.drives_seen.swap(drives, Ordering::Relaxed) != drives {
            return Some(now + UNWATCHED);
        }
        self.rewatch.store(false, Ordering::SeqCst);
        self.watch_unless_read();
        None
    }

    // ---- The end ----

    /// The link cannot go on. A peer that broke a rule is told which one before the descriptor is closed.
    fn fail(self: &Arc<Self>, closed: Closed, wakers: &mut Wakers) -> Turn {
        let kind_and_text = match &closed {
            Closed::Protocol(error) if !error.is_stranger() => Some((ErrorKind::Protocol, error.to_string())),
            Closed::TooSlow { .. } => Some((ErrorKind::TooSlow, closed.to_string())),
            _ => None,
        };
        let Some((kind, text)) = kind_and_text else { return self.close_socket(closed, wakers) };
        self.end(closed, wakers, |outbound| {
            outbound.discard();
            outbound.send_goodbye(Some(kind), &text);
        });
        self.linger(LINGER);
        self.flush();
        Turn::Drained
    }

    /// Sends no message any more, tells the handler, once, and gives back what was held.
    fn end(self: &Arc<Self>, closed: Closed, wakers: &mut Wakers, silence: impl FnOnce(&mut Outbound)) {
        if let Some(budget) = &self.budget {
            budget.forget_connection(self.key as u64);
        }
        let _bin = DropScope::enter();
        let closed = Arc::new(closed);
        let is_first = self.closed.set(closed.clone()).is_ok();
        // Before the handler is told, so that it can tell what was sent.
        silence(&mut self.outbound.lock());
        if is_first {
            self.handler.closed(self, &closed, wakers);
        }
    }

    /// Ends the link from outside of a turn of reading.
    pub(crate) fn gone(self: &Arc<Self>, closed: Closed, scratch: &mut Scratch) {
        self.close_socket(closed, &mut scratch.wakers);
        scratch.wakers.wake_all();
    }

    /// Closes the descriptor.
    fn close_socket(self: &Arc<Self>, closed: Closed, wakers: &mut Wakers) -> Turn {
        self.end(closed, wakers, Outbound::end);
        // Wakes a thread that sleeps on the socket. An error means that the connection is gone already.
        if let Some(socket) = self.socket.read().as_ref() {
            let _ = socket.shutdown();
        }
        // Takes the lock from readers and writers: nobody uses the descriptor when it is closed and its number reused.
        drop(self.socket.write().take());
        self.poller.send(Command::Detach(self.key));
        Turn::Gone
    }

    /// Puts the socket into the poller's hands.
    pub(crate) fn register(self: &Arc<Self>) -> io::Result<()> {
        let mut watch = self.watch.lock();
        watch.registered = true;
        match self.socket.read().as_ref() {
            Some(mut socket) => socket.register(self.poller.registry(), Token(self.key), Interest::READABLE),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Source for Link {
    fn key(&self) -> usize {
        self.key
    }

    fn spin_time(&self) -> Duration {
        self.spin.time()
    }

    fn only_reads(&self) -> bool {
        !self.driven.load(Ordering::SeqCst) && !self.write_token.is_blocked()
    }

    fn on_attached(self: Arc<Self>) {
        self.watch_again();
        self.flush();
    }

    fn on_detached(&self) {
        self.forget_input();
    }

    fn on_writable(self: Arc<Self>) {
        self.writable();
    }

    fn on_stream_end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    fn read(self: Arc<Self>, scratch: &mut Scratch, now: Instant) -> Turn {
        self.read_for_a_turn(scratch, now)
    }

    fn handle_request(self: Arc<Self>, request: Request, scratch: &mut Scratch) {
        match request {
            Request::Grant { id, charge } => self.grant(id, charge),
            Request::Want { id } => self.want(id),
            Request::Drained => self.drained(),
            Request::Abort => self.gone(Closed::Here, scratch),
        }
    }

    fn handle_timeout(self: Arc<Self>, scratch: &mut Scratch, now: Instant) -> Option<Instant> {
        self.timeout(scratch, now)
    }

    fn handle_check(self: Arc<Self>, now: Instant) -> Option<Instant> {
        self.check(now)
    }
}

impl Poller {
    /// Takes over a connected socket and begins the handshake. With a `budget`, large messages wait for memory from it;
    /// without, all are taken.
    ///
    /// # Errors
    /// Returns the system's error when it cannot watch the socket.
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
}

#[cfg(test)]
mod tests;

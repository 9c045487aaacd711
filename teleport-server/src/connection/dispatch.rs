//! One connection: passes the events of its link to the dispatcher.
//!
//! Flow: the hello -> calls, which run at once if they are inline, and which the [`Dispatcher`] starts
//! otherwise -> cancels, acknowledgements and resumes -> the
//! end, which withdraws calls that do not survive it. Never blocks. Bound: the calls that one connection may
//! have open (`max_open_calls`).

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, SlowCalls};
use teleport_transport::wire::{DecodeError, ErrorKind, Hello, Message, Ran, RemoteError, Resume};
use teleport_transport::{Call, Calls, Handler, Link, Ticket, TurnClock, Wakers};

use crate::call::caller::Caller;
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::open_calls::OpenCalls;
use crate::call::reply_to::ReplyTo;
use crate::call::route::Route;
use crate::connection::credit::Reservation;
use crate::dispatcher::Dispatcher;
use crate::exec::run::{Starting, note_time, run_inline};
use crate::runtime::counters::Counted;
use crate::session::records::Breach;
use crate::session::session::{Session, unknown};

/// The time for a client to read which rule it broke.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// The server's end of one connection. Its link owns it, so it refers to no link.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Set by the hello.
    caller: OnceLock<Arc<Caller>>,
    /// Keeps the calls that survive this connection.
    session: OnceLock<Arc<Session<OpenCall>>>,
    /// Used only by the thread that reads the connection, so no thread waits for it.
    state: Mutex<ConnectionState>,
}

#[derive(Debug)]
struct ConnectionState {
    open: OpenCalls<OpenCall>,
    /// Pays for the connection's eager credit until its end.
    reservation: Option<Reservation>,
}

impl Connection {
    pub(crate) fn new(dispatcher: &Arc<Dispatcher>, reservation: Option<Reservation>) -> Connection {
        Connection {
            dispatcher: dispatcher.clone(),
            caller: OnceLock::new(),
            session: OnceLock::new(),
            state: Mutex::new(ConnectionState { open: OpenCalls::default(), reservation }),
        }
    }

    fn name<'a>(&'a self, link: &'a Link) -> &'a str {
        self.caller.get().map_or(link.peer_address(), |caller| &caller.name)
    }

    /// Registers a complete call, by which its client and its session can withdraw it. Returns false if it
    /// must not run.
    ///
    /// There is no `call` if it runs at once: it is answered before anything else happens on its connection,
    /// and before the next connection of its session can resume. Its answer also tells that it has arrived.
    #[inline(always)]
    fn note(&self, reply: &ReplyTo<'_>, call: Option<&Arc<OpenCall>>) -> bool {
        match (reply.session, call) {
            (None, None) => true,
            (None, Some(call)) => {
                self.state.lock().open.add(reply.id, call);
                true
            }
            (Some(session), call) => self.note_in_session(session, reply, call),
        }
    }

    fn note_in_session(
        &self,
        session: &Session<OpenCall>,
        reply: &ReplyTo<'_>,
        call: Option<&Arc<OpenCall>>,
    ) -> bool {
        let arrived = session.arrived(reply.link, reply.id, call.map_or_else(Weak::new, Arc::downgrade));
        if let Err(breach) = arrived {
            self.breached(reply, breach);
            return false;
        }
        if call.is_some() {
            reply.link.acknowledge(&[reply.id]);
        }
        true
    }

    /// Starts a call that has arrived.
    #[inline]
    fn call(&self, link: &Arc<Link>, call: Call, clock: &mut TurnClock) {
        let Dispatcher { shared, registry, .. } = &*self.dispatcher;
        shared.counters.here().add(Counted::Calls);
        let Call { id, slot, mut tree, row, deadline, resume, lease, .. } = call;
        // `admit` returned the slot, and calls arrive after the hello.
        let (Some(method), Some(caller)) = (registry.method(slot), self.caller.get()) else { return };
        let session = self.session.get().filter(|_| resume);
        let reply = ReplyTo { id, link, caller, session, method };
        let tree = match &mut tree {
            Ok(tree) => tree,
            Err(error) => return refuse_arguments(&reply, error),
        };
        if matches!(method.route, Route::Inline) && !reply.is_past_quota() {
            if self.note(&reply, None) {
                let call = Starting::at_once(&reply, deadline);
                run_inline(registry.function(method), &call, tree, lease, clock);
            }
            return;
        }
        note_time(caller, clock.pause());
        let call = OpenCall::new(&reply, deadline);
        if self.note(&reply, Some(&call)) {
            let arguments = Arguments { tree: mem::take(tree), lease };
            self.dispatcher.start(call, arguments, row.map(Ticket::complete));
        }
    }

    #[cold]
    fn breached(&self, reply: &ReplyTo<'_>, breach: Breach) {
        if self.dispatcher.shared.log_limit.allows() {
            let (name, peer) = (&reply.caller.name, reply.link.peer_address());
            tracing::warn!(name, peer, "a connection ended: its client broke the protocol: {breach}");
        }
        reply.link.close(Some(ErrorKind::Protocol), &breach.to_string(), GOODBYE_TIME);
    }

    /// Logs the end of a connection, except one that was closed on purpose.
    fn log_end(&self, link: &Link, reason: &Closed, open_calls: usize) {
        let (name, peer) = (self.name(link), link.peer_address());
        if matches!(reason, Closed::Goodbye { .. } | Closed::Here) {
            tracing::debug!(name, peer, open_calls, "a connection ended: {reason}");
        } else if !self.dispatcher.shared.log_limit.allows() {
            // The limit counts the line.
        } else if matches!(reason, Closed::Lost { .. }) {
            tracing::info!(name, peer, open_calls, "a connection ended: {reason}");
        } else {
            tracing::warn!(name, peer, open_calls, "a connection ended: {reason}");
        }
    }
}

/// Answers a call whose arguments cannot be decoded.
#[cold]
fn refuse_arguments(call: &ReplyTo<'_>, error: &DecodeError) {
    call.shared().counters.here().add(Counted::Failed);
    let error = RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string());
    // Not noted in its session. Fails if the link is over: nobody waits for the answer then.
    let _ = call.link.answer(call.id, Message::error(&error));
}

impl Handler for Connection {
    fn opened(&self, link: &Arc<Link>, hello: &Hello) {
        let Dispatcher { shared, sessions, registry, .. } = &*self.dispatcher;
        let caller = Caller::new(shared, &registry.methods, link.peer_address(), hello);
        // A second hello breaks the protocol, and ends the link before this is called.
        if self.caller.set(caller).is_ok() {
            shared.counters.here().add(Counted::Clients);
            tracing::debug!(peer = link.peer_address(), name = hello.name, "a client connected");
            if link.resumes() {
                let _ = self.session.set(sessions.opened(hello.session, link));
            }
        }
    }

    fn called(&self, link: &Arc<Link>, calls: Calls<'_, '_>, clock: &mut TurnClock) {
        for call in calls {
            self.call(link, call, clock);
        }
        if let Some(caller) = self.caller.get() {
            note_time(caller, clock.end());
        }
    }

    fn cancelled(&self, _link: &Arc<Link>, id: u64) {
        let call = self.state.lock().open.find(id);
        let call = call.or_else(|| self.session.get().and_then(|session| session.find(id)));
        if let Some(call) = call {
            self.dispatcher.cancel(&call);
        }
    }

    fn drained(&self, link: &Arc<Link>) {
        self.dispatcher.release(link);
    }

    fn gave_up(&self, link: &Arc<Link>, SlowCalls { arguments, results }: SlowCalls) {
        if self.dispatcher.shared.log_limit.allows() {
            let (name, peer) = (self.name(link), link.peer_address());
            tracing::warn!(
                name,
                peer,
                arguments,
                results,
                "calls were given up: slower than `min_rate` with memory that others waited for"
            );
        }
    }

    fn acknowledged(&self, _link: &Arc<Link>, ids: &[u64]) {
        if let Some(session) = self.session.get() {
            session.acknowledged(ids);
        }
    }

    fn resuming(&self, link: &Arc<Link>, resume: Resume) {
        match self.session.get() {
            Some(session) if resume.server == self.dispatcher.shared.instance => {
                self.dispatcher.withdraw_all(vec![session.resuming(link, resume)]);
            }
            // Fails if the link is over: nobody waits for the answer then.
            _ => drop(link.answer_resume(unknown(&resume), Vec::new())),
        }
    }

    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, _wakers: &mut Wakers) {
        let Dispatcher { shared, sessions, connections, .. } = &*self.dispatcher;
        let open = self.state.lock().open.take();
        for call in &open {
            self.dispatcher.withdraw(call);
        }
        if let Some(session) = self.session.get() {
            let is_goodbye = matches!(**reason, Closed::Goodbye { .. });
            self.dispatcher.withdraw_all(sessions.closed(session, link, is_goodbye, Instant::now()));
        }
        self.dispatcher.release(link);
        drop(self.state.lock().reservation.take());
        if self.caller.get().is_some() {
            shared.counters.here().take_back(Counted::Clients);
        }
        connections.remove(link);
        shared.connections.fetch_sub(1, Ordering::SeqCst);
        shared.lifecycle.notify();
        self.log_end(link, reason, open.len());
    }
}

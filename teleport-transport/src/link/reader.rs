//! The receiving half of a link: turns of reading, by the event loop or by the thread that leads.
//!
//! Flow: `read` -> [`Inbound`] places and checks what arrives -> its events -> the
//! [`Handler`](super::handler::Handler) -> what the turn queued is written at once. Never blocks. Bounds: a
//! turn moves at most `MAX_BYTES_PER_TURN` and ends after `MAX_TURN`, so that no link occupies a thread.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::closing;
use super::cork::{begin_turn, end_turn, release_answers, set_cork, write_at_end};
use super::handler::{Answers, Calls};
use super::link::{Link, Receiving};
use super::status::{Flag, QuietTimeout};
use super::turn_clock::TurnClock;
use crate::memory::deferred_drop::DropScope;
use crate::net::socket::Socket;
use crate::protocol::{Closed, Event, Inbound, Received, SlowCalls};
use crate::reactor::mailbox::Command;
use crate::reactor::source::{Request, Scratch, Turn};
use crate::reactor::wakers::Wakers;

/// The time for which a link stays unwatched after a leader left, while only pings are expected.
pub(super) const UNWATCHED: Duration = Duration::from_millis(20);

/// The bytes that one turn of reading moves at most: a few chunks, so that links take turns within a
/// millisecond or two.
const MAX_BYTES_PER_TURN: usize = 4 << 20;

/// A turn of many small messages ends after this time, since their cost is not their bytes.
const MAX_TURN: Duration = Duration::from_millis(2);

/// A turn ends if a thread is to be woken and this much of a chunk is still missing. Otherwise the thread
/// would wait for bytes of another message. Answers do not wait for these bytes either.
const MIN_DELAYING_BYTES: usize = 32 << 10;

/// After a filled read of at most this size, answers wait for those of the next read, which follows at once.
/// A larger read takes longer than a system call.
const MAX_CORKED_READ_BYTES: usize = 128 << 10;

/// Reads what is available, for one turn. Cheap if nothing arrived.
pub(super) fn read(link: &Arc<Link>, scratch: &mut Scratch, now: Instant) -> Turn {
    let scope = DropScope::enter();
    let mut receiving = link.receiving.lock();
    begin_turn(link.port.key);
    let mut has_work = false;
    let turn = read_turn(link, &mut receiving, scratch, now, &mut has_work);
    has_work |= end_turn();
    if turn == Turn::Empty {
        return turn;
    }
    if turn == Turn::Gone {
        receiving.end();
    } else if link.closed.get().is_some() {
        // Running calls may hold the link for long.
        receiving.inbound.discard();
    } else if receiving.inbound.poll_charged() {
        link.memory.watch_rate(&link.port);
    }
    drop(receiving);
    // One write sends the answers, pings, grants and withdrawals of the turn.
    if has_work && turn != Turn::Gone {
        link.writer.flush(&link.port);
    }
    drop(scope);
    let wakes = !scratch.wakers.is_empty();
    scratch.wakers.wake_all();
    if wakes && turn == Turn::More {
        // The woken thread may share this thread's processor, and much is left to read.
        std::thread::yield_now();
    }
    turn
}

/// Handles timeouts that are due. Returns the next one, or `None` if the link is gone.
pub(super) fn handle_timeout(link: &Arc<Link>, scratch: &mut Scratch, now: Instant) -> Option<Instant> {
    // Results that are given up here may contain values with user-defined destructors.
    let _scope = DropScope::enter();
    if link.writer.lock().is_linger_over(now) {
        closing::abort(link, Closed::Here, scratch);
        return None;
    }
    // After a late wake-up, unread bytes may show that the peer is alive: read first, then judge.
    let is_due = link.receiving.lock().inbound.poll_timeout() <= now;
    if is_due && read(link, scratch, now) == Turn::Gone {
        return None;
    }
    let mut receiving = link.receiving.lock();
    let Receiving { inbound, leads_seen, .. } = &mut *receiving;
    let result = inbound.handle_timeout(now, &link.writer);
    let mut next = inbound.poll_timeout();
    let rate = link.memory.check_rate(&link.port, &link.writer, inbound, now);
    if rate.is_err() {
        // Other connections wait for its memory, and the link may linger.
        inbound.discard();
    }
    let quiet = link.port.status.handle_quiet_timeout(leads_seen);
    drop(receiving);
    if let Err(closed) = result {
        closing::abort(link, closed, scratch);
        return None;
    }
    match rate {
        Ok((slow, again)) => {
            if slow != SlowCalls::default() {
                link.handler.gave_up(link, slow);
            }
            next = again.map_or(next, |again| again.min(next));
        }
        Err(closed) => {
            closing::fail(link, closed, &mut scratch.wakers);
            scratch.wakers.wake_all();
        }
    }
    let mut sending = link.writer.lock();
    match quiet {
        QuietTimeout::Again => next = next.min(now + UNWATCHED),
        QuietTimeout::Watch => sending.register(&link.port),
        QuietTimeout::Done => {}
    }
    next = sending.linger.until.map_or(next, |until| until.min(next));
    // The next write may be far away, so threads that wait for results to drain are notified of given-up
    // results here.
    if sending.outbound.ledger_mut().poll_drained() {
        link.port.event_loop.request(Request::Drained);
    }
    link.writer.write(&link.port, sending);
    Some(next)
}

/// Sets `has_work` if something was queued that is not written.
fn read_turn(
    link: &Arc<Link>,
    receiving: &mut Receiving,
    scratch: &mut Scratch,
    now: Instant,
    has_work: &mut bool,
) -> Turn {
    let Receiving { socket, inbound, .. } = receiving;
    let Some(socket) = socket else { return Turn::Gone };
    let status = &link.port.status;
    let mut taken = 0;
    loop {
        if link.closed.get().is_some() || status.has(Flag::LINGERS) {
            return drop_input(link, socket, scratch);
        }
        let received = inbound.on_readable(
            now,
            &mut scratch.ahead[..],
            &link.writer,
            &*link.handler,
            &mut scratch.events,
            |slices| socket.read_vectored(slices),
        );
        *has_work |= received.as_ref().is_ok_and(|received| received.has_work);
        let more_will_come = |received: &Received| received.filled && received.bytes <= MAX_CORKED_READ_BYTES;
        let would_delay = inbound.chunk_remaining() >= MIN_DELAYING_BYTES;
        let corks = !would_delay && (scratch.events.len() > 1 || received.as_ref().is_ok_and(more_will_come));
        if !corks {
            release_answers(link.port.key, &**link);
        }
        set_cork(link.port.key, corks);
        // A leader that waits for one of them has no waker while it spins.
        let is_answer = |event: &Event| matches!(event, Event::Answer { .. });
        let has_answers = would_delay && scratch.events.iter().any(is_answer);
        if let Some(goodbye) = dispatch(link, inbound, scratch) {
            return closing::fail(link, goodbye, &mut scratch.wakers);
        }
        match received {
            Ok(received) if received.filled => taken += received.bytes,
            Ok(_) if status.has(Flag::BROKEN) => {
                return closing::fail(link, Closed::Lost { error: None }, &mut scratch.wakers);
            }
            // A short read has emptied the socket, but the end of the stream may follow.
            Ok(received) if received.bytes > 0 && status.has(Flag::ENDS) => taken += received.bytes,
            Ok(received) => {
                return if taken + received.bytes == 0 { Turn::Empty } else { Turn::Drained };
            }
            Err(closed) => return closing::fail(link, closed, &mut scratch.wakers),
        }
        let is_over = taken >= MAX_BYTES_PER_TURN || now.elapsed() >= MAX_TURN;
        if is_over || (would_delay && (has_answers || !scratch.wakers.is_empty())) {
            return Turn::More;
        }
    }
}

/// Passes events to the handler. Returns the reason for the end if the peer said goodbye.
fn dispatch(link: &Arc<Link>, inbound: &mut Inbound, scratch: &mut Scratch) -> Option<Closed> {
    let Scratch { events, wakers, .. } = scratch;
    let handler = &link.handler;
    let (mut goodbye, mut clock) = (None, TurnClock::default());
    let mut events = events.drain(..);
    while let Some(event) = events.as_slice().first() {
        match event {
            Event::Call(_) => {
                handler.called(link, Calls(&mut events), &mut clock);
                Calls(&mut events).for_each(drop);
            }
            Event::Answer { .. } => {
                handler.answered(link, Answers(&mut events), wakers);
                Answers(&mut events).for_each(drop);
            }
            _ => goodbye = events.next().and_then(|event| notify(link, inbound, event, wakers)).or(goodbye),
        }
    }
    goodbye
}

/// Handles an event that is neither a call nor an answer. Most turns have none. Returns the reason for the
/// end if the peer said goodbye.
#[cold]
#[inline(never)]
fn notify(link: &Arc<Link>, inbound: &mut Inbound, event: Event, wakers: &mut Wakers) -> Option<Closed> {
    let handler = &link.handler;
    match event {
        Event::Open(peer) => {
            // From now on silence counts, and its timeout may be earlier than the handshake's.
            link.port.send(Command::Timeout(link.port.key, inbound.poll_timeout()));
            handler.opened(link, &peer);
        }
        Event::Wants { id, bytes } => {
            write_at_end(link.port.key);
            let is_awaited = || handler.is_awaited(link, id);
            link.memory.request(&link.port, &link.writer, inbound, (id, bytes), is_awaited);
        }
        Event::Call(_) | Event::Answer { .. } => unreachable!("these are passed on in rows"),
        Event::Acknowledged { ids } => handler.acknowledged(link, &ids),
        Event::Resume(resume) => handler.resuming(link, resume),
        Event::Resumed { calls } => handler.resumed(link, calls, wakers),
        Event::Cancel { id } => handler.cancelled(link, id),
        Event::Withdrawn { id } => link.memory.forget_message(link.port.key, id),
        Event::Goodbye(bye) => return Some(Closed::Goodbye { kind: bye.kind, reason: bye.reason }),
    }
    None
}

/// Drops bytes that arrive after the end. Closing a socket with unread bytes could destroy the goodbye in
/// transit.
#[cold]
#[inline(never)]
fn drop_input(link: &Arc<Link>, socket: &Socket, scratch: &mut Scratch) -> Turn {
    let mut taken = 0;
    while taken < MAX_BYTES_PER_TURN {
        match socket.read_vectored(&mut [IoSliceMut::new(&mut scratch.ahead[..])]) {
            Ok(bytes) if bytes > 0 => taken += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return if taken == 0 { Turn::Empty } else { Turn::Drained };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return closing::close(link, Closed::Here, &mut scratch.wakers),
        }
    }
    Turn::More
}

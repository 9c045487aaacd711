//! The interface of the layer above links.

use std::mem;
use std::sync::Arc;
use std::vec::Drain;

use teleport_wire::{CallAnswer, Hello, Resume};

use super::link::Link;
use super::turn_clock::TurnClock;
use crate::protocol::{Answer, Call, Closed, Event, Gate, SlowCalls};
use crate::reactor::wakers::Wakers;

/// The calls that arrived in a row, in the order of arrival. Those that a handler does not take are dropped.
#[derive(Debug)]
pub struct Calls<'a, 'e>(pub(super) &'a mut Drain<'e, Event>);

impl Iterator for Calls<'_, '_> {
    type Item = Call;

    #[inline]
    fn next(&mut self) -> Option<Call> {
        let [Event::Call(_), ..] = self.0.as_slice() else { return None };
        match self.0.next() {
            Some(Event::Call(call)) => Some(call),
            // Never the case. Without a drop here, the compiler moves the parts of an event, which is large,
            // straight from the list to where the handler wants them.
            other => {
                mem::forget(other);
                None
            }
        }
    }
}

/// The answers that arrived in a row, in the order of arrival, with the ids of their calls. Those that a
/// handler does not take are dropped.
#[derive(Debug)]
pub struct Answers<'a, 'e>(pub(super) &'a mut Drain<'e, Event>);

impl Iterator for Answers<'_, '_> {
    type Item = (u64, Answer);

    #[inline]
    fn next(&mut self) -> Option<(u64, Answer)> {
        let [Event::Answer { .. }, ..] = self.0.as_slice() else { return None };
        match self.0.next() {
            Some(Event::Answer { id, answer }) => Some((id, answer)),
            // As for a call.
            other => {
                mem::forget(other);
                None
            }
        }
    }
}

/// The layer above one or many links.
///
/// The thread that reads a link calls these methods, one at a time for each link and in the order of arrival.
/// Only [`drained`](Handler::drained) and [`gave_up`](Handler::gave_up) may run beside them. They must not
/// block and must not wait for another call.
pub trait Handler: Gate + Send + Sync + 'static {
    /// Called when the peer's hello arrived: messages can be sent.
    fn opened(&self, link: &Arc<Link>, peer: &Hello);

    /// Called when calls arrived (on a server), once for all that arrived in a row. Answer each with
    /// [`Link::answer`], now or later, from any thread. `clock` measures what the handler does in this turn.
    fn called(&self, _link: &Arc<Link>, _calls: Calls<'_, '_>, _clock: &mut TurnClock) {}

    /// Called when the caller of `id` no longer wants the answer. The call must still be answered.
    fn cancelled(&self, _link: &Arc<Link>, _id: u64) {}

    /// Returns true if somebody waits for message `id`. The link then grants it memory although its budget
    /// has no room. Called once for each message that finds no room. [`Link::want`] does the same later.
    fn is_awaited(&self, _link: &Arc<Link>, _id: u64) -> bool {
        false
    }

    /// Returns true if a thread that does not [lead](Link::lead) waits for an answer (on a client). The event
    /// loop then reads the link at once when a leader leaves. Called under a lock of the link: it must not
    /// use the link.
    fn is_waited_for(&self) -> bool {
        true
    }

    /// Called when calls of this side were answered (on a client), once for all answers that arrived in a
    /// row.
    fn answered(&self, _link: &Arc<Link>, _answers: Answers<'_, '_>, _wakers: &mut Wakers) {}

    /// Called when the peer has received these messages completely: calls of this side (on a client), or
    /// answers (on a server).
    fn acknowledged(&self, _link: &Arc<Link>, _ids: &[u64]) {}

    /// Called when a client asks for its calls of earlier links (on a server). Answer it with
    /// [`Link::answer_resume`], now or later. The client makes no calls until then.
    fn resuming(&self, _link: &Arc<Link>, _resume: Resume) {}

    /// Called when the server answered [`Link::resume`] (on a client). The server will answer the calls that
    /// it has on this link.
    fn resumed(&self, _link: &Arc<Link>, _calls: Vec<(u64, CallAnswer)>, _wakers: &mut Wakers) {}

    /// Called when the unsent results are within the quota of [`Link::await_drain`]. Runs on the event loop's
    /// thread with no lock held.
    fn drained(&self, _link: &Arc<Link>) {}

    /// Called when calls of the peer were answered with [`TooSlow`](teleport_wire::ErrorKind::TooSlow) (on a
    /// server), because it moved their memory slower than `min_rate` while others waited for memory. For
    /// logs: the calls are no longer open.
    fn gave_up(&self, _link: &Arc<Link>, _calls: SlowCalls) {}

    /// Called once when the link is over and sends nothing more. This is the last call, except that
    /// [`drained`](Handler::drained) may follow.
    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers);
}

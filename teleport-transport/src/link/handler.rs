//! The layer above links.

use std::sync::Arc;

use teleport_wire::{CallAnswer, Hello, RemoteError, Resume};

use super::link::Link;
use crate::protocol::{Call, Closed, Gate, Reply, SlowCalls};
use crate::reactor::wakers::Wakers;

/// The layer above one or many links.
///
/// The thread that reads a link calls these methods, one at a time for each link and in the order of arrival.
/// Only [`drained`](Handler::drained) and [`gave_up`](Handler::gave_up) may run beside them. They must not
/// block and must not wait for another call.
pub trait Handler: Gate + Send + Sync + 'static {
    /// The peer said hello: messages can be sent.
    fn opened(&self, link: &Arc<Link>, peer: &Hello);

    /// A call arrived (on a server). Answer it with [`Link::answer`], now or later, from any thread.
    fn called(&self, _link: &Arc<Link>, _call: Call) {}

    /// The caller of `id` no longer wants the answer. It still gets one.
    fn cancelled(&self, _link: &Arc<Link>, _id: u64) {}

    /// Returns true if somebody waits for message `id`, for which the link's budget has no room: it is then
    /// granted all the same. Called once for each message. [`Link::want`] does the same for one that somebody
    /// waits for later.
    fn is_awaited(&self, _link: &Arc<Link>, _id: u64) -> bool {
        false
    }

    /// Returns true if a thread waits for an answer that does not [lead](Link::lead) (on a client). The event
    /// loop then reads the link at once when a leader leaves. Called under a lock of the link, which it must
    /// not use.
    fn is_waited_for(&self) -> bool {
        true
    }

    /// A call of ours was answered (on a client).
    fn answered(
        &self,
        _link: &Arc<Link>,
        _id: u64,
        _answer: Result<Reply, RemoteError>,
        _wakers: &mut Wakers,
    ) {
    }

    /// The peer has these messages whole: calls of ours (on a client), or answers to its calls (on a server).
    fn acknowledged(&self, _link: &Arc<Link>, _ids: &[u64]) {}

    /// A client asks for its calls of earlier links (on a server). Answer it with [`Link::answer_resume`],
    /// now or later. The client makes no calls until then.
    fn resuming(&self, _link: &Arc<Link>, _resume: Resume) {}

    /// The server answered [`Link::resume`] (on a client). It answers the calls that it has on this link.
    fn resumed(&self, _link: &Arc<Link>, _calls: Vec<(u64, CallAnswer)>, _wakers: &mut Wakers) {}

    /// What is left to be sent has shrunk to what [`Link::await_drain`] asked for. Called on the event loop's
    /// thread with no lock held.
    fn drained(&self, _link: &Arc<Link>) {}

    /// Calls of the peer were answered with [`TooSlow`](teleport_wire::ErrorKind::TooSlow) (on a server): it
    /// moved their memory slower than `min_rate` while others waited for memory. For logs: the calls are no
    /// longer open.
    fn gave_up(&self, _link: &Arc<Link>, _calls: SlowCalls) {}

    /// The link is over, and sends nothing any more. Called once, and last, except that
    /// [`drained`](Handler::drained) may follow.
    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers);
}

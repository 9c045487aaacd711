//! What a [`Link`] tells the layer above, and what that layer gives back.

use std::sync::Arc;

use teleport_wire::{CallAnswer, Hello, RemoteError, Resume};

use super::link::Link;
use crate::protocol::{Call, Closed, Gate, Reply, SlowCalls};
use crate::reactor::wakers::Wakers;

/// The layer above one or many links. Its methods are called by the thread that reads the link, one at a time for each
/// link and in the order of what arrived, but for [`drained`](Handler::drained); they must not block and must not wait for
/// another call.
pub trait Handler: Gate + Send + Sync + 'static {
    /// The peer said hello: messages can be sent.
    fn opened(&self, link: &Arc<Link>, peer: &Hello);

    /// A call arrived (on a server). Answer it with [`Link::answer`], now or later, from any thread.
    fn called(&self, _link: &Arc<Link>, _call: Call) {}

    /// The caller of `id` no longer wants the answer; it still gets one.
    fn cancelled(&self, _link: &Arc<Link>, _id: u64) {}

    /// Whether somebody waits for message `id`, which finds no room in the link's budget: it is then taken all the same.
    /// Asked once for each message; tell of a later change with [`Link::want`].
    fn is_awaited(&self, _link: &Arc<Link>, _id: u64) -> bool {
        false
    }

    /// Whether anybody waits for an answer who does not [lead](Link::lead) the link (on a client): then somebody else must read at
    /// once when a leader leaves.
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

    /// A client asks for its calls of earlier links (on a server). Answer it with [`Link::answer_resume`], now or later;
    /// until then it makes no calls.
    fn resuming(&self, _link: &Arc<Link>, _resume: Resume) {}

    /// The server answered [`Link::resume`] (on a client). What it has, it answers on this link.
    fn resumed(&self, _link: &Arc<Link>, _calls: Vec<(u64, CallAnswer)>, _wakers: &mut Wakers) {}

    /// As little is left to be sent as [`Link::await_drain`] asked for. Called on the poller's thread with no lock held.
    fn drained(&self, _link: &Arc<Link>) {}

    /// Calls of the peer were answered with [`TooSlow`](teleport_wire::ErrorKind::TooSlow) (on a server), since it moved their
    /// memory slower than `min_rate` while others waited for it. For logs: they are no longer open.
    fn gave_up(&self, _link: &Arc<Link>, _calls: SlowCalls) {}

    /// The link is over, and nothing that was not sent is sent any more. Called once, and nothing after it, but perhaps
    /// [`drained`](Handler::drained).
    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers);
}

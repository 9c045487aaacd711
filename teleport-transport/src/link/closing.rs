//! The end of a link: with a goodbye, with an error that is sent to the peer, or at once.
//!
//! Flow: [`Link::close`] queues a goodbye -> it is written after everything else; if the time to close is
//! over, everything else is dropped -> the writing direction is shut down, and arriving bytes are dropped ->
//! the peer closes, or [`LINGER`] is over -> the descriptor is closed. The handler's `closed` is called once,
//! when nothing is sent or received any more.

use std::sync::Arc;

use teleport_wire::ErrorKind;

use super::link::Link;
use super::writer::LINGER;
use crate::memory::deferred_drop::DropScope;
use crate::protocol::{Closed, Outbound, SharedOutbound};
use crate::reactor::source::{Scratch, Turn};
use crate::reactor::wakers::Wakers;

/// Ends a link that cannot continue. A peer that broke a rule gets the reason in a goodbye before the
/// descriptor is closed.
#[cold]
pub(super) fn fail(link: &Arc<Link>, closed: Closed, wakers: &mut Wakers) -> Turn {
    let (kind, text) = match &closed {
        Closed::Protocol(error) if !error.is_stranger() => (ErrorKind::Protocol, error.to_string()),
        Closed::TooSlow { .. } => (ErrorKind::TooSlow, closed.to_string()),
        _ => return close(link, closed, wakers),
    };
    end(link, closed, wakers, |outbound| {
        outbound.discard();
        outbound.send_goodbye(Some(kind), &text);
    });
    link.writer.send(&link.port, |sending| sending.linger.close_within(LINGER, &link.port));
    Turn::Drained
}

/// Ends the link without a goodbye. The caller ends the receiving half, which closes the descriptor.
#[cold]
pub(super) fn close(link: &Arc<Link>, closed: Closed, wakers: &mut Wakers) -> Turn {
    end(link, closed, wakers, Outbound::end);
    link.port.shut_down();
    link.writer.close();
    Turn::Gone
}

/// Like [`close`], but outside of a turn of reading.
pub(super) fn abort(link: &Arc<Link>, closed: Closed, scratch: &mut Scratch) {
    close(link, closed, &mut scratch.wakers);
    link.receiving.lock().end();
    scratch.wakers.wake_all();
}

/// Stops sending, calls the handler's `closed` once, and frees the memory of the link.
fn end(link: &Arc<Link>, closed: Closed, wakers: &mut Wakers, silence: impl FnOnce(&mut Outbound)) {
    link.memory.forget(link.port.key);
    let _scope = DropScope::enter();
    let closed = Arc::new(closed);
    let is_first = link.closed.set(closed.clone()).is_ok();
    // Before the handler is called, so that it can read what was sent.
    link.writer.with(silence);
    if is_first {
        link.handler.closed(link, &closed, wakers);
    }
}

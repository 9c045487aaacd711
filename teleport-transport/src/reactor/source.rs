//! The interface between an event loop and the connections that it moves.
//!
//! An event loop knows when a socket is ready or a timeout is due. A [`Source`] knows what to do then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::memory::budget::Charge;
use crate::protocol::Event;
use crate::reactor::wakers::Wakers;

/// Bytes that are read beyond those whose place is known. Only these are ever copied.
pub(crate) const READ_AHEAD_BYTES: usize = 16 << 10;

/// Buffers of a thread that reads, shared by all sources that it reads.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) ahead: Box<[u8; READ_AHEAD_BYTES]>,
    pub(crate) events: Vec<Event>,
    pub(crate) wakers: Wakers,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { ahead: Box::new([0; READ_AHEAD_BYTES]), events: Vec::new(), wakers: Wakers::default() }
    }
}

/// The outcome of one turn of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// No bytes were available.
    Empty,
    /// The socket is empty for now.
    Drained,
    /// The turn ended before the socket was empty.
    More,
    /// The source is closed.
    Gone,
}

/// A request that a source makes to itself, for the event loop's thread with no lock held.
#[derive(Debug)]
pub(crate) enum Request {
    /// Memory for message `id` was granted.
    Grant { id: u64, charge: Charge },
    /// A thread waits for message `id`.
    Want { id: u64 },
    /// The unsent results are within the awaited quota.
    Drained,
    /// End the connection without a goodbye.
    Abort,
}

/// A connection that an event loop moves. No method blocks.
///
/// The socket is registered under `key`, edge-triggered. Methods that take a `Scratch` run its wakers before
/// they return.
pub(crate) trait Source: Send {
    /// Returns a number that no other source of this process has or had.
    fn key(&self) -> usize;

    /// Returns the time for which a thread spins before it sleeps.
    fn spin_time(&self) -> Duration;

    /// Returns true if only the event loop reads the socket and the socket is not full.
    fn only_reads(&self) -> bool;

    /// Called when the event loop adds the source. Earlier events of the socket were lost.
    fn on_attached(&self);

    /// Called when the event loop has removed the source.
    fn on_detached(&self);

    /// Called when the socket is writable.
    fn on_writable(&self);

    /// Called when the peer sends nothing more after the bytes that are still unread.
    fn on_stream_end(&self);

    /// Reads for one turn. Cheap if no bytes are available.
    fn read(&self, scratch: &mut Scratch, now: Instant) -> Turn;

    /// Handles timeouts that are due. Returns the next one, or `None` if the source is closed.
    fn handle_timeout(&self, scratch: &mut Scratch, now: Instant) -> Option<Instant>;

    /// Sends and reads what threads left behind. Returns the time of the next check, if one is needed.
    fn handle_check(&self, now: Instant) -> Option<Instant>;

    /// Ends the connection without a goodbye, because the event loop ends.
    fn end(&self, scratch: &mut Scratch);
}

/// A source that sends requests to itself through its event loop.
pub(crate) trait Requested: Send + Sync {
    /// Handles a request of the source to itself. May run after `on_detached`.
    fn handle_request(self: Arc<Self>, request: Request, scratch: &mut Scratch);
}

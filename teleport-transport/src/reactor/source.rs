//! The interface between an event loop and the connections that it moves.
//!
//! An event loop knows when a socket is ready and when a time has come. A [`Source`] knows what to do then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::memory::budget::Charge;
use crate::protocol::Event;
use crate::reactor::wakers::Wakers;

/// Bytes that are read beyond those that have a place already. Only these are ever copied.
pub(crate) const READ_AHEAD_BYTES: usize = 16 << 10;

/// Buffers of a thread that reads. All sources that it reads share them.
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
    /// Nothing had come.
    Empty,
    /// The socket has no more for now.
    Drained,
    /// The turn was over before the socket was empty.
    More,
    /// The source is closed.
    Gone,
}

/// A request that a source makes to itself, to be handled on the event loop's thread with no lock held.
#[derive(Debug)]
pub(crate) enum Request {
    /// Memory for message `id` was granted.
    Grant { id: u64, charge: Charge },
    /// Somebody waits for message `id`.
    Want { id: u64 },
    /// Enough of what was queued has been sent.
    Drained,
    /// End without a goodbye.
    Abort,
}

/// A connection that an event loop moves. No method blocks.
///
/// The socket is registered under `key`, edge-triggered. Methods that take a `Scratch` run its wakers before
/// they return.
pub(crate) trait Source: Send + Sync {
    /// Returns a number that no other source of this process has or had.
    fn key(&self) -> usize;

    /// Returns for how long a thread looks for more before it sleeps.
    fn spin_time(&self) -> Duration;

    /// Returns true if the event loop has to read the socket, and does not wait until it is writable.
    fn only_reads(&self) -> bool;

    /// The event loop knows the source from now on. Events of the socket before this were lost.
    fn on_attached(self: Arc<Self>);

    /// The event loop has forgotten the source.
    fn on_detached(&self);

    /// The socket is writable.
    fn on_writable(self: Arc<Self>);

    /// The peer sends nothing more behind what is still to be read.
    fn on_stream_end(&self);

    /// Reads for one turn. Cheap if nothing has come.
    fn read(self: Arc<Self>, scratch: &mut Scratch, now: Instant) -> Turn;

    /// Handles one of its own requests. May run after `on_detached`.
    fn handle_request(self: Arc<Self>, request: Request, scratch: &mut Scratch);

    /// Returns the next time at which this wants to be called, or `None` if the source is closed.
    fn handle_timeout(self: Arc<Self>, scratch: &mut Scratch, now: Instant) -> Option<Instant>;

    /// Sends and reads what threads left behind. Returns the next time to do so, or `None` if there is no
    /// need.
    fn handle_check(self: Arc<Self>, now: Instant) -> Option<Instant>;
}

//! Sockets that accept connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timers::Timers;
use crate::net::socket::listener::Listener;
use crate::net::socket::{AcceptError, Socket};

/// A listener accepts this many connections before other sockets get their turn.
const MAX_ACCEPTS_PER_ROUND: usize = 64;

/// The time after which accepting is tried again when it failed for lack of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Takes the sockets that a [`Listener`] accepts. Called on the poller's thread; must not block.
pub trait Acceptor: Send + Sync + 'static {
    /// Takes the socket of a client that connected: pass it to [`Poller::attach`](crate::Poller::attach), or
    /// drop it to refuse.
    fn accepted(&self, socket: Socket);

    /// Called when accepting failed. The listener tries again soon if that can help.
    fn failed(&self, error: &AcceptError);
}

/// The listeners of one event loop.
#[derive(Default)]
pub(super) struct Listeners {
    by_key: HashMap<usize, (Listener, Arc<dyn Acceptor>)>,
    /// Listeners that had more to accept when their turn ended.
    ready: Vec<usize>,
}

impl Listeners {
    pub(super) fn add(&mut self, key: usize, listener: Listener, acceptor: Arc<dyn Acceptor>) {
        self.by_key.insert(key, (listener, acceptor));
    }

    pub(super) fn remove(&mut self, key: usize) {
        self.by_key.remove(&key);
    }

    pub(super) fn clear(&mut self) {
        self.by_key.clear();
    }

    /// Returns true if a listener has more to accept.
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives a turn to each listener that has more to accept.
    pub(super) fn take_turns(&mut self, timers: &mut Timers) {
        for key in std::mem::take(&mut self.ready) {
            self.accept(key, timers);
        }
    }

    /// Accepts connections for one turn. Does nothing if no listener has this key.
    pub(super) fn accept(&mut self, key: usize, timers: &mut Timers) {
        let Some((listener, acceptor)) = self.by_key.get(&key) else { return };
        for _ in 0..MAX_ACCEPTS_PER_ROUND {
            match listener.accept() {
                Ok(Some(socket)) => acceptor.accepted(socket),
                Ok(None) => return,
                Err(error) => {
                    acceptor.failed(&error);
                    timers.add(Instant::now() + ACCEPT_AGAIN, key);
                    return;
                }
            }
        }
        if !self.ready.contains(&key) {
            self.ready.push(key);
        }
    }
}

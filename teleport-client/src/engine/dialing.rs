//! The thread that connects. It runs while there is no connection.
//!
//! Flow: a socket -> handshake on the poller -> the waiting calls are sent, and the thread ends. After a
//! failure it waits, longer each time, and calls the resolvers again. Bound: one such thread for each client.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::protocol::Role;
use teleport_transport::{Link, Wakers};

use crate::connect::backoff;
use crate::connect::dial::{check_address, dial};
use crate::engine::shared::{Engine, Locked};
use crate::error::connect::{AttemptError, ClientError};

/// Starts the thread. The caller has checked that it is needed.
pub(crate) fn start(engine: Arc<Engine>) -> io::Result<()> {
    let thread = Dialing { engine };
    std::thread::Builder::new().name("teleport-connect".into()).spawn(move || thread.run()).map(drop)
}

struct Dialing {
    engine: Arc<Engine>,
}

impl Dialing {
    fn run(&self) {
        while self.pause() && !self.is_connected(self.attempt()) {}
    }

    /// Waits before the next attempt. Returns false if the client was closed.
    fn pause(&self) -> bool {
        let pause = self.engine.with(|client| client.connection.pause(backoff::random()));
        self.engine
            .wait(Some(Instant::now() + pause), |state| (!state.client.wants_connection()).then_some(()));
        self.engine.with(|client| {
            client.connection.is_dialing = client.wants_connection();
            client.connection.is_dialing
        })
    }

    /// Returns true if this thread is no longer needed.
    fn is_connected(&self, attempted: Result<(), AttemptError>) -> bool {
        let mut wakers = Wakers::default();
        if let Err(error) = &attempted {
            tracing::debug!(address = &*self.engine.settings.address, %error, "cannot connect");
        }
        let is_connected = self.engine.with(|client| {
            if let Err(error) = attempted {
                client.connection.attempt_failed(error);
            }
            let is_connected = client.connection.open().is_some();
            if is_connected {
                client.connection.is_dialing = false;
                client.admit(&mut wakers);
            }
            is_connected
        });
        self.engine.notify();
        wakers.wake_all();
        is_connected
    }

    fn attempt(&self) -> Result<(), AttemptError> {
        let settings = &self.engine.settings;
        let only_once = settings.connect_timeout == Some(Duration::ZERO);
        let socket = dial(&settings.resolvers, &settings.address, only_once)?;
        let (budget, handler) = (Some(self.engine.budget.clone()), self.engine.clone());
        let link = self
            .engine
            .poller
            .attach(socket, Role::Client, &settings.config, budget, handler)
            .map_err(AttemptError::System)?;
        self.handshake(&link)
    }

    /// Waits until the handshake is complete. The link bounds the time.
    fn handshake(&self, link: &Arc<Link>) -> Result<(), AttemptError> {
        let introduced = self.engine.wait(None, |state| {
            let client = &state.client;
            if client.connection.open().is_some_and(|open| open.key == link.key()) {
                return Some(Ok(()));
            }
            if let Some(reason) = link.closed() {
                let peer = link.peer_address().to_owned();
                return Some(Err(AttemptError::Handshake { peer, reason: reason.clone() }));
            }
            (!client.wants_connection()).then_some(Err(AttemptError::Closed))
        });
        // Without a time limit there is always a result.
        let introduced = introduced.unwrap_or(Err(AttemptError::Closed));
        // A link that has opened says goodbye by itself when the client ends: it may have carried calls
        // before this thread noticed.
        if matches!(introduced, Err(AttemptError::Closed)) && link.peer().is_none() {
            link.abort();
        }
        introduced
    }
}

/// **Blocks** until the client is connected for the first time, within `connect_timeout`. Unwinds a thread
/// that is interrupted.
pub(crate) fn connect(engine: &Arc<Engine>) -> Result<(), ClientError> {
    let settings = &engine.settings;
    check_address(&settings.resolvers, &settings.address)?;
    engine.with(|client| client.connection.is_dialing = true);
    (settings.dialer)(engine.clone()).map_err(ClientError::System)?;
    let start = Instant::now();
    let only_once = settings.connect_timeout == Some(Duration::ZERO);
    let until =
        settings.connect_timeout.filter(|_| !only_once).and_then(|timeout| start.checked_add(timeout));
    let address = || settings.address.clone();
    let timed_out = |state: &Locked| ClientError::TimedOut {
        address: address(),
        waited: start.elapsed(),
        attempts: state.client.connection.attempts,
        last: state.client.connection.last_error.clone(),
    };
    let ended = engine.wait(until, |state| {
        let connection = &state.client.connection;
        if connection.open().is_some() {
            return Some(Ok(()));
        }
        if let Some(reason) = connection.last_error.clone().filter(|last| last.is_final()) {
            return Some(Err(match &*reason {
                AttemptError::Address(error) => ClientError::Address(error.clone()),
                _ => ClientError::Refused { address: address(), reason },
            }));
        }
        (only_once && connection.attempts > 0).then(|| Err(timed_out(state)))
    });
    ended.unwrap_or_else(|| Err(timed_out(&engine.state.lock())))
}

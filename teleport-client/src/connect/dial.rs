//! Connecting: a thread that lives while there is no connection.
//!
//! Flow: resolvers -> address -> socket -> handshake on the poller -> the waiting calls go out, and the thread ends.
//! After a failure it waits, longer each time, and asks the resolvers anew. Blocks, and so never runs on a poller.
//! Bounds: one such thread for each client; one attempt takes up to `MAX_ATTEMPT` and the time of a name look-up.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::protocol::Role;
use teleport_transport::{Address, Link, Socket, Wakers};

use crate::calls::state::State;
use crate::connect::backoff;
use crate::connect::resolver;
use crate::engine::shared::Engine;
use crate::error::connect::{AttemptError, ClientError};

/// One attempt, over all addresses of the server's name. A server that is there answers within a round trip.
const MAX_ATTEMPT: Duration = Duration::from_secs(10);

/// The one attempt of a client that does not wait for its server.
const MAX_ONLY_ATTEMPT: Duration = Duration::from_secs(3);

/// Starts the thread. The caller has set `dialing`.
pub(crate) fn start(engine: Arc<Engine>) -> io::Result<()> {
    std::thread::Builder::new().name("teleport-connect".into()).spawn(move || run(&engine)).map(drop)
}

fn run(engine: &Arc<Engine>) {
    while !pause(engine) && !is_connected(engine, attempt(engine)) {}
}

/// Waits as long as the failures before ask for; true if the client was closed.
fn pause(engine: &Engine) -> bool {
    let until = Instant::now() + engine.state.lock().backoff.wait(backoff::random());
    engine.wait(Some(until), |state| (!state.wants_connection()).then_some(()));
    let mut state = engine.state.lock();
    state.dialing = state.wants_connection();
    !state.dialing
}

/// Takes note of what an attempt came to; true if this thread is no longer needed.
fn is_connected(engine: &Engine, attempted: Result<(), AttemptError>) -> bool {
    let mut wakers = Wakers::default();
    let mut state = engine.state.lock();
    if let Err(error) = attempted {
        tracing::debug!(address = &*engine.settings.address, %error, "cannot connect");
        state.attempt_failed(error);
    }
    let connected = state.door().is_some();
    if connected {
        state.dialing = false;
        state.admit(&mut wakers);
    }
    drop(state);
    engine.notify();
    wakers.wake_all();
    connected
}

fn attempt(engine: &Arc<Engine>) -> Result<(), AttemptError> {
    let settings = &engine.settings;
    let time = if settings.connect_timeout == Some(Duration::ZERO) { MAX_ONLY_ATTEMPT } else { MAX_ATTEMPT };
    let address: Address = resolver::resolve(&settings.resolvers, &settings.address)?.parse()?;
    let socket = Socket::connect(&address, Some(Instant::now() + time))?;
    let link = engine
        .poller
        .attach(socket, Role::Client, &settings.config, Some(engine.budget.clone()), engine.clone())
        .map_err(AttemptError::System)?;
    handshake(engine, &link)
}

/// Waits until both sides have introduced themselves. The link bounds the time.
fn handshake(engine: &Engine, link: &Arc<Link>) -> Result<(), AttemptError> {
    let introduced = engine.wait(None, |state| {
        if state.door().is_some_and(|door| door.connection == link.key()) {
            return Some(Ok(()));
        }
        if let Some(reason) = link.closed() {
            let peer = link.peer_address().to_owned();
            return Some(Err(AttemptError::Handshake { peer, reason: reason.clone() }));
        }
        (!state.wants_connection()).then_some(Err(AttemptError::Closed))
    });
    // It waited for as long as it takes, so there is one.
    let introduced = introduced.unwrap_or(Err(AttemptError::Closed));
    // A link that has opened is told goodbye by whoever ends the client, or as it opens: it may have carried calls before this
    // thread came to look.
    if matches!(introduced, Err(AttemptError::Closed)) && link.peer().is_none() {
        link.abort();
    }
    introduced
}

/// Connects for the first time, within the client's time. In a thread that is killed it does not return.
pub(crate) fn connect(engine: &Arc<Engine>) -> Result<(), ClientError> {
    check_address(engine)?;
    engine.state.lock().dialing = true;
    (engine.settings.dialler)(engine.clone()).map_err(ClientError::System)?;
    let start = Instant::now();
    let timeout = engine.settings.connect_timeout;
    let only_once = timeout == Some(Duration::ZERO);
    let until = timeout.filter(|_| !only_once).and_then(|timeout| start.checked_add(timeout));
    let address = || engine.settings.address.clone();
    let timed_out = |state: &State<_>| ClientError::TimedOut {
        address: address(),
        waited: start.elapsed(),
        attempts: state.attempts,
        last: state.last.clone(),
    };
    let ended = engine.wait(until, |state| {
        if state.door().is_some() {
            return Some(Ok(()));
        }
        if let Some(reason) = state.last.clone().filter(|last| last.is_final()) {
            return Some(Err(match &*reason {
                AttemptError::Address(error) => ClientError::Address(error.clone()),
                _ => ClientError::Refused { address: address(), reason },
            }));
        }
        (only_once && state.attempts > 0).then(|| Err(timed_out(state)))
    });
    ended.unwrap_or_else(|| Err(timed_out(&engine.state.lock())))
}

/// An address that no resolver changes is checked before anything is tried.
fn check_address(engine: &Engine) -> Result<(), ClientError> {
    let settings = &engine.settings;
    if !resolver::is_name(&settings.resolvers, &settings.address) {
        settings.address.parse::<Address>()?;
    }
    Ok(())
}

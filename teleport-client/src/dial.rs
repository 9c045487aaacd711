//! Connecting: a thread that lives while there is no connection.
//!
//! Flow: resolvers -> address -> socket -> handshake on the poller -> the waiting calls go out, and the thread ends.
//! After a failure it waits, longer each time, and asks the resolvers anew. Blocks, and so never runs on a poller.
//! Bounds: one such thread for each client; one attempt takes up to `MAX_ATTEMPT` and the time of a name look-up.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::connection::Role;
use teleport_transport::{Address, Link, Socket, Wakers, release_held};

use crate::backoff;
use crate::connect_error::{AttemptError, ClientError};
use crate::core::Core;
use crate::resolver;

/// One attempt, over all addresses of the server's name. A server that is there answers within a round trip.
const MAX_ATTEMPT: Duration = Duration::from_secs(10);

/// The one attempt of a client that does not wait for its server.
const MAX_ONLY_ATTEMPT: Duration = Duration::from_secs(3);

/// Starts the thread. The caller has set `dialing`.
pub(crate) fn start(core: Arc<Core>) -> io::Result<()> {
    std::thread::Builder::new().name("teleport-connect".into()).spawn(move || run(&core)).map(drop)
}

fn run(core: &Arc<Core>) {
    while !pause(core) && !is_connected(core, attempt(core)) {}
}

/// Waits as long as the failures before ask for; true if the client was closed.
fn pause(core: &Core) -> bool {
    let mut state = core.state.lock();
    let until = Instant::now() + state.backoff.wait(backoff::random());
    while state.wants_connection() && !core.changed.wait_until(&mut state, until).timed_out() {}
    state.dialing = state.wants_connection();
    !state.dialing
}

/// Takes note of what an attempt came to; true if this thread is no longer needed.
fn is_connected(core: &Core, attempted: Result<(), AttemptError>) -> bool {
    let mut wakers = Wakers::default();
    let mut state = core.state.lock();
    if let Err(error) = attempted {
        tracing::debug!(address = &*core.settings.address, %error, "cannot connect");
        state.attempt_failed(error);
    }
    let connected = state.door().is_some();
    if connected {
        state.dialing = false;
        state.admit(&mut wakers);
    }
    drop(state);
    core.changed.notify_all();
    wakers.wake_all();
    connected
}

fn attempt(core: &Arc<Core>) -> Result<(), AttemptError> {
    let settings = &core.settings;
    let time = if settings.connect_timeout == Some(Duration::ZERO) { MAX_ONLY_ATTEMPT } else { MAX_ATTEMPT };
    let address: Address = resolver::resolve(&settings.resolvers, &settings.address)?.parse()?;
    let socket = Socket::connect(&address, Some(Instant::now() + time))?;
    let link = core
        .poller
        .attach(socket, Role::Client, &settings.config, Some(core.budget.clone()), core.clone())
        .map_err(AttemptError::System)?;
    handshake(core, &link)
}

/// Waits until both sides have introduced themselves. The link bounds the time.
fn handshake(core: &Core, link: &Arc<Link>) -> Result<(), AttemptError> {
    let mut state = core.state.lock();
    loop {
        if state.door().is_some_and(|door| door.connection == link.key()) {
            return Ok(());
        }
        if let Some(reason) = link.closed() {
            let peer = link.peer_address().to_owned();
            return Err(AttemptError::Handshake { peer, reason: reason.clone() });
        }
        if !state.wants_connection() {
            // Before a lock of the link is taken.
            drop(state);
            // One that has opened is told goodbye by whoever ends the client, or as it opens: it may have carried calls
            // before this thread came to look.
            if link.peer().is_none() {
                link.abort();
            }
            return Err(AttemptError::Closed);
        }
        core.changed.wait(&mut state);
    }
}

/// Connects for the first time, within the client's time.
pub(crate) fn connect(core: &Arc<Core>) -> Result<(), ClientError> {
    check_address(core)?;
    // Of other clients: this thread waits now.
    release_held();
    core.state.lock().dialing = true;
    (core.settings.dialler)(core.clone()).map_err(ClientError::System)?;
    let start = Instant::now();
    let timeout = core.settings.connect_timeout;
    let until = timeout.and_then(|timeout| start.checked_add(timeout));
    let only_once = timeout == Some(Duration::ZERO);
    let mut state = core.state.lock();
    loop {
        if state.door().is_some() {
            return Ok(());
        }
        let address = core.settings.address.clone();
        if let Some(reason) = state.last.clone().filter(|last| last.is_final()) {
            return Err(match &*reason {
                AttemptError::Address(error) => ClientError::Address(error.clone()),
                _ => ClientError::Refused { address, reason },
            });
        }
        let over = match until {
            _ if only_once => state.attempts > 0,
            Some(until) => Instant::now() >= until,
            None => false,
        };
        if over {
            let (attempts, last) = (state.attempts, state.last.clone());
            return Err(ClientError::TimedOut { address, waited: start.elapsed(), attempts, last });
        }
        match until.filter(|_| !only_once) {
            Some(until) => drop(core.changed.wait_until(&mut state, until)),
            None => core.changed.wait(&mut state),
        }
    }
}

/// An address that no resolver changes is checked before anything is tried.
fn check_address(core: &Core) -> Result<(), ClientError> {
    let settings = &core.settings;
    if !resolver::is_name(&settings.resolvers, &settings.address) {
        settings.address.parse::<Address>()?;
    }
    Ok(())
}

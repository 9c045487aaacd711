//! Where clients come in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use teleport_transport::protocol::Role;
use teleport_transport::wire::ErrorKind;
use teleport_transport::{AcceptError, Acceptor, Socket};

use crate::connection::dispatch::Connection;
use crate::runtime::shared::{Attached, Shared};

/// Connections past `max_connections` that are told so, at the same time; more are just closed.
const MAX_REFUSALS: usize = 64;

/// How long a refused client has to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Where clients come in.
#[derive(Debug)]
pub(crate) struct ConnectionAcceptor(pub(crate) Arc<Shared>);

impl ConnectionAcceptor {
    fn admit(&self, socket: Socket, connections: usize) -> std::io::Result<()> {
        let shared = &self.0;
        let turn = shared.next_poller.fetch_add(1, Ordering::Relaxed);
        let poller = &shared.pollers[turn % shared.pollers.len()];
        let is_surplus = connections > shared.max_connections;
        let (config, reservation) = if is_surplus {
            (shared.credit.none(), None)
        } else {
            let (config, reservation) = shared.credit.reserve();
            (config, Some(reservation))
        };
        let peer = Connection::new(shared, reservation);
        let budget = Some(shared.budget.clone());
        let link = poller.attach(socket, Role::Server, config, budget, peer.clone())?;
        if is_surplus {
            let reason =
                format!("the server has its {} connections (`max_connections`)", shared.max_connections);
            link.close(Some(ErrorKind::Overloaded), &reason, REFUSAL_TIME);
        }
        let mut known = shared.connections.lock();
        // A connection that has ended by now was removed before it stood here.
        if link.closed().is_none() {
            known.insert(link.key(), Attached { link, peer });
        }
        Ok(())
    }
}

impl Acceptor for ConnectionAcceptor {
    fn accepted(&self, socket: Socket) {
        let shared = &self.0;
        let connections = shared.connection_count.fetch_add(1, Ordering::SeqCst) + 1;
        let surplus = connections.saturating_sub(shared.max_connections);
        let peer = socket.peer().to_owned();
        if surplus > 0 && shared.log_limit.allows() {
            tracing::warn!(
                peer,
                max_connections = shared.max_connections,
                "a connection was refused: too many"
            );
        }
        let refused =
            if surplus > MAX_REFUSALS { Ok(false) } else { self.admit(socket, connections).map(|()| true) };
        if !matches!(refused, Ok(true)) {
            shared.connection_count.fetch_sub(1, Ordering::SeqCst);
            shared.lifecycle.notify();
        }
        if let Err(error) = refused
            && shared.log_limit.allows()
        {
            tracing::warn!(peer, %error, "a connection was refused: it cannot be watched");
        }
    }

    fn failed(&self, error: &AcceptError) {
        if self.0.log_limit.allows() {
            tracing::warn!("{error}");
        }
    }
}

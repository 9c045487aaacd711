//! New connections: each gets a poller, memory for its small calls, and a handler.
//!
//! Never waits. Bound: `max_connections`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use teleport_transport::protocol::Role;
use teleport_transport::wire::ErrorKind;
use teleport_transport::{AcceptError, Acceptor, Poller, Socket};

use crate::api::options::Options;
use crate::connection::credit::Credit;
use crate::connection::dispatch::Connection;
use crate::dispatcher::Dispatcher;

/// This many connections past `max_connections` get the reason for their refusal. More are closed without it.
const MAX_REFUSALS: usize = 64;

/// The time for a refused client to read the reason.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ConnectionAcceptor {
    dispatcher: Arc<Dispatcher>,
    max_connections: usize,
    credit: Credit,
    pollers: Vec<Poller>,
    next_poller: AtomicUsize,
}

impl ConnectionAcceptor {
    pub(crate) fn new(
        dispatcher: &Arc<Dispatcher>,
        options: &Options,
        pollers: Vec<Poller>,
    ) -> ConnectionAcceptor {
        ConnectionAcceptor {
            dispatcher: dispatcher.clone(),
            max_connections: options.max_connections,
            credit: Credit::new(options.credit_memory(), options.config()),
            pollers,
            next_poller: AtomicUsize::new(0),
        }
    }

    fn attach(&self, socket: Socket, is_surplus: bool) -> std::io::Result<()> {
        let turn = self.next_poller.fetch_add(1, Ordering::Relaxed);
        let poller = &self.pollers[turn % self.pollers.len()];
        let (config, reservation) = if is_surplus {
            (self.credit.none(), None)
        } else {
            let (config, reservation) = self.credit.reserve();
            (config, Some(reservation))
        };
        let connection = Arc::new(Connection::new(&self.dispatcher, reservation));
        let budget = Some(self.dispatcher.shared.budget.clone());
        let link = poller.attach(socket, Role::Server, config, budget, connection)?;
        if is_surplus {
            let reason =
                format!("the server has its {} connections (`max_connections`)", self.max_connections);
            link.close(Some(ErrorKind::Overloaded), &reason, REFUSAL_TIME);
        }
        self.dispatcher.connections.add(&link);
        Ok(())
    }
}

impl Acceptor for ConnectionAcceptor {
    fn accepted(&self, socket: Socket) {
        let shared = &self.dispatcher.shared;
        let connections = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let surplus = connections.saturating_sub(self.max_connections);
        let peer = socket.peer().to_owned();
        if surplus > 0 && shared.log_limit.allows() {
            tracing::warn!(
                peer,
                max_connections = self.max_connections,
                "a connection was refused: too many"
            );
        }
        let attached =
            if surplus > MAX_REFUSALS { Ok(false) } else { self.attach(socket, surplus > 0).map(|()| true) };
        if !matches!(attached, Ok(true)) {
            shared.connections.fetch_sub(1, Ordering::SeqCst);
            shared.lifecycle.notify();
        }
        if let Err(error) = attached
            && shared.log_limit.allows()
        {
            tracing::warn!(peer, %error, "a connection was refused: it cannot be watched");
        }
    }

    fn failed(&self, error: &AcceptError) {
        if self.dispatcher.shared.log_limit.allows() {
            tracing::warn!("{error}");
        }
    }
}

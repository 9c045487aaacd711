//! Many clients in one process, each with one call open. To a server they look like many processes.
//!
//! Flow: each client sends a call -> the thread waits for the oldest call -> its client sends the next one.
//! The first round makes the clients, and they stay.

use std::collections::VecDeque;

use teleport::{BoxError, Client, Tree};

use super::Variant;
use crate::bench::protocol::{Answer, Round, Stopwatch};

/// The clients.
pub(super) struct Crowd {
    clients: Vec<Client>,
}

impl Crowd {
    pub(super) fn connect(variant: Variant, address: &str, clients: u64) -> Result<Crowd, BoxError> {
        let connect = |_| variant.client(address).connect();
        let clients: Result<Vec<Client>, _> = (0..clients).map(connect).collect();
        Ok(Crowd { clients: clients? })
    }

    /// Returns true if there are this many clients.
    pub(super) fn fits(&self, clients: u64) -> bool {
        self.clients.len() as u64 == clients
    }

    pub(super) fn exchange(
        &self,
        round: &Round,
        (method, argument): (&'static str, Tree),
    ) -> Result<Answer, BoxError> {
        let send = |client: &Client| client.call::<_, _>(method, argument.clone()).send();
        let watch = Stopwatch::start(round);
        let mut open = VecDeque::with_capacity(self.clients.len());
        for client in self.clients.iter().take(round.messages as usize) {
            open.push_back((client, send(client)?));
        }
        let mut left = round.messages - open.len() as u64;
        while let Some((client, oldest)) = open.pop_front() {
            oldest.wait()?;
            if left > 0 {
                left -= 1;
                open.push_back((client, send(client)?));
            }
        }
        Ok(watch.done())
    }
}

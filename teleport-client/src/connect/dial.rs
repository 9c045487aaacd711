//! One attempt to reach the server: resolvers, address, socket.
//!
//! Blocks, so it never runs on a poller. Bound: `MAX_ATTEMPT`, and the time of resolvers and name look-ups.

use std::time::{Duration, Instant};

use teleport_transport::{Address, AddressError, Socket};

use crate::connect::resolver::{self, Resolver};
use crate::error::connect::AttemptError;

/// One attempt, over all addresses of the server's name. A running server answers within a round trip.
const MAX_ATTEMPT: Duration = Duration::from_secs(10);

/// The attempt of a client that tries only once.
const MAX_ONLY_ATTEMPT: Duration = Duration::from_secs(3);

/// Connects a socket to the server at `address`, which may be a name.
pub(crate) fn dial(resolvers: &[Resolver], address: &str, only_once: bool) -> Result<Socket, AttemptError> {
    let time = if only_once { MAX_ONLY_ATTEMPT } else { MAX_ATTEMPT };
    let address: Address = resolver::resolve(resolvers, address)?.parse()?;
    Ok(Socket::connect(&address, Some(Instant::now() + time))?)
}

/// Checks an address that no resolver changes, before the first attempt.
pub(crate) fn check_address(resolvers: &[Resolver], address: &str) -> Result<(), AddressError> {
    if !resolver::is_name(resolvers, address) {
        address.parse::<Address>()?;
    }
    Ok(())
}

//! The peers that Teleport is measured against: other libraries, each in a program that speaks the benchmark's protocol.
//!
//! Flow: `--peers` -> [`available`] -> the runner starts the commands, with the address as their last argument.

use super::placement::Placement;
use crate::failure::Failure;

/// One other library.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// As tables and plots show it.
    pub(super) name: String,
    /// Program and arguments that start a server; an address follows.
    pub(super) server: Vec<String>,
    /// The same of a client.
    pub(super) client: Vec<String>,
    /// Where it runs best; none for where the row says.
    pub(super) placement: Option<Placement>,
}

/// What there is, and what is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    pub(super) ready: Vec<Peer>,
    /// A sentence for each that could not be built.
    pub(super) missing: Vec<String>,
}

/// Builds what can be built.
pub(super) fn available() -> Result<Peers, Failure> {
    let missing = vec!["No peers were measured: there are none in this checkout yet.".to_owned()];
    Ok(Peers { ready: Vec::new(), missing })
}

//! The contenders in this program: a server and a client process each, which speak the benchmark's protocol.
//!
//! Flow: the hidden commands `bench-serve NAME ADDRESS` and `bench-client NAME ADDRESS` start here; `raw`
//! and `ours` do the work. The parent process chooses the cores.

mod ours;
mod raw;

use clap::Args;

use super::protocol;
use crate::failure::Failure;
use crate::{child, usage};

/// The most clients in one process.
pub(super) const MAX_CROWD: u64 = 1000;

/// The descriptors that a process needs beside its connections, with a margin.
const OTHER_DESCRIPTORS: u64 = 100;

/// The memory limit of the server whose memory is measured, large enough to be most of what the process
/// uses.
pub(super) const SMALL_MEMORY_BYTES: u64 = 1 << 30;

/// A process of the benchmark; not for users.
#[derive(Debug, Args)]
pub(crate) struct ContenderOptions {
    contender: Contender,
    address: String,
}

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Contender {
    /// Plain sockets.
    Raw,
    /// Plain sockets that spin for a while before they block.
    RawSpinning,
    /// Plain sockets with many clients.
    RawCrowd,
    /// The same, with threads that spin for a while before they block.
    RawCrowdSpinning,
    /// Teleport.
    Teleport,
    /// Teleport, with checksums of the payload.
    TeleportChecked,
    /// Teleport, with a server whose memory is limited to [`SMALL_MEMORY_BYTES`].
    TeleportSmall,
}

impl Contender {
    pub(super) const ALL: [Contender; 7] = [
        Contender::Raw,
        Contender::RawSpinning,
        Contender::RawCrowd,
        Contender::RawCrowdSpinning,
        Contender::Teleport,
        Contender::TeleportChecked,
        Contender::TeleportSmall,
    ];

    /// Returns the name in the commands.
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Raw => "raw",
            Contender::RawSpinning => "raw-spinning",
            Contender::RawCrowd => "raw-crowd",
            Contender::RawCrowdSpinning => "raw-crowd-spinning",
            Contender::Teleport => "teleport",
            Contender::TeleportChecked => "teleport-checked",
            Contender::TeleportSmall => "teleport-small",
        }
    }

    /// Returns how plain sockets wait, or `None` for other contenders.
    fn waiting(self) -> Option<raw::Waiting> {
        match self {
            Contender::Raw | Contender::RawCrowd => Some(raw::Waiting::Blocking),
            Contender::RawSpinning | Contender::RawCrowdSpinning => Some(raw::Waiting::Spinning),
            _ => None,
        }
    }

    fn is_raw_crowd(self) -> bool {
        matches!(self, Contender::RawCrowd | Contender::RawCrowdSpinning)
    }

    fn variant(self) -> ours::Variant {
        ours::Variant {
            checksum: self == Contender::TeleportChecked,
            max_memory: (self == Contender::TeleportSmall).then_some(SMALL_MEMORY_BYTES),
        }
    }
}

/// Serves until standard input ends.
pub(crate) fn run_server(options: &ContenderOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    usage::allow_descriptors_up_to(MAX_CROWD + OTHER_DESCRIPTORS)?;
    let ContenderOptions { contender, address } = options;
    if let Some(waiting) = contender.waiting().filter(|_| contender.is_raw_crowd()) {
        return protocol::serve_until_input_ends(&raw::crowd::serve(address, waiting)?)
            .map_err(Failure::bench);
    }
    if let Some(waiting) = contender.waiting() {
        return protocol::serve_until_input_ends(&raw::serve(address, waiting)?).map_err(Failure::bench);
    }
    let server = ours::serve(contender.variant(), address).map_err(Failure::bench)?;
    protocol::serve_until_input_ends(&server.address().to_string()).map_err(Failure::bench)
}

/// Runs rounds until standard input ends.
pub(crate) fn run_client(options: &ContenderOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    usage::allow_descriptors_up_to(MAX_CROWD + OTHER_DESCRIPTORS)?;
    let ContenderOptions { contender, address } = options;
    if let Some(waiting) = contender.waiting().filter(|_| contender.is_raw_crowd()) {
        let mut client = raw::crowd::Client::new(address, waiting);
        return protocol::answer_rounds(&waiting.settings_of_many(), |round| client.run(round))
            .map_err(Failure::bench);
    }
    if let Some(waiting) = contender.waiting() {
        let mut client = raw::Client::connect(address, waiting)?;
        return protocol::answer_rounds(&waiting.settings(), |round| client.run(round))
            .map_err(Failure::bench);
    }
    let variant = contender.variant();
    let mut client = ours::Party::connect(variant, address).map_err(Failure::bench)?;
    protocol::answer_rounds(&variant.settings(), |round| client.run(round)).map_err(Failure::bench)
}

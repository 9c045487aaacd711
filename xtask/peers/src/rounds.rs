//! What all peers' rounds have in common: which answer is right, and why some have no small calls beside large ones.

use crate::Failure;
use crate::protocol::{Answer, Round, Workload};

/// Of a library that sends a connection's messages one after the other.
pub(crate) fn no_calls_beside() -> Answer {
    let why = "a connection's messages go one after the other, so that no small call ends within a large one; its users \
               open two connections";
    Answer::Unsupported(why.to_owned())
}

/// That a result has the size that it should have.
pub(crate) fn check(round: &Round, bytes: u64) -> Result<(), Failure> {
    let is_right = match round.workload {
        Workload::Sink | Workload::Dict | Workload::BesideArgument => bytes <= 1,
        Workload::Source | Workload::Echo | Workload::Pool | Workload::BesideResult => bytes == round.bytes,
    };
    if is_right { Ok(()) } else { Err(format!("an answer of {bytes} bytes to `{round}`").into()) }
}

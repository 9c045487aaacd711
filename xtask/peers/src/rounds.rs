//! What all peers' rounds have in common: what is said of them, which answer is right, and why some have no small calls beside
//! large ones.

use crate::Failure;
use crate::protocol::{self, Answer, Round, Workload};

/// What the report says of a peer: its settings, and how the process's memory is tuned.
pub(crate) fn answer_rounds(settings: &str, mut run: impl FnMut(&Round) -> Answer) -> Result<(), Failure> {
    let tuned = std::env::var("GLIBC_TUNABLES").map(|tunables| format!("; {tunables}")).unwrap_or_default();
    Ok(protocol::answer_rounds(&format!("{settings}{tuned}"), |round| match round.workload {
        workload if workload.is_about_batches() => {
            Answer::Unsupported("it has no functions that run once for many calls".to_owned())
        }
        _ => run(round),
    })?)
}

/// Of a library that sends a connection's messages one after the other.
#[cfg(any(feature = "zmq", feature = "nng", feature = "tarpc"))]
pub(crate) fn no_calls_beside() -> Answer {
    let why = "a connection's messages go one after the other, so that no small call ends within a large one; its users \
               open two connections";
    Answer::Unsupported(why.to_owned())
}

/// That a result has the size that it should have.
pub(crate) fn check(round: &Round, bytes: u64) -> Result<(), Failure> {
    let is_right = match round.workload {
        Workload::Sink | Workload::Dict | Workload::BesideArgument => bytes <= 1,
        _ => bytes == round.bytes,
    };
    if is_right { Ok(()) } else { Err(format!("an answer of {bytes} bytes to `{round}`").into()) }
}

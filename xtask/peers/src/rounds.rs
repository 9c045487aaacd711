//! The parts that all peers' rounds share.

use crate::Failure;
use crate::protocol::{self, Answer, Round, Workload};

/// Answers rounds until standard input ends. Adds the tuning of the process's memory to the settings.
pub(crate) fn answer_rounds(settings: &str, mut run: impl FnMut(&Round) -> Answer) -> Result<(), Failure> {
    let tuned = std::env::var("GLIBC_TUNABLES").map(|tunables| format!("; {tunables}")).unwrap_or_default();
    Ok(protocol::answer_rounds(&format!("{settings}{tuned}"), |round| match round.workload {
        workload if workload.is_about_batches() => {
            Answer::Unsupported("it has no batched functions".to_owned())
        }
        _ => run(round),
    })?)
}

/// The answer of a library that sends a connection's messages one after the other.
#[cfg(any(feature = "zmq", feature = "nng", feature = "tarpc"))]
pub(crate) fn no_calls_beside() -> Answer {
    let why = "a connection's messages go one after the other, so that no small call ends within a large one; its users \
               open two connections";
    Answer::Unsupported(why.to_owned())
}

/// Checks that a result has the right size.
pub(crate) fn check(round: &Round, bytes: u64) -> Result<(), Failure> {
    let is_right = match round.workload {
        Workload::Sink | Workload::Dict | Workload::BesideArgument => bytes <= 1,
        _ => bytes == round.bytes,
    };
    if is_right { Ok(()) } else { Err(format!("an answer of {bytes} bytes to `{round}`").into()) }
}

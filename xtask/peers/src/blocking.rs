//! Rounds of a library whose calls are sent and awaited by one thread.
//!
//! Flow: the thread sends until `in_flight` calls are open, waits for the oldest, and sends one more.

use crate::Failure;
use crate::protocol::{Answer, Round, Stopwatch};
use crate::rounds::check;

/// A client that is ready for one kind of call.
pub(crate) trait Calls {
    fn send(&mut self) -> Result<(), Failure>;

    /// Waits for the oldest call, and returns the bytes of its result.
    fn wait(&mut self) -> Result<u64, Failure>;
}

pub(crate) fn exchange(round: &Round, calls: &mut impl Calls) -> Result<Answer, Failure> {
    let (mut sent, mut answered) = (0, 0);
    let mut watch = Stopwatch::start(round);
    while answered < round.messages {
        let start = watch.sent();
        while sent < round.messages && sent - answered < round.in_flight {
            calls.send()?;
            sent += 1;
        }
        check(round, calls.wait()?)?;
        answered += 1;
        watch.answered(start);
    }
    Ok(watch.done())
}

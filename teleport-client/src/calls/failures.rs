//! Failures of calls whose futures were dropped, until they are taken.

use std::collections::VecDeque;

use crate::error::call::CallError;

/// Later failures are only logged: a loop that never checks must not fill the memory.
const MAX_FAILURES: usize = 64;

#[derive(Debug)]
pub(crate) struct Failures {
    queue: VecDeque<CallError>,
    /// The next call reports a failure.
    from_next_call: bool,
}

impl Failures {
    pub(crate) fn new(from_next_call: bool) -> Failures {
        Failures { queue: VecDeque::new(), from_next_call }
    }

    /// Keeps a failure. Returns false if there are too many already.
    pub(crate) fn report(&mut self, error: CallError) -> bool {
        let has_room = self.queue.len() < MAX_FAILURES;
        if has_room {
            self.queue.push_back(error);
        }
        has_room
    }

    /// Takes the oldest failure.
    pub(crate) fn take(&mut self) -> Option<CallError> {
        self.queue.pop_front()
    }

    /// Returns true if the next call must report a failure.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.from_next_call && !self.queue.is_empty()
    }

    /// Takes the oldest failure, if the next call must report it.
    pub(crate) fn take_for_next_call(&mut self) -> Option<CallError> {
        if self.from_next_call { self.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

    #[test]
    fn failures_are_kept_in_order_and_bounded() {
        let mut failures = Failures::new(false);
        let failure = |at: usize| {
            CallError::remote("act".into(), RemoteError::new(ErrorKind::Failed, Ran::Yes, at.to_string()))
        };
        assert!((0..MAX_FAILURES).all(|at| failures.report(failure(at))));
        assert!(!failures.report(failure(MAX_FAILURES)));
        assert_eq!(failures.take().unwrap().to_string(), "act: failed: 0");
        assert_eq!(failures.take().unwrap().to_string(), "act: failed: 1");
    }
}

//! Compares the metadata of a call with metadata that was decoded before.
//!
//! Most calls repeat an earlier one except for their payload and deadline. A receiver that keeps a decoded
//! body needs only these comparisons for the next one.

use std::ops::Range;
use std::time::Duration;

use crate::format::metadata::CallMetadata;

/// The place of the deadline in the body of a call.
const DEADLINE: Range<usize> = 16..24;

impl CallMetadata<'_> {
    /// Returns true if `body` is that of a call which differs from the `known` one by its deadline at most.
    /// Then it is as valid as that one.
    #[inline]
    pub fn repeats(known: &[u8], body: &[u8]) -> bool {
        const FIXED_BYTES: usize = DEADLINE.end;
        let parts = (known.split_first_chunk::<FIXED_BYTES>(), body.split_first_chunk::<FIXED_BYTES>());
        let (Some((known, known_names)), Some((body, names))) = parts else { return false };
        known[..DEADLINE.start] == body[..DEADLINE.start] && known_names == names
    }

    /// Returns true if both valid bodies of calls have the same deadline, or none.
    #[inline]
    pub fn has_same_deadline(known: &[u8], body: &[u8]) -> bool {
        known.get(DEADLINE) == body.get(DEADLINE)
    }

    /// Returns the deadline in the valid body of a call, or `None` if it has none.
    #[inline]
    pub fn deadline_of(body: &[u8]) -> Option<Duration> {
        let micros = body.get(DEADLINE).and_then(|bytes| bytes.first_chunk());
        micros.map(|bytes| u64::from_le_bytes(*bytes)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallHead, Limits, Message, tree};

    #[test]
    fn calls_that_differ_by_their_deadline_repeat_each_other() {
        let body = |method: &str, deadline: Option<u64>, value: i64, idempotent: bool| {
            let deadline = deadline.map(Duration::from_micros);
            let head = CallHead { deadline, idempotent, ..CallHead::new(method) };
            Message::call(&head, &tree!({"x": value}), &Limits::default()).unwrap().metadata().to_vec()
        };
        let known = body("m", None, 1, false);
        assert_eq!(CallMetadata::deadline_of(&known), None);
        for micros in [1, 1 << 40, u64::MAX] {
            let other = body("m", Some(micros), 2, false);
            assert!(CallMetadata::repeats(&known, &other));
            assert!(!CallMetadata::has_same_deadline(&known, &other));
            assert!(CallMetadata::has_same_deadline(&other, &body("n", Some(micros), 1, true)));
            assert_eq!(
                CallMetadata::deadline_of(&other),
                CallMetadata::decode(&other).unwrap().head.deadline
            );
        }
        assert!(!CallMetadata::repeats(&known, &body("n", None, 1, false)));
        assert!(!CallMetadata::repeats(&known, &body("m", None, 1, true)));
        let changes = |at: usize| {
            let mut other = known.clone();
            other[at] ^= 1;
            !CallMetadata::repeats(&known, &other)
        };
        assert!((0..known.len()).all(|at| changes(at) != (16..24).contains(&at)));
        assert!((0..known.len()).all(|end| !CallMetadata::repeats(&known, &known[..end])));
    }
}

//! One call in the table of calls.

use crate::memory::budget::Charge;
use crate::protocol::send::payload::Payload;

/// The progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) enum Progress {
    /// On a client: nothing of it was staged, so the peer cannot know it. In an entry, this is the state of
    /// every call that was queued: see [`Call::progress`].
    Queued,
    /// On a client: its head was staged, but not all of its payload.
    Begun,
    /// On a client: it was staged completely.
    Sent,
    /// On a client: the head of its result arrived, but not all of its payload.
    Receiving,
    /// On a client: it ended with an abort, and no answer to it has arrived.
    Withdrawn,
    /// On a server: it has no answer.
    Unanswered,
    /// On a server: it has an answer that is not written completely.
    Answered,
}

/// One call in the table.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) progress: Progress,
    /// False once its caller was informed of a failure: a later answer is dropped.
    pub(super) is_awaited: bool,
    /// The peer has acknowledged the complete call.
    pub(super) is_acknowledged: bool,
    /// It was dropped before any of it was staged.
    pub(super) is_never_sent: bool,
    /// The payload of the call or of its answer, until it is written completely.
    pub(super) rest: Option<Box<Payload>>,
    /// The memory for its names, shapes and nodes, until it is answered.
    pub(super) structure_bytes: u64,
    /// Pays for a large structure.
    pub(super) structure_charge: Option<Box<Charge>>,
}

// A call goes through the table at each end, so entries are small.
const _: () = assert!(size_of::<Call>() <= 32);

impl Call {
    pub(super) fn new(progress: Progress) -> Call {
        Call {
            progress,
            is_awaited: true,
            is_acknowledged: false,
            is_never_sent: false,
            rest: None,
            structure_bytes: 0,
            structure_charge: None,
        }
    }

    /// Returns the progress of call `id`. Calls of this connection are begun up to `last_begun_id`.
    pub(super) fn progress(&self, id: u64, last_begun_id: u64) -> Progress {
        match (self.progress, &self.rest) {
            (Progress::Queued, _) if self.is_never_sent || id > last_begun_id => Progress::Queued,
            (Progress::Queued, Some(_)) => Progress::Begun,
            (Progress::Queued, None) => Progress::Sent,
            (progress, _) => progress,
        }
    }
}

//! The destination of a call's answer.
//!
//! Borrowed: a call that runs as soon as it arrives is answered without an object of its own. Never waits.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::Link;
use teleport_transport::protocol::SendError;
use teleport_transport::wire::{Draft, EncodeError, Message, RemoteError, Tree};

use crate::call::caller::Caller;
use crate::call::open_call::OpenCall;
use crate::call::route::MethodInfo;
use crate::runtime::counters::Counted;
use crate::runtime::shared::Shared;
use crate::session::session::Session;

/// The destination of a call's answer, and what its failure is reported with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyTo<'a> {
    pub(crate) id: u64,
    /// The link on which the call arrived.
    pub(crate) link: &'a Arc<Link>,
    pub(crate) caller: &'a Arc<Caller>,
    /// The session that keeps the answer, if the call survives its connection.
    pub(crate) session: Option<&'a Arc<Session<OpenCall>>>,
    pub(crate) method: &'a MethodInfo,
}

impl ReplyTo<'_> {
    pub(crate) fn shared(&self) -> &Shared {
        &self.caller.shared
    }

    /// Calls `function` with the link for the answer. Returns `None` while the client has no connection.
    fn with_link<T>(&self, function: impl FnOnce(&Arc<Link>) -> T) -> Option<T> {
        match self.session {
            None => Some(function(self.link)),
            Some(session) => session.link().map(|link| function(&link)),
        }
    }

    /// Returns true if the answer would wait for a long time before it is sent.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        // Without a connection the answer is kept for the next one.
        self.with_link(|link| self.caller.slow_reader.is_slow(link, now)).unwrap_or(true)
    }

    /// Returns true if the client has left too many results unfetched for a call to start that has just
    /// arrived.
    pub(crate) fn is_past_quota(&self) -> bool {
        self.shared().is_past_quota(self.link.unsent_bytes())
    }

    /// Returns the key of the client's link if the client has left too many results unfetched for another
    /// call to start.
    ///
    /// A client without a connection fetches nothing, and answers that are kept for it have their own bound.
    /// `Dispatcher::release` is called for this link when half of the quota is free, so that not each sent
    /// chunk starts one call, or when the link ends.
    pub(crate) fn throttled_by(&self) -> Option<usize> {
        let throttled_by = self.with_link(|link| {
            let (shared, unsent) = (self.shared(), link.unsent_bytes());
            if !shared.is_past_quota(unsent) {
                return None;
            }
            link.await_drain(shared.quota(unsent).half());
            link.closed().is_none().then(|| link.key())
        });
        throttled_by.flatten()
    }

    /// Encodes and sends a result. Only the first answer of a call is sent.
    ///
    /// # Errors
    /// Fails if the client would refuse the result.
    #[inline]
    pub(crate) fn result(&self, tree: &Tree) -> Result<(), EncodeError> {
        let draft = Draft::result(tree, &self.caller.limits);
        // A session keeps the message.
        if self.session.is_none() {
            let counters = self.shared().counters.here();
            counters.add(Counted::Answered);
            let Err(error) = self.link.encode_answer(self.id, &draft) else { return Ok(()) };
            counters.take_back(Counted::Answered);
            // The connection is over, or the call was answered or withdrawn before.
            if error != SendError::Unencoded {
                return Ok(());
            }
        }
        self.answer(draft.encode()?);
        Ok(())
    }

    /// Sends a result. Only the first answer of a call is sent.
    pub(crate) fn answer(&self, message: Message) {
        self.send(message, Counted::Answered);
    }

    /// Sends an error. Only the first answer of a call is sent.
    pub(crate) fn refuse(&self, error: &RemoteError) {
        self.send(Message::error(error), Counted::Failed);
    }

    fn send(&self, message: Message, counted: Counted) {
        let counters = self.shared().counters.here();
        // Before the answer, so that it is counted when the caller gets it.
        counters.add(counted);
        let is_wanted = match self.session {
            Some(session) => session.ended(self.id, message, self.link),
            None => self.link.answer(self.id, message).is_ok(),
        };
        // The connection is over, or the call was answered or withdrawn before.
        if !is_wanted {
            counters.take_back(counted);
        }
    }
}

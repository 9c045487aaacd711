//! Calls that survive their link: how a client and a server agree on what became of them.
//!
//! Flow: a link is lost -> [`call_states`](Link::call_states) says what the server can have -> on the next link
//! [`resume`](Link::resume) lists them -> the server [answers](Link::answer_resume), and [`call_again`](Link::call_again)
//! sends what it does not have. In between, both sides [`acknowledge`](Link::acknowledge) what they have whole.
//! Whatever is kept meanwhile, the layer above keeps. Never blocks.

use std::sync::Arc;

use teleport_wire::{CallAnswer, CallState, Message, Resume};

use super::Link;
use crate::memory::deferred_drop::DropScope;
use crate::protocol::SendError;

impl Link {
    /// Whether both sides can resume, and the client has a session. False before the peer's hello.
    pub fn resumes(&self) -> bool {
        self.outbound.lock().resumes()
    }

    /// Asks the server what became of a client's calls of earlier links; [`Handler::resumed`](super::Handler::resumed)
    /// gets the answer. Calls are refused with [`SendError::NotReady`] until then.
    ///
    /// # Errors
    /// Where one side cannot resume, or calls were made on this link already.
    pub fn resume(self: &Arc<Self>, resume: &Resume) -> Result<(), SendError> {
        self.outbound.lock().send_resume(resume)?;
        self.flush();
        Ok(())
    }

    /// Answers a client's resume, the same ids in the same order, and sends what is there of calls that are done. Those,
    /// and the ones that run, can be answered on this link from now on.
    ///
    /// # Errors
    /// If the link is over, or the ids are not those of the resume.
    pub fn answer_resume(
        self: &Arc<Self>,
        calls: Vec<(u64, CallAnswer)>,
        done: Vec<(u64, Message)>,
    ) -> Result<(), SendError> {
        let _bin = DropScope::enter();
        let mut outbound = self.outbound.lock();
        outbound.send_resume_answer(calls)?;
        // All before any is written, so that small ones go first.
        let mut done = done.into_iter();
        let queued = done.try_for_each(|(id, message)| self.queue_answer(&mut outbound, id, message));
        drop(outbound);
        self.flush();
        queued
    }

    /// Sends a client's call again under its old id, which the server said is missing: in the order of the ids, and before
    /// any new call.
    ///
    /// # Errors
    /// If the link is over.
    pub fn call_again(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        let _bin = DropScope::enter();
        self.outbound.lock().send_call_again(id, message)?;
        self.expect_answers();
        self.flush();
        Ok(())
    }

    /// Numbers a client's calls from above `id`, the last one of its earlier links.
    pub fn number_after(&self, id: u64) {
        self.outbound.lock().number_after(id);
    }

    /// What the server can know of each of a client's calls whose answer has not come whole. Does not change any more once
    /// [`Handler::closed`](super::Handler::closed) is called.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.outbound.lock().call_states()
    }

    /// Tells the peer that a call (on a server) or an answer (on a client) has come whole. For handlers, while they are told
    /// of what arrived: it goes out when they return.
    pub fn acknowledge(&self, id: u64) {
        self.outbound.lock().send_ack(id);
    }
}

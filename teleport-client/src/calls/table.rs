//! The one table of a client's calls: every call that was sent and has an outcome to come or to be read, by
//! its id.
//!
//! Flow of a call: `insert` (sent) -> `complete` (answered, or given up) -> `take` (its future reads the
//! outcome) or `release` (its future is dropped). A client never reuses an id, not even on later connections.
//! Bound: the client's slots, withdrawn calls up to the server's limit, and the outcomes that are not read.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

use teleport_transport::wire::{Id128, Resume};
use teleport_transport::{Answer, IdTable, Wakers, needs_wake};

use crate::calls::in_doubt::InDoubt;
use crate::calls::pending::{Outcome, PendingCall, Released, Request, Stage};

/// The result of asking for an outcome.
#[derive(Debug)]
pub(crate) enum Asked {
    Ready,
    /// There is no outcome yet.
    Pending {
        /// The id of a deferred result, which the caller must fetch.
        deferred: Option<u64>,
        /// An earlier waker, which is dropped without the lock.
        earlier: Option<Waker>,
    },
}

/// The values of a call whose future is dropped. The caller uses or drops them without the lock.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) outcome: Option<Outcome>,
    /// The id of a deferred result, which the caller must fetch.
    pub(crate) deferred: Option<u64>,
    pub(crate) waker: Option<Waker>,
}

#[derive(Debug, Default)]
pub(crate) struct CallTable {
    calls: IdTable<PendingCall>,
    counts: Counts,
    /// The current ids of calls that were sent to another server under a new id, by their first one. Bound:
    /// those calls.
    moved: BTreeMap<u64, u64>,
    /// The newest id of the client. Ids on the next connection are larger.
    last_id: u64,
    /// A call that survives its connection was sent, so the server may keep state of this client's session.
    has_session: bool,
    /// The server that the calls in doubt were sent to.
    pub(crate) server: Id128,
}

/// Invariant: the calls in each stage, and those with a waker.
#[derive(Debug, Default)]
struct Counts {
    sent: usize,
    withdrawn: usize,
    in_doubt: usize,
    waiting: usize,
}

impl Counts {
    fn of(&mut self, stage: &Stage) -> Option<&mut usize> {
        match stage {
            Stage::Sent => Some(&mut self.sent),
            Stage::Withdrawn => Some(&mut self.withdrawn),
            Stage::InDoubt(_) => Some(&mut self.in_doubt),
            Stage::Over => None,
        }
    }

    /// Changes the stage of a call. Returns the earlier one.
    fn change(&mut self, call: &mut PendingCall, stage: Stage) -> Stage {
        self.of(&stage).into_iter().for_each(|count| *count += 1);
        let before = std::mem::replace(&mut call.stage, stage);
        self.of(&before).into_iter().for_each(|count| *count -= 1);
        before
    }
}

impl CallTable {
    /// Adds a call that is sent on the current connection as `id`. Takes the arguments out of `request` if
    /// they may be sent again.
    #[inline]
    pub(crate) fn send(&mut self, id: u64, request: &mut Request) {
        self.last_id = self.last_id.max(id);
        self.has_session |= request.resumes;
        self.counts.sent += 1;
        self.calls.insert(id, PendingCall::new(request.method.clone(), id)).keep(request);
    }

    /// Returns the call `id`, if it has a slot.
    pub(crate) fn in_flight_call(&self, id: u64) -> Option<&PendingCall> {
        self.calls.get(id).filter(|call| call.is_in_flight())
    }

    /// Returns the call `id`, if it was sent on the current connection and its outcome is wanted.
    pub(crate) fn sent_mut(&mut self, id: u64) -> Option<&mut PendingCall> {
        self.calls.get_mut(id).filter(|call| matches!(call.stage, Stage::Sent))
    }

    /// Notes that the call `id` is being withdrawn because its time is over.
    pub(crate) fn time_is_over(&mut self, id: u64) {
        if let Some(deadline) = self.calls.get_mut(id).and_then(|call| call.deadline.as_mut()) {
            deadline.is_over = true;
        }
    }

    /// Returns the call `id`, and its state at the server, if that is in doubt.
    pub(crate) fn in_doubt(&self, id: u64) -> Option<(&PendingCall, &InDoubt)> {
        let call = self.calls.get(id)?;
        if let Stage::InDoubt(in_doubt) = &call.stage { Some((call, in_doubt)) } else { None }
    }

    /// Returns the calls without an outcome that have a slot, in the order of their ids.
    pub(crate) fn in_flight_calls(&self) -> impl Iterator<Item = (u64, &PendingCall)> {
        self.calls.iter().filter(|(_, call)| call.is_in_flight())
    }

    // ---- The connection ----

    /// Handles an answer, which it moves out of `answer`: an answer is large, and moves only once here.
    /// Returns true if the server keeps the answer until it is acknowledged, and `None` if no call waits for
    /// one.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        id: u64,
        answer: &mut Option<Answer>,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> Option<bool> {
        let call = self.calls.get_mut(id);
        let Some(call) = call.filter(|call| matches!(call.stage, Stage::Sent)) else {
            released.outcomes.extend(answer.take().and_then(Result::ok).map(Ok));
            return self.forget(id, released);
        };
        let (is_kept, first_id) = (call.resumes, call.first_id);
        call.stage = Stage::Over;
        self.counts.sent -= 1;
        if call.end(&mut self.counts.waiting, wakers, released) {
            match answer.take() {
                Some(Ok(reply)) => call.outcome = Some(Ok(reply)),
                Some(Err(error)) => call.outcome = Some(Err(call.remote(error))),
                None => {}
            }
        } else {
            let outcome = answer.take().map(|answer| answer.map_err(|error| call.remote(error)));
            released.outcomes.extend(outcome);
            self.remove(id, first_id);
        }
        Some(is_kept)
    }

    /// Ends a call that was sent or is in doubt, with the stage that follows. Its future gets the outcome.
    /// Does nothing if the call has ended.
    pub(crate) fn end(
        &mut self,
        id: u64,
        stage: Stage,
        outcome: Outcome,
        wakers: &mut Wakers,
        released: &mut Released,
    ) {
        let Some(call) = self.calls.get_mut(id).filter(|call| call.is_in_flight()) else { return };
        self.counts.change(call, stage);
        if call.end(&mut self.counts.waiting, wakers, released) {
            call.outcome = Some(outcome);
            return;
        }
        released.outcomes.push(outcome);
        self.remove_if_over(id);
    }

    /// Handles the end of a withdrawn call: its answer has arrived, or none will. Returns true if the server
    /// keeps the answer, and `None` if it is no withdrawn call.
    pub(crate) fn forget(&mut self, id: u64, released: &mut Released) -> Option<bool> {
        let call = self.calls.get_mut(id).filter(|call| matches!(call.stage, Stage::Withdrawn))?;
        let is_kept = call.resumes;
        self.counts.change(call, Stage::Over);
        released.drop_arguments(&mut call.arguments);
        self.remove_if_over(id);
        Some(is_kept)
    }

    /// Removes a call of which nobody needs anything.
    fn remove_if_over(&mut self, id: u64) {
        if let Some(call) = self.calls.get(id).filter(|call| call.is_over()) {
            let first_id = call.first_id;
            self.remove(id, first_id);
        }
    }

    /// Removes a call that is over. Its waker and its arguments are gone before.
    #[inline]
    fn remove(&mut self, id: u64, first_id: u64) {
        if first_id != id {
            self.moved.remove(&first_id);
        }
        self.calls.discard(id);
    }

    // ---- Between two connections ----

    /// Keeps a call that was sent until the next connection reports its state.
    pub(crate) fn put_in_doubt(&mut self, id: u64, in_doubt: InDoubt) {
        if let Some(call) = self.calls.get_mut(id) {
            self.counts.change(call, Stage::InDoubt(Box::new(in_doubt)));
        }
    }

    /// Continues a call in doubt on the current connection.
    pub(crate) fn go_on(&mut self, id: u64) {
        if let Some(call) = self.calls.get_mut(id) {
            self.counts.change(call, Stage::Sent);
        }
    }

    /// Continues a call in doubt as the new call `new_id`. Returns false if it has ended meanwhile.
    pub(crate) fn move_to(&mut self, id: u64, new_id: u64) -> bool {
        if self.in_doubt(id).is_none() {
            return false;
        }
        let Some(mut call) = self.calls.remove(id) else { return false };
        self.counts.change(&mut call, Stage::Sent);
        self.last_id = self.last_id.max(new_id);
        self.moved.insert(call.first_id, new_id);
        self.calls.insert(new_id, call);
        true
    }

    /// Expects the answer to a call that was given up and that the server still has.
    pub(crate) fn expect_unwanted(&mut self, id: u64) {
        match self.calls.get_mut(id) {
            Some(call) => drop(self.counts.change(call, Stage::Withdrawn)),
            None => {
                self.counts.withdrawn += 1;
                self.calls.insert(id, PendingCall::forgotten(id));
            }
        }
    }

    /// Forgets all withdrawn calls, whose answers arrive no more.
    pub(crate) fn forget_withdrawn(&mut self, released: &mut Released) {
        let is_withdrawn = |call: &PendingCall| matches!(call.stage, Stage::Withdrawn);
        let ids: Vec<_> =
            self.calls.iter().filter(|(_, call)| is_withdrawn(call)).map(|(id, _)| id).collect();
        for id in ids {
            self.forget(id, released);
        }
    }

    /// Returns the first message of the next connection, if the server may keep state of this client.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let in_doubt = |(id, call): (u64, &PendingCall)| match &call.stage {
            Stage::InDoubt(in_doubt) => Some((id, in_doubt.state)),
            _ => None,
        };
        let calls = self.calls.iter().filter_map(in_doubt).collect();
        self.has_session.then_some(Resume { server: self.server, calls })
    }

    // ---- Futures ----

    /// Returns the current id of the call whose first id is `first_id`.
    pub(crate) fn current_id(&self, first_id: u64) -> u64 {
        if self.moved.is_empty() { first_id } else { self.moved.get(&first_id).copied().unwrap_or(first_id) }
    }

    /// Moves the outcome of a call to `outcome`, which is `None`, for its future. If there is no outcome yet,
    /// `cx` is woken when it arrives, unless it polls again by itself.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        first_id: u64,
        cx: Option<&Context<'_>>,
        outcome: &mut Option<Outcome>,
    ) -> Asked {
        let id = self.current_id(first_id);
        let Some(call) = self.calls.get_mut(id).filter(|call| call.outcome.is_some()) else {
            return self.wait(id, cx);
        };
        *outcome = call.outcome.take();
        call.demand.release();
        if call.is_over() {
            let first_id = call.first_id;
            self.remove(id, first_id);
        }
        Asked::Ready
    }

    /// Does the same as `take`, but leaves the outcome there.
    pub(crate) fn ask(&mut self, first_id: u64, cx: Option<&Context<'_>>) -> Asked {
        let id = self.current_id(first_id);
        if self.calls.get(id).is_some_and(|call| call.outcome.is_some()) {
            return Asked::Ready;
        }
        self.wait(id, cx)
    }

    #[inline(never)]
    fn wait(&mut self, id: u64, cx: Option<&Context<'_>>) -> Asked {
        let Some(call) = self.calls.get_mut(id) else {
            return Asked::Pending { deferred: None, earlier: None };
        };
        let mut earlier = None;
        if let Some(waker) = cx.filter(|cx| needs_wake(cx)).map(Context::waker)
            && !call.waker.as_ref().is_some_and(|earlier| earlier.will_wake(waker))
        {
            earlier = call.waker.replace(waker.clone());
            self.counts.waiting += usize::from(earlier.is_none());
        }
        Asked::Pending { deferred: call.demand.ask().then_some(id), earlier }
    }

    /// Releases a call whose future is dropped.
    pub(crate) fn release(&mut self, first_id: u64) -> Left {
        let id = self.current_id(first_id);
        let Some(call) = self.calls.get_mut(id) else { return Left::default() };
        let waker = call.waker.take();
        self.counts.waiting -= usize::from(waker.is_some());
        let deferred = call.demand.release().then_some(id);
        let outcome = call.outcome.take();
        self.remove_if_over(id);
        Left { outcome, deferred, waker }
    }

    /// Returns true if a future waits for an outcome.
    pub(crate) fn has_waiter(&self) -> bool {
        self.counts.waiting > 0
    }

    /// Notes that the results of all calls are waited for. Returns those that are deferred, which the caller
    /// must fetch.
    pub(crate) fn ask_all(&mut self) -> Vec<u64> {
        let sent = self.calls.iter_mut().filter(|(_, call)| matches!(call.stage, Stage::Sent));
        sent.filter_map(|(id, call)| call.demand.ask().then_some(id)).collect()
    }

    /// Notes that deferred results are waited for that precede a call which has been waited for since the
    /// last check. Returns them: the caller must fetch them.
    pub(crate) fn ask_before_awaited(&mut self) -> Vec<u64> {
        let mut sent: Vec<_> =
            self.calls.iter_mut().filter(|(_, call)| matches!(call.stage, Stage::Sent)).collect();
        // Visits all of them, since each check counts for the next one.
        let newest = sent.iter_mut().filter_map(|(id, call)| call.demand.waits_long().then_some(*id)).max();
        let is_older = |id| newest.is_some_and(|newest| id < newest);
        let older = sent.into_iter().filter(|(id, call)| is_older(*id) && call.demand.is_deferred());
        older.filter_map(|(id, call)| call.demand.ask().then_some(id)).collect()
    }

    // ---- Numbers ----

    /// Returns the number of futures that have not read their outcome.
    pub(crate) fn futures(&self) -> usize {
        self.calls.iter().filter(|(_, call)| call.demand.has_future()).count()
    }

    /// Returns the number of calls without an outcome that a future waits for.
    pub(crate) fn in_flight_futures(&self) -> usize {
        self.in_flight_calls().filter(|(_, call)| call.demand.has_future()).count()
    }

    /// Returns the number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.counts.sent + self.counts.in_doubt
    }

    /// Returns the number of calls that are open at the server.
    pub(crate) fn open_at_server(&self) -> usize {
        self.counts.sent + self.counts.withdrawn
    }

    pub(crate) fn has_in_doubt(&self) -> bool {
        self.counts.in_doubt > 0
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }
}

#[cfg(test)]
mod tests;

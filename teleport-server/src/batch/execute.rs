//! One batch, from the worker that takes it to the answers of its calls.
//!
//! Flow: [`Batcher::take`] -> the memory is passed to the function -> it runs, with panics caught -> each
//! call gets its row of the result, as a copy if its client reads slowly -> logs. Never waits for a client.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use teleport_transport::Pool;
use teleport_transport::wire::{BatchResult, Buffer, ErrorKind, Message, Ran, RemoteError, Tree, TreeError};

use crate::api::error::{failed, misfit};
use crate::api::functions::context::Context;
use crate::api::functions::list::ErasedList;
use crate::api::functions::method::{Body, Purpose};
use crate::batch::assemble::{Assembled, Input};
use crate::batch::batcher::Batcher;
use crate::batch::plan::ids::GroupId;
use crate::batch::plan::select::CloseDecision;
use crate::call::job::BatchCalls;
use crate::call::open_call::OpenCall;
use crate::call::refusal::unsendable;
use crate::exec::done::{LogSlot, Logs};
use crate::exec::failures::{batch_failed, row_failed};
use crate::exec::run::run_function;
use crate::registry::Registry;

/// Runs the batch that is due, if one still is. `running` notes the calls before they run.
pub(crate) fn run(
    registry: &Registry,
    batcher: &Batcher,
    slot: Option<LogSlot>,
    running: impl FnOnce(&Arc<BatchCalls>),
) {
    let now = Instant::now();
    let batch = batcher.take(|call| match call.is_late(now) {
        true => CloseDecision::Late,
        false => call.reply().throttled_by().map_or(CloseDecision::Runs, CloseDecision::Throttled),
    });
    let Some(Assembled { group, calls, padded, input, leases }) = batch else { return };
    if calls.is_empty() {
        return batcher.finished(group, padded, None);
    }
    let calls = Arc::new(BatchCalls { calls, padded });
    let method = calls.calls[0].method();
    running(&calls);
    // From now on the memory belongs to the function, and the clients may send more.
    drop(leases);
    let run = Run { batcher, calls: &calls };
    let purpose = StackedCalls { calls: &calls, logs: Cell::new(None) };
    match (input, registry.function(method)) {
        (Err(error), _) => {
            batcher.finished(group, padded, None);
            calls.calls.iter().for_each(|call| call.refuse(&error));
        }
        (Ok(Input::Stacked(tree)), Body::Tree(function)) => run.answer_rows(run.time(group, || {
            let reply = function(tree, &purpose)?;
            BatchResult::new(&reply, calls.padded).map_err(|error| run.bad_result(&error))
        })),
        (Ok(Input::Listed(trees)), Body::List(function)) => run.run_list(group, function, trees),
        (Ok(_), _) => unreachable!("the registry gives list functions to list mode only"),
    }
    if let (Some(slot), Some(done), Some(tree)) = (slot, method.done, purpose.logs.take()) {
        slot.fill(Logs { done, tree });
    }
}

/// The calls of a batch whose function gets all of them stacked.
struct StackedCalls<'a> {
    calls: &'a Arc<BatchCalls>,
    /// Left by the function, if its method is logged.
    logs: Cell<Option<Tree>>,
}

impl Purpose for StackedCalls<'_> {
    fn context(&self) -> Context {
        Context::of_batch(self.calls.clone())
    }

    fn keep_logs(&self, logs: Tree) {
        self.logs.set(Some(logs));
    }
}

struct Run<'a> {
    batcher: &'a Batcher,
    calls: &'a Arc<BatchCalls>,
}

impl Run<'_> {
    /// Runs a function. Other batches may start once it has returned.
    fn time<T>(
        &self,
        group: GroupId,
        function: impl FnOnce() -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let BatchCalls { calls, padded } = &**self.calls;
        let start = Instant::now();
        let ran = run_function(&calls[0].shared().counters, calls.len(), |_running| function());
        self.batcher.finished(group, *padded, ran.is_ok().then(|| start.elapsed()));
        ran
    }

    /// Sends each call its row of the result.
    fn answer_rows(&self, ran: Result<BatchResult, RemoteError>) {
        let mut result = match ran {
            Ok(result) => result,
            Err(error) => return batch_failed(&self.calls.calls, error),
        };
        for_each_together(&self.calls.calls, |row, call| match result.row(row, &call.caller.limits) {
            Ok(message) => call.reply().answer(self.detached(message, call)),
            Err(error) => row_failed(call, unsendable(&error)),
        });
    }

    /// Returns a row of the result, as a copy if it would keep the others' rows in memory for long.
    fn detached(&self, message: Message, call: &OpenCall) -> Message {
        let is_alone = self.calls.padded == 1;
        if is_alone || message.pieces().is_empty() || !call.reply().is_slow(Instant::now()) {
            return message;
        }
        // Without memory for a copy, the row itself is sent.
        let Ok(mut copy) = Pool::global().alloc(message.payload_bytes() as usize) else { return message };
        let Some(mut rest) = copy.get_mut() else { return message };
        for part in message.pieces() {
            let (slot, behind) = rest.split_at_mut(part.len());
            slot.copy_from_slice(part);
            rest = behind;
        }
        let mut start = 0;
        let part = |part: &Buffer| {
            start += part.len();
            copy.slice(start - part.len()..start)
        };
        let pieces = message.pieces().iter().map(part).collect();
        message.with_pieces(pieces)
    }

    fn bad_result(&self, error: &TreeError) -> RemoteError {
        let (rows, padded) = (self.calls.calls.len(), self.calls.padded);
        let padding =
            if padded > rows { format!(", {} of them padding", padded - rows) } else { String::new() };
        let text = format!("the function's result for a batch of {padded} rows{padding}: {error}");
        RemoteError::new(ErrorKind::Failed, Ran::Yes, text)
    }

    /// Runs a function in list mode, which has no logs.
    fn run_list(&self, group: GroupId, function: &ErasedList, trees: Vec<Tree>) {
        let mut fitting = None;
        let ran = self.time(group, || {
            let replies = function(trees, &mut |misfits| {
                let mut calls = Vec::with_capacity(misfits.len());
                for (call, error) in self.calls.calls.iter().zip(misfits) {
                    match error {
                        None => calls.push(call.clone()),
                        Some(error) => row_failed(call, misfit(&error)),
                    }
                }
                let padded = calls.len();
                let calls = fitting.insert(Arc::new(BatchCalls { calls, padded }));
                Context::of_batch(calls.clone())
            });
            Ok(replies?.into_iter().map(|reply| reply.map_err(|error| failed(&error))).map(Some).collect())
        });
        let calls = fitting.as_ref().unwrap_or(self.calls);
        let run = Run { calls, ..*self };
        run.answer_list(ran);
    }

    fn answer_list(&self, ran: Result<Vec<Option<Result<Tree, RemoteError>>>, RemoteError>) {
        let mut replies = match ran {
            Ok(replies) => replies,
            Err(error) => return batch_failed(&self.calls.calls, error),
        };
        for_each_together(&self.calls.calls, |row, call| {
            let Some(reply) = replies.get_mut(row).and_then(Option::take) else { return };
            match reply.map(|reply| Message::result(&reply, &call.caller.limits)) {
                Ok(Ok(message)) => call.reply().answer(message),
                Ok(Err(error)) => row_failed(call, unsendable(&error)),
                Err(error) => row_failed(call, error),
            }
        });
    }
}

/// Calls `answer` for each row. Rows of one connection follow each other, so that their answers are sent
/// together.
fn for_each_together(calls: &[Arc<OpenCall>], mut answer: impl FnMut(usize, &Arc<OpenCall>)) {
    let connection = |row: &usize| calls[*row].link.key();
    let mut rows: Vec<usize> = (0..calls.len()).collect();
    rows.sort_by_key(connection);
    for rows in rows.chunk_by(|one, next| connection(one) == connection(next)) {
        let _together = calls[rows[0]].link.answers_together();
        rows.iter().for_each(|row| answer(*row, &calls[*row]));
    }
}

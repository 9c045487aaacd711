//! The failures of functions: the caller gets the error, and so does the server's owner.

use std::sync::Arc;

use teleport_transport::wire::{ErrorKind, RemoteError};

use crate::api::error::ServeError;
use crate::call::open_call::OpenCall;
use crate::call::reply_to::ReplyTo;
use crate::runtime::shared::Shared;

/// Handles a function's failure for one call. `knows_cancelled` is true if the function knew that it should
/// give up.
pub(crate) fn function_failed(call: &ReplyTo<'_>, knows_cancelled: bool, error: RemoteError) {
    // A function that gave up because it was cancelled has not failed. One that did not know has.
    if error.kind == ErrorKind::Failed && knows_cancelled {
        let (method, caller) = (&*call.method.name, &call.caller.name);
        tracing::debug!(method, caller, "a cancelled call ended: {error}");
        return call.refuse(&error);
    }
    fail(call, 0, error);
}

/// Handles a function's failure for one call of a batch.
pub(crate) fn row_failed(call: &OpenCall, error: RemoteError) {
    function_failed(&call.reply(), call.knows_cancelled(), error);
}

/// Handles a function's failure for a whole batch: each caller gets the error, and the server's owner gets it
/// once.
pub(crate) fn batch_failed(calls: &[Arc<OpenCall>], error: RemoteError) {
    let Some((first, others)) = calls.split_first() else { return };
    for call in others {
        call.refuse(&error);
    }
    if error.kind == ErrorKind::Failed && calls.iter().all(|call| call.knows_cancelled()) {
        return first.refuse(&error);
    }
    fail(&first.reply(), others.len(), error);
}

/// Reports a failure that `call` had together with this number of `others`.
fn fail(call: &ReplyTo<'_>, others: usize, error: RemoteError) {
    // The caller made the mistake.
    if error.kind == ErrorKind::BadArguments {
        return call.refuse(&error);
    }
    let (shared, method, name) = (call.shared(), &*call.method.name, &call.caller.name);
    let caller = || match others {
        0 => name.clone(),
        others => format!("{name} and {others} others in its batch"),
    };
    if shared.log_limit.allows() {
        tracing::warn!(method, caller = caller(), "a call failed: {error}");
    }
    // Most failures find an earlier one, and are not noted.
    let failure = || ServeError::Function {
        method: method.to_owned(),
        caller: caller(),
        error: Box::new(error.clone()),
    };
    shared.note_failure(failure, || call.refuse(&error));
}

/// Handles the failure of a done function.
pub(crate) fn done_failed(shared: &Shared, method: &str, message: String) {
    if shared.log_limit.allows() {
        tracing::warn!(method, "a done function failed: {message}");
    }
    shared.note_failure(|| ServeError::Done { method: method.to_owned(), message }, || {});
}

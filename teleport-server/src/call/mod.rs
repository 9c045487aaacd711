//! One call, with its client and its method.

pub(crate) mod caller;
pub(crate) mod job;
pub(crate) mod open_call;
pub(crate) mod open_calls;
pub(crate) mod refusal;
pub(crate) mod reply_to;
pub(crate) mod route;
pub(crate) mod run_time;
pub(crate) mod slow_reader;

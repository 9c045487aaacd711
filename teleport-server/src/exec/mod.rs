//! One run of a function: its failures, its panics, and the logs that it leaves for a done function.

pub(crate) mod done;
pub(crate) mod failures;
pub(crate) mod panic;
pub(crate) mod run;

//! The processes between an owner and the process that it starts, and what they exchange.
//!
//! Flow: `start`, in the owner, sends a request -> the zygote forks a reaper -> the reaper forks, and `exec`
//! executes the program again -> `init` recognises that and calls `child`, which runs the function.

pub(crate) mod catch;
pub(crate) mod child;
pub(crate) mod control;
pub(crate) mod exec;
pub(crate) mod ids;
pub(crate) mod init;
pub(crate) mod outcome;
pub(crate) mod program;
pub(crate) mod reaper;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod start;
pub(crate) mod zygote;
pub(crate) mod zygote_handle;

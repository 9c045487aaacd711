//! The processes between an owner and the process that it starts, and what they exchange.

pub(crate) mod child;
pub(crate) mod control;
pub(crate) mod exec;
pub(crate) mod ids;
pub(crate) mod init;
pub(crate) mod program;
pub(crate) mod reaper;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod zygote;

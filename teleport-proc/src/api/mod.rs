//! The public types and functions: processes, threads, groups, channels, process ids and ports.

pub(crate) mod by_pid;
pub(crate) mod channel;
pub(crate) mod group;
pub(crate) mod member;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod running_group;
pub(crate) mod thread;

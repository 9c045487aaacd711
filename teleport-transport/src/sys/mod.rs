//! System calls. Only this module names nix and libc.
//!
//! Each function is one or two system calls that return an `io::Result`. The calling modules decide what they
//! are for. Everything here is safe to call.

mod event;
mod file;
mod memory;
mod net;

pub(crate) use event::{EventFlag, wait_for};
pub(crate) use file::DirectoryLock;
pub(crate) use memory::{HUGE_PAGE_BYTES, Memory, SMALL_PAGE_BYTES, number_cleared_by_fork};
pub(crate) use net::{
    connect_unix, connection_refused, is_absent_address, is_exhausted, is_listening, is_lost_connection,
    listen_tcp, peer_credentials, read_vectored, set_tcp_not_sent_low, shutdown, shutdown_write, tune_tcp,
    tune_unix, write_vectored,
};

#[cfg(test)]
pub(crate) mod tests;

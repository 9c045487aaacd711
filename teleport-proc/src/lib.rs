#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("teleport-proc needs Linux or another Unix system");

mod api;
mod cancel;
mod codec;
mod error;
mod failure;
mod supervise;
mod sys;
mod tree;

pub use api::by_pid::{kill_proc, kill_subprocs, proc_alive};
pub use api::channel::{Disconnected, Receiver, Sender, channel};
pub use api::group::Group;
pub use api::member::Member;
pub use api::port::{free_port, port_free};
pub use api::process::Process;
pub use api::thread::Thread;
pub use cancel::interrupt::{checkpoint, is_interruptible, is_killed, poll_killed, sleep};
pub use cancel::stop::Stop;
pub use codec::{Always, BoxError, Converted, Fallible, Message, Plain, Return};
pub use error::ProcError;
pub use failure::Failure;
pub use supervise::init::init;
pub use supervise::settings::Restart;
pub use sys::Exit;

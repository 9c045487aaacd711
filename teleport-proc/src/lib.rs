//! Processes that end when they should, with all that they have started.
//!
//! A [`Process`] runs a function in a process of its own, which executes this program again. The result or
//! error of the function comes back. Nothing that the process starts outlives it, and it does not outlive
//! its owner, however that ends.
//!
//! ```no_run
//! use teleport_proc::{BoxError, Process};
//!
//! fn square(x: i64) -> Result<i64, BoxError> {
//!     x.checked_mul(x).ok_or_else(|| format!("{x} is too large").into())
//! }
//!
//! fn main() -> Result<(), BoxError> {
//!     teleport_proc::init(); // first line: a process starts its function here and never returns
//!     let process = Process::new("square", square, 7);
//!     process.start()?;
//!     assert_eq!(process.join()?, 49);
//!     Ok(())
//! }
//! ```
//!
//! [`kill_proc`] ends a process by its id, with all that it has started. [`kill_subprocs`] ends all that
//! this process has started. Both use SIGTERM and then SIGKILL, and also end processes that start meanwhile.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::process::Command;
//! use std::time::Duration;
//!
//! let mut shell = Command::new("sh").args(["-c", "sleep 600 & sleep 600 & wait"]).spawn()?;
//! teleport_proc::kill_proc(shell.id(), Duration::ZERO)?; // the shell, and both processes that it started
//! assert!(!teleport_proc::proc_alive(shell.id()));
//! shell.wait()?; // as for every child process
//! # Ok(())
//! # }
//! ```

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
pub use api::restart::Restart;
pub use api::thread::Thread;
pub use cancel::interrupt::{checkpoint, is_interruptible, is_killed, poll_killed, sleep};
pub use cancel::stop::Stop;
pub use codec::{Always, BoxError, Converted, Fallible, Message, Plain, Return};
pub use error::ProcError;
pub use failure::Failure;
pub use supervise::init::init;
pub use sys::Exit;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

//! Processes that end when they should, with all that they have started.
//!
//! A [`Process`] runs a function in a process of its own, which executes this program again. What it returns, or fails with,
//! comes back, and nothing that it has started outlives it, nor does it outlive its owner, however that one ends.
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
//! [`kill_proc`] ends a process with all that it has started, [`kill_subprocs`] all that this process has started: first
//! with SIGTERM, then with SIGKILL, and also what starts while it goes on.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::process::Command;
//! use std::time::Duration;
//!
//! let mut shell = Command::new("sh").args(["-c", "sleep 600 & sleep 600 & wait"]).spawn()?;
//! teleport_proc::kill_proc(shell.id(), Duration::ZERO)?; // the shell, and both that it started
//! assert!(!teleport_proc::proc_alive(shell.id()));
//! shell.wait()?; // whoever starts a process waits for it, too
//! # Ok(())
//! # }
//! ```

#[cfg(not(unix))]
compile_error!("teleport-proc needs Linux or another Unix system");

mod by_pid;
mod cgroup;
mod channel;
mod child;
mod deadline;
mod error;
mod exit;
mod failure;
mod group;
mod guardian;
mod hunt;
mod init;
mod interrupt;
mod keeper;
mod message;
mod port;
mod process;
mod program;
mod request;
mod restart;
mod run;
mod stop;
mod sys;
mod thread;
mod wire;

pub use by_pid::{kill_proc, kill_subprocs, proc_alive};
pub use channel::{Disconnected, Receiver, Sender, channel};
pub use error::ProcError;
pub use exit::Exit;
pub use failure::Failure;
pub use group::{Group, Member};
pub use init::init;
pub use interrupt::{checkpoint, is_interruptible, is_killed, poll_killed, sleep};
pub use message::{Always, BoxError, Converted, Fallible, Message, Plain, Return};
pub use port::{free_port, port_free};
pub use process::Process;
pub use restart::Restart;
pub use stop::Stop;
pub use thread::Thread;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

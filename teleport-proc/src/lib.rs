//! Processes that end when they should.
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
mod error;
mod hunt;
mod port;
mod sys;

pub use by_pid::{kill_proc, kill_subprocs, proc_alive};
pub use error::ProcError;
pub use port::{free_port, port_free};

//! The example `serve` as a process, with its log and its memory use.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::memory::Memory;
use crate::program::{Ended, Program, example};

/// A running `serve`.
#[derive(Debug)]
pub struct Serve {
    program: Program,
    address: String,
}

impl Serve {
    /// Starts the server at `address` and waits until it listens.
    pub fn start(address: &str) -> Serve {
        Serve::with(address, &[])
    }

    /// Starts the server with more arguments.
    pub fn with(address: &str, arguments: &[&str]) -> Serve {
        Serve::of(Program::start("serve", &[&[address], arguments].concat()))
    }

    /// Starts the server in a process that may have at most `max_descriptors` open file descriptors.
    pub fn with_few_descriptors(address: &str, max_descriptors: usize) -> Serve {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &max_descriptors.to_string()]);
        shell.arg(example("serve")).arg(address);
        Serve::of(Program::spawn(shell))
    }

    fn of(mut program: Program) -> Serve {
        let line = program.line();
        let address =
            line.strip_prefix("listening at ").expect("the first line holds the address").to_owned();
        Serve { program, address }
    }

    /// Returns the address at which the server listens, with its real port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Returns the memory use of the process.
    pub fn memory(&self) -> Memory {
        Memory::of(self.program.id())
    }

    /// Kills the server by SIGKILL and waits until it has ended.
    pub fn kill(self) {
        self.program.signal(Signal::SIGKILL);
        self.program.wait();
    }

    /// Ends the server by SIGTERM, as a service manager does, and waits until it has ended.
    pub fn terminate(self) -> Ended {
        self.program.signal(Signal::SIGTERM);
        self.program.wait()
    }

    /// Ends the server as Ctrl-C does and waits until it has ended.
    pub fn interrupt(self) -> Ended {
        self.program.interrupt();
        self.program.wait()
    }

    /// Ends the server, checks that it succeeded, and returns the lines of its log without its start message.
    #[track_caller]
    pub fn log(self) -> Vec<String> {
        let Ended { status, errors, .. } = self.terminate();
        assert!(status.success(), "serve ended with {status}: {errors}");
        errors.lines().filter(|line| !line.contains(": serving address=")).map(str::to_owned).collect()
    }
}

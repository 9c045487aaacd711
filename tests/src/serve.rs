//! The example `serve` as a process, and what it did to its log and to its memory.

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
    /// Starts it at `address` and waits until it listens.
    pub fn start(address: &str) -> Serve {
        Serve::with(address, &[])
    }

    /// Starts it with more arguments.
    pub fn with(address: &str, arguments: &[&str]) -> Serve {
        Serve::of(Program::start("serve", &[&[address], arguments].concat()))
    }

    /// Starts it as a process that may have only so many descriptors.
    pub fn with_few_descriptors(address: &str, max_descriptors: usize) -> Serve {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &max_descriptors.to_string()]);
        shell.arg(example("serve")).arg(address);
        Serve::of(Program::spawn(shell))
    }

    fn of(mut program: Program) -> Serve {
        let line = program.line();
        let address = line.strip_prefix("listening at ").expect("it says where it listens").to_owned();
        Serve { program, address }
    }

    /// Where it really listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its memory.
    pub fn memory(&self) -> Memory {
        Memory::of(self.program.id())
    }

    /// Kills it without a chance to clean up, and waits until it is gone.
    pub fn kill(self) {
        self.program.signal(Signal::SIGKILL);
        self.program.wait();
    }

    /// Ends it as a service manager does and waits until it is gone.
    pub fn terminate(self) -> Ended {
        self.program.signal(Signal::SIGTERM);
        self.program.wait()
    }

    /// Does what Ctrl-C does, and waits until it is gone.
    pub fn interrupt(self) -> Ended {
        self.program.interrupt();
        self.program.wait()
    }

    /// Ends it, checks that it ended well, and gives the lines of its log, less the one that says that it serves.
    #[track_caller]
    pub fn log(self) -> Vec<String> {
        let Ended { status, errors, .. } = self.terminate();
        assert!(status.success(), "serve ended with {status}: {errors}");
        errors.lines().filter(|line| !line.contains(": serving address=")).map(str::to_owned).collect()
    }
}

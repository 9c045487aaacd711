//! The example `serve` as a process, and what it did to its log and to its memory.

use nix::sys::signal::Signal;

use crate::memory::Memory;
use crate::program::{Ended, Program};

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
        let mut program = Program::start("serve", &[&[address], arguments].concat());
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

//! Processes that this tool starts of itself, by hidden commands: servers and clients that are measured or disturbed.
//!
//! Flow: [`Child::start`] runs this program again -> lines both ways over pipes -> dropping it kills it. In the child,
//! [`follow_parent`] comes first. No child outlives its parent, however that ends, and even where the child is stopped:
//! the kernel kills it. Nothing here waits with a time-out; who needs one reads the lines on another thread.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::failure::Failure;
use crate::shell;

/// What runs here, also where its file was replaced meanwhile, as the tests of this package do when they are built.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A process with a command of this program. It ends when this is dropped, or when the thread that started it ends.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
    input: ChildStdin,
    /// None once somebody took it.
    output: Option<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with other arguments, of which the first is the command, and variables beside the usual ones.
    pub(crate) fn start<A: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
    ) -> Result<Child, Failure> {
        let mut command = Command::new(OWN_PROGRAM);
        command.args(arguments).envs(environment.iter().copied());
        Child::of(command)
    }

    /// Starts any program.
    pub(crate) fn of(mut command: Command) -> Result<Child, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = shell::line(&command);
        let mut process =
            command.spawn().map_err(|source| Failure::Start { command: name.clone(), source })?;
        let input = process.stdin.take().expect("it is piped");
        let output = process.stdout.take().map(BufReader::new);
        Ok(Child { name, process, input, output })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let output = self.output.as_mut().expect("nobody took its output");
        match output.read_line(&mut line) {
            Ok(0) => Err(Failure::Ended { process: self.name.clone() }),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(source) => Err(Failure::Start { command: self.name.clone(), source }),
        }
    }

    /// What it prints, for another thread to read. To be called once; `line` must not be called afterwards.
    pub(crate) fn take_output(&mut self) -> impl BufRead + Send + use<> {
        self.output.take().expect("it is taken once")
    }

    /// Sends a line to it.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let ended = |_| Failure::Ended { process: self.name.clone() };
        self.input.write_all(format!("{line}\n").as_bytes()).map_err(ended)
    }

    /// Sends a signal to it. One that has ended already does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), signal);
    }

    /// Sends a signal to it and to all that it has started, of one that leads a group of processes. Those that have ended already
    /// do not mind.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.process.id() as i32), signal);
    }

    /// Waits until it has ended; true if all was well.
    pub(crate) fn wait(mut self) -> Result<bool, Failure> {
        let status = self.process.wait();
        status
            .map(|status| status.success())
            .map_err(|source| Failure::Start { command: self.name.clone(), source })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// To be called first in a child: has it end with its parent.
///
/// A parent that ended before this is found out when standard input is read: it is at its end.
pub(crate) fn follow_parent() -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::bench)
}

/// What the parent tells; it ends with the parent.
pub(crate) fn commands() -> impl Iterator<Item = String> {
    io::stdin().lines().map_while(Result::ok)
}

/// Prints a line for the parent, at once.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Failure::bench)
}

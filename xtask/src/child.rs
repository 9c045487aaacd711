//! Child processes that run a hidden command of this program: the servers and clients to measure or disturb.
//!
//! Flow: [`Child::start`] runs this program again -> parent and child exchange lines over pipes -> dropping
//! the [`Child`] kills the process. A child calls [`follow_parent`] first, so the kernel kills it when its
//! parent ends, even while it is stopped. Nothing here waits with a timeout; a caller that needs one reads
//! the lines on another thread.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::failure::Failure;
use crate::shell;

/// The running program, even if its file was replaced in the meantime, as it is when the tests are built.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A process with a command of this program. It ends when this is dropped, or when the thread that started
/// it ends.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
    input: ChildStdin,
    /// `None` after [`Child::take_output`].
    output: Option<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with `arguments`, of which the first is the command, and adds `environment` to
    /// its environment.
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

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the next line that the child prints.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let output = self.output.as_mut().expect("nobody took its output");
        match output.read_line(&mut line) {
            Ok(0) => Err(Failure::Ended { process: self.name.clone() }),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(source) => Err(Failure::Start { command: self.name.clone(), source }),
        }
    }

    /// Returns the child's output, for another thread to read.
    ///
    /// # Panics
    /// If it is called twice; [`Child::line`] panics after it.
    pub(crate) fn take_output(&mut self) -> impl BufRead + Send + use<> {
        self.output.take().expect("the output is taken once")
    }

    /// Sends a line to the child.
    pub(crate) fn send_line(&mut self, line: &str) -> Result<(), Failure> {
        let ended = |_| Failure::Ended { process: self.name.clone() };
        self.input.write_all(format!("{line}\n").as_bytes()).map_err(ended)
    }

    /// Sends a signal to the child. Does nothing if it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), signal);
    }

    /// Sends a signal to the process group that the child leads. Does nothing if all of it has ended.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.process.id() as i32), signal);
    }

    /// Waits until the child has ended. Returns true if it succeeded.
    pub(crate) fn wait(mut self) -> Result<bool, Failure> {
        let status = self.process.wait();
        status
            .map(|status| status.success())
            .map_err(|source| Failure::Start { command: self.name.clone(), source })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes the kernel end this process with its parent. A child calls this first.
///
/// If the parent has ended before this call, the child reads the end of its standard input.
pub(crate) fn follow_parent() -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::bench)
}

/// Returns the lines that the parent sends. They end when the parent ends.
pub(crate) fn commands() -> impl Iterator<Item = String> {
    io::stdin().lines().map_while(Result::ok)
}

/// Prints a line for the parent and flushes it.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Failure::bench)
}

//! What the examples share: errors for people, a child process that ends with its parent, log lines on standard error.

#![allow(dead_code, reason = "each example uses a part")]

use std::io::{self, BufRead, BufReader, IsTerminal};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};

use teleport::BoxError;

/// Ends the program: with the error as a person wants to read it, if there is one.
pub(crate) fn exit(result: Result<(), BoxError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program, started again with other arguments. It ends when this is dropped, or when this process ends, however
/// that happens: its standard input closes then, which `end_with_parent` waits for.
pub(crate) struct Again {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Again {
    /// Starts this program with `arguments`.
    pub(crate) fn start(arguments: &[&str]) -> Result<Again, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the child's output is piped")?;
        Ok(Again { child, output: BufReader::new(output) })
    }

    /// The next line that the child prints.
    pub(crate) fn line(&mut self) -> Result<String, BoxError> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err("a child process ended before it was done".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Waits until the child has ended by itself, which it does when its work is done.
    pub(crate) fn wait(mut self) -> Result<(), BoxError> {
        // `Child::wait` would close it first, which asks the child to end.
        let input = self.child.stdin.take();
        let status = self.child.wait()?;
        drop(input);
        success(status)
    }

    /// Asks the child to end and waits until it has.
    pub(crate) fn end(mut self) -> Result<(), BoxError> {
        drop(self.child.stdin.take());
        success(self.child.wait()?)
    }
}

fn success(status: ExitStatus) -> Result<(), BoxError> {
    if status.success() { Ok(()) } else { Err(format!("a child process ended with {status}").into()) }
}

impl Drop for Again {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // An error means that it has ended and was waited for.
        let _ = self.child.wait();
    }
}

/// In a child: calls `end` when the parent has dropped its handle or has ended.
pub(crate) fn end_with_parent(end: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        // Nothing is ever written: this returns when the other end closes.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        end();
    });
}

/// Shows what the library logs, on standard error.
pub(crate) fn show_logs() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
}

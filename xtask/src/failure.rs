//! The reasons for which a command of this tool fails.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// The reason why a command failed. Its text is the last line that the developer sees.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program failed; it has printed the reason itself.
    #[error("`{command}` failed ({status})")]
    Command { command: String, status: ExitStatus },
    /// A program could not be started.
    #[error("`{command}` could not be started: {source}")]
    Start { command: String, source: io::Error },
    /// This tool cannot read the output of a program.
    #[error("cannot read the output of `{command}`: {problem}")]
    Output { command: String, problem: String },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A source file is not Rust.
    #[error("{}:{line}: cannot parse this file: {problem}", path.display())]
    Syntax { path: PathBuf, line: usize, problem: String },
    /// A rule of the project is broken; each line names the place and the remedy.
    #[error("{rule} is broken in {} place(s):\n  {}", places.len(), places.join("\n  "))]
    Rule { rule: &'static str, places: Vec<String> },
    /// CI changed tracked files or left new ones, so it has not tested what is committed.
    #[error("the working tree is not clean in CI (is Cargo.lock committed up to date?):\n{files}")]
    Dirty { files: String },
    /// The named fuzz target does not exist.
    #[error("there is no fuzz target `{name}`; the targets are: {}", known.join(", "))]
    UnknownTarget { name: String, known: Vec<String> },
    /// A filter that must match tests matched none.
    #[error("no test matched `{filter}`, so nothing was checked")]
    NoTests { filter: String },
    /// Some tests failed in some round of a soak.
    #[error("{failed} test(s) failed at least once; their output is in {}", logs.display())]
    Flaky { failed: usize, logs: PathBuf },
    /// A process that this tool still needs has ended.
    #[error("`{process}` ended too early")]
    Ended { process: String },
    /// A server or a client misbehaved in a churn.
    #[error("the churn found {} problem(s):\n  {}", problems.len(), problems.join("\n  "))]
    Soak { problems: Vec<String> },
    /// A benchmark could not be run.
    #[error("cannot measure: {0}")]
    Bench(Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    /// Wraps any error of a benchmark, for `map_err`.
    pub(crate) fn bench(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Failure::Bench(source.into())
    }

    /// Wraps an error of a file operation, for `map_err`.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Failure::File { path: path.to_path_buf(), source }
    }

    /// Returns [`Failure::Rule`] if there is any place, otherwise `detail`.
    pub(crate) fn unless_empty(
        rule: &'static str,
        places: Vec<String>,
        detail: String,
    ) -> Result<String, Failure> {
        if places.is_empty() { Ok(detail) } else { Err(Failure::Rule { rule, places }) }
    }
}

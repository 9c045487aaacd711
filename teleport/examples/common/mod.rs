//! What the examples share: errors for people, and log lines on standard error.

#![allow(dead_code, reason = "each example uses a part")]

use std::io::{self, IsTerminal};
use std::process::ExitCode;

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

/// Shows what the library logs, on standard error.
pub(crate) fn show_logs() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
}

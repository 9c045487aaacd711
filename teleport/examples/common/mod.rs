//! Shared by the examples: errors for people, and log lines on standard error.

#![allow(dead_code, reason = "each example uses a part")]

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use teleport::BoxError;

/// Ends the program, and prints the error if there is one.
pub(crate) fn exit(result: Result<(), BoxError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows the log of the library on standard error.
pub(crate) fn show_logs() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
}

//! The project's own commands, as `cargo xtask <command>`.
//!
//! Each command is one module with its options and a function `run`. The commands call cargo and read the
//! sources; users never build this crate.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod child;
mod ci;
mod cores;
mod counts;
mod failure;
mod fuzz;
mod layers;
mod links;
mod loom;
mod miri;
mod nightly;
mod package;
mod python;
mod shell;
mod soak;
mod tsan;
mod usage;
mod workspace;

use failure::Failure;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
    #[command(hide = true)]
    BenchClient(bench::ContenderOptions),
    #[command(hide = true)]
    BenchIdle(bench::PartyOptions),
    #[command(hide = true)]
    BenchServe(bench::ContenderOptions),
    Ci(ci::Options),
    Counts(counts::Options),
    #[command(hide = true)]
    CountsParty(counts::PartyOptions),
    Fuzz(fuzz::Options),
    Soak(soak::Options),
    #[command(hide = true)]
    SoakClient(soak::ClientOptions),
    #[command(hide = true)]
    SoakServer(soak::ServerOptions),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nerror: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Bench(options) => bench::run(&options),
        Command::BenchClient(options) => bench::run_client(&options),
        Command::BenchIdle(options) => bench::run_party(&options),
        Command::BenchServe(options) => bench::run_server(&options),
        Command::Ci(options) => ci::run(&options),
        Command::Counts(options) => counts::run(&options),
        Command::CountsParty(options) => counts::run_party(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::SoakClient(options) => soak::run_client(&options),
        Command::SoakServer(options) => soak::run_server(&options),
    }
}

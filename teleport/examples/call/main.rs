//! Calls a method of a server with arrays from NumPy files:
//!
//! `cargo run --release --example call -- tcp://host:2222 add foo.npy bar.npy --save sum.npy`
//!
//! The arguments become one dict. The key of a file is its name without `.npy`, or a key of your choice
//! (`foo=x.npy`). Numbers and texts are `key=value` (`sleep seconds=1.5`, `fail message=no`).

#[path = "../common/mod.rs"]
mod common;
mod npy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use teleport::{BoxError, Client, Dict, Tree};

/// Call METHOD at ADDRESS with arrays from .npy files, and show the result.
#[derive(Parser)]
struct Options {
    /// Address of the server: tcp://host:2222, ipc:///path, ipc://@name
    address: String,
    /// Method to call
    method: String,
    /// FILE.npy, KEY=FILE.npy, KEY=NUMBER or KEY=TEXT
    arguments: Vec<String>,
    /// Write the result, which must be one array, to this .npy file
    #[arg(long, value_name = "FILE.npy")]
    save: Option<PathBuf>,
    /// How long to wait for the server, in seconds
    #[arg(long, default_value_t = 10.0)]
    connect_timeout: f64,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let options = Options::parse();
    let mut dict = Dict::new();
    for argument in &options.arguments {
        let (key, value) = parse(argument)?;
        if dict.insert(key.as_str(), value).is_some() {
            return Err(format!("two arguments are called {key}; name one otherwise: KEY={argument}").into());
        }
    }
    let timeout = Duration::try_from_secs_f64(options.connect_timeout)?;
    let client = Client::builder(&options.address).name("call").connect_timeout(timeout).connect()?;
    let start = Instant::now();
    let result = client.call(options.method.as_str(), Tree::Dict(dict)).wait()?;
    eprintln!("{} answered in {:.1?}", options.method, start.elapsed());
    println!("{result}");
    if let Some(path) = &options.save {
        let array = npy::only_array(&result)?;
        npy::write(path, array)?;
        eprintln!("saved {} {:?} to {}", array.dtype(), array.shape(), path.display());
    }
    Ok(())
}

/// Parses an argument into its key and value.
fn parse(argument: &str) -> Result<(String, Tree), BoxError> {
    let (key, value) = match argument.split_once('=') {
        Some((key, value)) => (key.to_owned(), value),
        None => (stem(argument)?, argument),
    };
    let tree = if value.ends_with(".npy") {
        npy::read(Path::new(value))?.into()
    } else if let Ok(number) = value.parse::<i64>() {
        teleport::tree!(number)
    } else if let Ok(number) = value.parse::<f64>() {
        teleport::tree!(number)
    } else {
        teleport::tree!(value)
    };
    Ok((key, tree))
}

fn stem(file: &str) -> Result<String, BoxError> {
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
    match stem {
        Some(stem) if file.ends_with(".npy") => Ok(stem.to_owned()),
        _ => Err(format!("{file} is neither FILE.npy nor KEY=VALUE").into()),
    }
}

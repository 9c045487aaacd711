//! Other libraries as contenders of `cargo xtask bench --peers`: `serve NAME ADDRESS` and `client NAME
//! ADDRESS`.
//!
//! Flow: a command -> the module of that library, which speaks the benchmark's `protocol`. Addresses are
//! `tcp://HOST:PORT`, where port 0 means any free port, and `ipc://@NAME`, an abstract Unix socket. A
//! process ends with its parent. Each library is a feature, so that the others can be built if one cannot.

#[cfg(feature = "asynchronous")]
mod asynchronous;
#[cfg(any(feature = "zmq", feature = "nng"))]
mod blocking;
#[cfg(feature = "connectrpc")]
mod connectrpc;
#[cfg(feature = "nng")]
mod nng;
#[path = "../../src/bench/protocol.rs"]
mod protocol;
mod rounds;
#[cfg(feature = "tarpc")]
mod tarpc;
#[cfg(feature = "tonic")]
mod tonic;
#[cfg(feature = "zenoh")]
mod zenoh;
#[cfg(feature = "zmq")]
mod zmq;

use std::error::Error;
use std::process::ExitCode;

use nix::sys::signal::Signal;

/// The error of all peers.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    match words {
        #[cfg(feature = "zmq")]
        ["serve", "zmq", address] => zmq::serve(address),
        #[cfg(feature = "zmq")]
        ["client", "zmq", address] => zmq::client(address),
        #[cfg(feature = "nng")]
        ["serve", "nng", address] => nng::serve(address),
        #[cfg(feature = "nng")]
        ["client", "nng", address] => nng::client(address),
        #[cfg(feature = "tonic")]
        ["serve", "tonic", address] => tonic::serve(address),
        #[cfg(feature = "tonic")]
        ["client", "tonic", address] => tonic::client(address),
        #[cfg(feature = "tarpc")]
        ["serve", "tarpc", address] => tarpc::serve(address),
        #[cfg(feature = "tarpc")]
        ["client", "tarpc", address] => tarpc::client(address),
        #[cfg(feature = "connectrpc")]
        ["serve", "connectrpc", address] => connectrpc::serve(address),
        #[cfg(feature = "connectrpc")]
        ["client", "connectrpc", address] => connectrpc::client(address),
        #[cfg(feature = "zenoh")]
        ["serve", "zenoh", address] => zenoh::serve(address),
        #[cfg(feature = "zenoh")]
        ["client", "zenoh", address] => zenoh::client(address),
        ["serve" | "client", name, _] => Err(format!("`{name}` was not built in").into()),
        _ => Err("peers serve|client NAME ADDRESS".into()),
    }
}

//! `cargo xtask bench --serve ADDRESS`: starts servers for a `bench --connect ADDRESS` on another machine.
//!
//! Flow: a connection -> `serve NAME PLACEMENT` -> a server of that contender, on a port that the system
//! chooses -> `ready PORT` -> the server ends with the connection. It starts only the contenders that it was
//! made with. It does not authenticate its callers, so it must run in a trusted network.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::contender::Contender;
use super::pair::{Process, Program};
use super::placement::Placement;
use crate::failure::Failure;

/// Serves until the process is ended. `address` is `HOST:PORT`, with or without `tcp://`.
pub(super) fn serve(address: &str, peers: Vec<Program>) -> Result<(), Failure> {
    let listener = TcpListener::bind(plain(address)).map_err(Failure::bench)?;
    let address = listener.local_addr().map_err(Failure::bench)?;
    let own: Result<Vec<Program>, Failure> = Contender::ALL.into_iter().map(Program::own).collect();
    let programs: Arc<Vec<Program>> = Arc::new(own?.into_iter().chain(peers).collect());
    println!("serving; measure from elsewhere with `cargo xtask bench --connect {address}`");
    for stream in listener.incoming() {
        let (stream, programs) = (stream.map_err(Failure::bench)?, programs.clone());
        let data_address = format!("tcp://{}", std::net::SocketAddr::new(address.ip(), 0));
        // A server ends with the thread that started it.
        thread::spawn(move || {
            if let Err(failure) = attend(&stream, &programs, &data_address) {
                // The caller waits for a line.
                let _ = writeln!(&stream, "failed {failure}");
                eprintln!("{failure}");
            }
        });
    }
    Ok(())
}

/// Returns `HOST:PORT` of an address.
pub(super) fn plain(address: &str) -> &str {
    address.strip_prefix("tcp://").unwrap_or(address)
}

/// Runs one server until its connection ends.
fn attend(mut stream: &TcpStream, programs: &[Program], data_address: &str) -> Result<(), Failure> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next().unwrap_or_else(|| Ok(String::new())).map_err(Failure::bench)?;
    let (program, placement) = asked_for(&line, programs)?;
    let (_server, address): (Process, String) = program.start_server(placement, data_address)?;
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    writeln!(stream, "ready {port}").map_err(Failure::bench)?;
    // The caller sends nothing more, so this waits for the end of the connection.
    lines.take_while(io::Result::is_ok).for_each(drop);
    Ok(())
}

fn asked_for<'a>(line: &str, programs: &'a [Program]) -> Result<(&'a Program, Placement), Failure> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "serve");
    let (name, placement) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let program = programs.iter().find(|program| program.name == name);
    match (program, Placement::of_name(placement)) {
        (Some(program), Some(placement)) => Ok((program, placement)),
        (None, _) => {
            Err(Failure::bench(format!("no contender `{name}` here; peers need --peers on both sides")))
        }
        (_, None) => Err(Failure::bench(format!("no placement `{placement}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_contenders_are_served() {
        let programs = [Program::own(Contender::Raw).unwrap()];
        let (program, placement) = asked_for("serve raw two-cores", &programs).unwrap();
        assert_eq!((program.name.as_str(), placement), ("raw", Placement::TwoCores));
        for line in ["", "serve", "serve sh two-cores", "serve raw", "serve raw moon"] {
            assert!(asked_for(line, &programs).is_err(), "{line}");
        }
    }
}

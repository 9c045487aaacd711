//! A running contender: its server, here or on another machine, and its clients, each in its own process.
//!
//! Flow: [`Program`] -> [`Pair::start`] -> one [`Round`] at a time -> [`Sample`]. Dropping a pair ends its
//! processes. Between its rounds, the processes of a pair on this machine are stopped, because some
//! libraries are busy while they wait, and would take time from the contender that is measured. A thread per
//! process reads its lines, so that a contender that hangs is given up after [`MAX_WAIT`].

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::contender::Contender;
use super::peers::{Part, Peer};
use super::placement::{Placement, Side};
use super::protocol::{self, Answer, Round};
use crate::child::Child;
use crate::failure::Failure;

/// A contender that prints nothing for this time hangs. The longest round takes a few seconds.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The commands that start a contender.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The name for `bench --serve`.
    pub(super) name: String,
    /// Program and arguments; the address follows.
    server: Vec<String>,
    client: Vec<String>,
    /// The placement in all rows, or `None` for that of the row.
    placement: Option<Placement>,
    pub(super) part: Part,
}

impl Program {
    /// Returns the commands of a contender in this program.
    pub(super) fn own(contender: Contender) -> Result<Program, Failure> {
        let program: PathBuf = std::env::current_exe().map_err(Failure::bench)?;
        let words = |command: &str| {
            vec![program.to_string_lossy().into_owned(), command.to_owned(), contender.name().to_owned()]
        };
        Ok(Program {
            name: contender.name().to_owned(),
            server: words("bench-serve"),
            client: words("bench-client"),
            placement: None,
            part: Part::Usual,
        })
    }

    pub(super) fn peer(peer: &Peer) -> Program {
        let Peer { name, server, client, placement, part } = peer.clone();
        Program { name, server, client, placement, part }
    }

    /// Starts a server with this placement, and returns its address.
    pub(super) fn start_server(
        &self,
        placement: Placement,
        address: &str,
    ) -> Result<(Process, String), Failure> {
        let placement = self.placement.unwrap_or(placement);
        placement.start(Side::Server, || Process::start(&self.server, address))
    }
}

/// The machine on which servers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    /// On the machine where `bench --serve` listens at this `HOST:PORT`.
    There(String),
}

/// A process that speaks the protocol, and leads the group of the processes that it starts.
pub(super) struct Process {
    child: Child,
    lines: Receiver<std::io::Result<String>>,
    name: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Dropping the child would kill it alone, without its own children.
        self.child.signal_group(Signal::SIGKILL);
    }
}

impl Process {
    /// Starts a process. Returns also the text behind `ready`.
    fn start(words: &[String], address: &str) -> Result<(Process, String), Failure> {
        let (program, arguments) = words.split_first().expect("a command has a program");
        let mut command = Command::new(program);
        command.args(arguments).arg(address).process_group(0);
        let name = crate::shell::line(&command);
        let mut child = Child::of(command)?;
        let output = child.take_output();
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().take_while(|line| sender.send(clone_of(line)).is_ok()).count());
        let process = Process { child, lines, name };
        let line = process.line()?;
        let ready = protocol::ready(&line).map_err(Failure::bench)?.to_owned();
        Ok((process, ready))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process and its children until [`go_on`](Process::go_on).
    fn stop(&self) {
        self.child.signal_group(Signal::SIGSTOP);
    }

    fn go_on(&self) {
        self.child.signal_group(Signal::SIGCONT);
    }

    fn line(&self) -> Result<String, Failure> {
        match self.lines.recv_timeout(MAX_WAIT) {
            Ok(line) => line.map_err(Failure::bench),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                Err(Failure::Ended { process: self.name.clone() })
            }
            Err(_) => Err(Failure::bench(format!("`{}` printed nothing for {MAX_WAIT:?}", self.name))),
        }
    }
}

/// Copies a line for another thread.
fn clone_of(line: &std::io::Result<String>) -> std::io::Result<String> {
    match line {
        Ok(line) => Ok(line.clone()),
        Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
    }
}

/// A server, which ends when this is dropped.
enum Server {
    Here(Process),
    /// The server ends with this connection.
    There {
        _control: TcpStream,
    },
}

/// A contender that is ready for rounds.
pub(super) struct Pair {
    // Dropped first, so that clients do not lose their server.
    clients: Vec<Process>,
    server: Server,
    /// Version and settings, as its clients print them.
    pub(super) settings: String,
}

/// The measurements of one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// From the first send to the last answer. With several clients, it includes the command to start.
    pub(super) elapsed: Duration,
    /// The latencies of all clients.
    pub(super) latencies: Vec<Duration>,
}

impl Pair {
    /// Starts a server for `transport` ("tcp" or "unix") and this number of clients.
    pub(super) fn start(
        program: &Program,
        place: &Place,
        transport: &str,
        placement: Placement,
        clients: usize,
    ) -> Result<Pair, Failure> {
        let (server, address) = match place {
            Place::Here => {
                let (process, address) = program.start_server(placement, &local_address(transport))?;
                (Server::Here(process), address)
            }
            Place::There(control) => {
                let (control, address) = ask_for_server(control, &program.name, placement)?;
                (Server::There { _control: control }, address)
            }
        };
        let placement = program.placement.unwrap_or(placement);
        let start = || Process::start(&program.client, &address);
        let started: Result<Vec<_>, Failure> =
            (0..clients).map(|_| placement.start(Side::Client, start)).collect();
        let (clients, mut settings): (Vec<Process>, Vec<String>) = started?.into_iter().unzip();
        let pair = Pair { clients, server, settings: settings.pop().unwrap_or_default() };
        pair.processes().for_each(Process::stop);
        Ok(pair)
    }

    /// Returns the processes on this machine.
    fn processes(&self) -> impl Iterator<Item = &Process> {
        let server = match &self.server {
            Server::Here(process) => Some(process),
            Server::There { .. } => None,
        };
        server.into_iter().chain(&self.clients)
    }

    /// Returns the server's process id, if it runs on this machine.
    pub(super) fn server_id(&self) -> Option<u32> {
        match &self.server {
            Server::Here(process) => Some(process.id()),
            Server::There { .. } => None,
        }
    }

    /// Runs a round on all clients at the same time. The inner error is the reason why this contender
    /// cannot.
    pub(super) fn round(&mut self, round: &Round) -> Result<Result<Sample, String>, Failure> {
        self.processes().for_each(Process::go_on);
        let result = self.run(round);
        self.processes().for_each(Process::stop);
        result
    }

    fn run(&mut self, round: &Round) -> Result<Result<Sample, String>, Failure> {
        let line = round.to_string();
        let start = Instant::now();
        self.clients.iter_mut().try_for_each(|client| client.child.send_line(&line))?;
        let mut sample = Sample { elapsed: Duration::ZERO, latencies: Vec::new() };
        let mut without = None;
        for client in &self.clients {
            match client.line()?.parse().map_err(Failure::bench)? {
                Answer::Done { elapsed, latencies } => {
                    sample.elapsed = sample.elapsed.max(elapsed);
                    sample.latencies.extend(latencies);
                }
                Answer::Unsupported(why) => without = Some(format!("does not support it: {why}")),
                Answer::Failed(why) => without = Some(format!("failed: {why}")),
            }
        }
        if self.clients.len() > 1 {
            // Clients may start at different moments, so none of them knows the time of all.
            sample.elapsed = start.elapsed();
        }
        Ok(without.map_or(Ok(sample), Err))
    }
}

/// Returns an address for a server on this machine.
fn local_address(transport: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SERVERS: AtomicU64 = AtomicU64::new(0);
    match transport {
        "tcp" => "tcp://127.0.0.1:0".to_owned(),
        // An abstract name leaves no file behind.
        _ => format!(
            "ipc://@teleport-bench-{}-{}",
            std::process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        ),
    }
}

/// Asks `bench --serve` to start a server, which ends with the returned connection.
fn ask_for_server(control: &str, name: &str, placement: Placement) -> Result<(TcpStream, String), Failure> {
    let mut stream = TcpStream::connect(control).map_err(Failure::bench)?;
    stream.set_read_timeout(Some(MAX_WAIT)).map_err(Failure::bench)?;
    writeln!(stream, "serve {name} {}", placement.name()).map_err(Failure::bench)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).map_err(Failure::bench)?;
    let port = protocol::ready(line.trim_end()).map_err(Failure::bench)?;
    let host = control.rsplit_once(':').map_or(control, |(host, _)| host);
    Ok((stream, format!("tcp://{host}:{port}")))
}

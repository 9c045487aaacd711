//! The ceiling for many clients: plain sockets with one thread per side, which waits for all sockets with
//! epoll.
//!
//! Flow: a connection starts with the size of its messages -> a message, one open at a time -> an answer of
//! [`ANSWER_BYTES`], a head and one f32 -> the next message. The server reads each connection's messages
//! into their own warm memory, and answers as soon as a message is complete; the client then sends the next
//! one. Each message takes one read and one write per side, and one wait returns up to [`MAX_EVENTS`]
//! sockets. There are two ways to wait, see [`Waiting`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use teleport::Array;

use super::sockets::{LOOKS_PER_YIELD, Listener, SPIN, Waiting, block, connect_unblocked};
use super::{bytes_of, warm};
use crate::bench::contender::MAX_CROWD;
use crate::bench::protocol::{Answer, Round, Stopwatch, Workload};
use crate::failure::Failure;
use nix::poll::PollFlags;

/// A head, as other messages have it, and one f32.
const ANSWER_BYTES: usize = 16 + 4;

/// The head of a message.
const HEAD_BYTES: usize = 16;

/// The events per wait; more change nothing.
const MAX_EVENTS: usize = 256;

/// The number of the listening socket among the events.
const LISTENER: u64 = u64::MAX;

/// Waits for many sockets with epoll.
struct Watch {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    waiting: Waiting,
}

impl Watch {
    fn new(waiting: Waiting) -> io::Result<Watch> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Watch { epoll, events: vec![EpollEvent::empty(); MAX_EVENTS], waiting })
    }

    fn add<F: std::os::fd::AsFd>(&self, socket: F, number: u64) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
    }

    /// Waits, and returns the numbers of the sockets that can be read.
    fn wait(&mut self) -> io::Result<impl Iterator<Item = u64> + '_> {
        let mut count = 0;
        let start = Instant::now();
        while self.waiting == Waiting::Spinning && count == 0 && start.elapsed() < SPIN {
            for _ in 0..LOOKS_PER_YIELD {
                count = self.look(EpollTimeout::ZERO)?;
                if count > 0 {
                    break;
                }
            }
            if count == 0 {
                thread::yield_now();
            }
        }
        while count == 0 {
            count = self.look(EpollTimeout::NONE)?;
        }
        Ok(self.events[..count].iter().map(EpollEvent::data))
    }

    fn look(&mut self, timeout: EpollTimeout) -> io::Result<usize> {
        match self.epoll.wait(&mut self.events, timeout) {
            // A process that was stopped and continued sees this.
            Err(Errno::EINTR) => Ok(0),
            result => Ok(result?),
        }
    }
}

/// Incoming messages, of which at most one is on its way.
struct Incoming {
    memory: Array,
    filled: usize,
}

impl Incoming {
    fn new(bytes: usize) -> io::Result<Incoming> {
        Ok(Incoming { memory: warm(bytes)?, filled: 0 })
    }

    /// Reads once. Returns true if a message is complete.
    fn read(&mut self, socket: &mut File) -> io::Result<bool> {
        match socket.read(&mut bytes_of(&mut self.memory)?[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => self.filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let is_whole = self.filled == self.memory.len();
        if is_whole {
            self.filled = 0;
        }
        Ok(is_whole)
    }
}

/// Writes a message. The socket has room for it, because the one before was read.
fn send(socket: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => block(&*socket, PollFlags::POLLOUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A client's connection at the server.
struct Served {
    socket: File,
    /// `None` until the client has sent the size of its messages.
    incoming: Option<Incoming>,
}

impl Served {
    fn go_on(&mut self) -> io::Result<()> {
        if let Some(incoming) = &mut self.incoming {
            if incoming.read(&mut self.socket)? {
                send(&mut self.socket, &[1; ANSWER_BYTES])?;
            }
            return Ok(());
        }
        let mut bytes = [0; 8];
        // The client sends the size in one piece, before anything else.
        self.socket.read_exact(&mut bytes)?;
        self.incoming = Some(Incoming::new(u64::from_le_bytes(bytes) as usize)?);
        Ok(())
    }
}

/// Serves all clients on one thread, for ever. Returns its address.
pub(in super::super) fn serve(address: &str, waiting: Waiting) -> Result<String, Failure> {
    let (listener, address) = Listener::bind(address).map_err(Failure::bench)?;
    let mut watch = Watch::new(waiting).map_err(Failure::bench)?;
    watch.add(&listener, LISTENER).map_err(Failure::bench)?;
    thread::spawn(move || {
        let mut all: Vec<Option<Served>> = Vec::new();
        let mut ready = Vec::with_capacity(MAX_EVENTS);
        loop {
            ready.clear();
            match watch.wait() {
                Ok(numbers) => ready.extend(numbers),
                Err(_) => return,
            }
            for &number in &ready {
                if number == LISTENER {
                    let Ok(socket) = listener.accept_unblocked() else { return };
                    if watch.add(&socket, all.len() as u64).is_err() {
                        return;
                    }
                    all.push(Some(Served { socket, incoming: None }));
                    continue;
                }
                let served = &mut all[number as usize];
                if served.as_mut().is_some_and(|served| served.go_on().is_err()) {
                    // The client has closed the connection.
                    *served = None;
                }
            }
        }
    });
    Ok(address)
}

/// A connection of the client.
struct Line {
    socket: File,
    incoming: Incoming,
}

/// The client, with all its connections.
pub(in super::super) struct Client {
    address: String,
    waiting: Waiting,
    crowd: Option<Crowd>,
}

struct Crowd {
    watch: Watch,
    lines: Vec<Line>,
    /// The message that all of them send.
    message: Array,
}

impl Client {
    /// Connects in the first round, which gives the number of connections.
    pub(in super::super) fn new(address: &str, waiting: Waiting) -> Client {
        Client { address: address.to_owned(), waiting, crowd: None }
    }

    pub(in super::super) fn run(&mut self, round: &Round) -> Answer {
        if round.workload != Workload::CrowdPolicy || round.in_flight > MAX_CROWD {
            return Answer::Unsupported(format!("it has only calls of up to {MAX_CROWD} clients"));
        }
        self.exchange(round).unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }

    fn exchange(&mut self, round: &Round) -> io::Result<Answer> {
        let message_bytes = HEAD_BYTES + round.bytes as usize;
        let fits = |crowd: &Crowd| {
            crowd.lines.len() as u64 == round.in_flight && crowd.message.len() == message_bytes
        };
        let crowd = match self.crowd.take().filter(fits) {
            Some(crowd) => self.crowd.insert(crowd),
            None => {
                let crowd = Crowd::connect(&self.address, self.waiting, round.in_flight, message_bytes)?;
                self.crowd.insert(crowd)
            }
        };
        crowd.exchange(round)
    }
}

impl Crowd {
    fn connect(address: &str, waiting: Waiting, lines: u64, message_bytes: usize) -> io::Result<Crowd> {
        let watch = Watch::new(waiting)?;
        let line = |number| {
            let mut socket = connect_unblocked(address)?;
            send(&mut socket, &(message_bytes as u64).to_le_bytes())?;
            watch.add(&socket, number)?;
            Ok(Line { socket, incoming: Incoming::new(ANSWER_BYTES)? })
        };
        let lines = (0..lines).map(line).collect::<io::Result<Vec<Line>>>()?;
        Ok(Crowd { watch, lines, message: warm(message_bytes)? })
    }

    fn exchange(&mut self, round: &Round) -> io::Result<Answer> {
        let Crowd { watch, lines, message } = self;
        let (mut sent, mut answered) = (0, 0);
        let clock = Stopwatch::start(round);
        for line in lines.iter_mut().take(round.messages as usize) {
            send(&mut line.socket, message.as_bytes())?;
            sent += 1;
        }
        while answered < round.messages {
            for number in watch.wait()? {
                let Line { socket, incoming } = &mut lines[number as usize];
                if !incoming.read(socket)? {
                    continue;
                }
                answered += 1;
                if sent < round.messages {
                    send(socket, message.as_bytes())?;
                    sent += 1;
                }
            }
        }
        Ok(clock.done())
    }
}

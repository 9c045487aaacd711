//! One connection through the proxy: a thread that moves bytes both ways by the rules.
//!
//! Flow of a turn: read the rules, then write what each pipe has ready and read where it has room. If nothing
//! moved, wait until a socket is ready, a piece is due, or a test has changed the rules. Sockets never block.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::payload::PayloadFinder;
use super::pipe::{End, Next, Pipe, Rules};
use super::socket::{Socket, is_passing};
use super::{Cut, Shared, State, Toward};

/// The size of a read.
const READ_BYTES: usize = 64 << 10;

/// Forwards between this client and the server until both have ended or the connection is cut.
pub(super) fn run(client: Socket, number: usize, woken: &UnixStream, shared: &Shared) {
    let server = shared.lock().server.clone();
    // If the server cannot be reached, the client's connection is closed.
    if let Ok(server) = Socket::connect(&server) {
        let connection = Connection {
            sockets: [client, server],
            pipes: [Pipe::new(), Pipe::new()],
            finders: [PayloadFinder::new(), PayloadFinder::new()],
            number,
            shared,
        };
        connection.forward(woken);
    }
    shared.lock().connections.remove(&number);
}

struct Connection<'a> {
    /// The client and the server. Each sends into the pipe with its index and receives from the other pipe.
    sockets: [Socket; 2],
    /// Indexed by direction.
    pipes: [Pipe; 2],
    /// Indexed by direction.
    finders: [PayloadFinder; 2],
    number: usize,
    shared: &'a Shared,
}

/// The outcome of a turn.
struct Turn {
    has_moved: bool,
    /// The events to wait for, by socket.
    waits: [PollFlags; 2],
    until: Option<Instant>,
}

/// The end of a connection.
enum Over {
    /// Both sides have ended their streams.
    Ended,
    /// One side has reset the connection, or a test cuts it.
    Cut(Cut),
}

impl Connection<'_> {
    fn forward(mut self, woken: &UnixStream) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let turn = match self.turn(&mut buffer) {
                Ok(turn) => turn,
                Err(Over::Ended) => return,
                Err(Over::Cut(cut)) => return self.cut(cut),
            };
            if !turn.has_moved {
                self.wait(&turn, woken);
            }
        }
    }

    /// Moves the bytes that can move now. The lock is held throughout, so nothing moves by old rules once a
    /// test has set new ones. No socket blocks.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<Turn, Over> {
        let mut state = self.shared.lock();
        let rules = state.rules;
        let mut turn = Turn { has_moved: false, waits: [PollFlags::empty(); 2], until: None };
        for toward in Toward::BOTH {
            if let Some(cut) = state.control(self.number).due_cut() {
                state.cuts += 1;
                return Err(Over::Cut(cut));
            }
            if !rules.stalled[toward as usize] {
                self.write(toward, &mut state, &mut turn);
                self.read(toward, &mut state, buffer, &mut turn);
                self.pass_end(toward, &rules)?;
            }
        }
        match self.pipes.iter().all(|pipe| pipe.end == End::Forwarded) {
            true => Err(Over::Ended),
            false => Ok(turn),
        }
    }

    fn write(&mut self, toward: Toward, state: &mut State, turn: &mut Turn) {
        let (pipe, now, rules) = (&mut self.pipes[toward as usize], Instant::now(), &state.rules);
        if rules.swallows[toward as usize] {
            return pipe.discard();
        }
        let bytes = match pipe.next(now, rules) {
            Next::Nothing => return,
            Next::Wait(until) => {
                turn.until = Some(turn.until.map_or(until, |other| other.min(until)));
                return;
            }
            Next::Write(bytes) => bytes,
        };
        let receiver = 1 - toward as usize;
        let left = state.connections[&self.number].left;
        let most = left.map_or(bytes.len(), |(left, _)| left.min(bytes.len() as u64) as usize);
        match self.sockets[receiver].write(&bytes[..most]) {
            Ok(written) => {
                pipe.advance(written, now, rules);
                turn.has_moved = true;
                if let Some((left, _)) = &mut state.control(self.number).left {
                    *left -= written as u64;
                }
            }
            Err(error) if is_passing(&error) => turn.waits[receiver] |= PollFlags::POLLOUT,
            Err(_) => {
                // The receiver is gone. Bytes that it sent earlier may still be in the other pipe.
                pipe.discard();
                pipe.end = End::Forwarded;
                turn.has_moved = true;
            }
        }
    }

    fn read(&mut self, toward: Toward, state: &mut State, buffer: &mut [u8], turn: &mut Turn) {
        let (pipe, sender) = (&mut self.pipes[toward as usize], toward as usize);
        if !pipe.has_room() {
            return;
        }
        match self.sockets[sender].read(buffer) {
            Ok(0) => pipe.end = End::Ended,
            Ok(read) => {
                let bytes = &mut buffer[..read];
                let payload = self.finders[toward as usize].follow(bytes);
                state.count(toward, bytes, &payload);
                pipe.take(bytes.to_vec(), Instant::now(), &state.rules);
            }
            Err(error) if is_passing(&error) => {
                turn.waits[sender] |= PollFlags::POLLIN;
                return;
            }
            Err(_) => pipe.end = End::Reset,
        }
        turn.has_moved = true;
    }

    /// Ends the stream to the receiver once it has received everything.
    fn pass_end(&mut self, toward: Toward, rules: &Rules) -> Result<(), Over> {
        let pipe = &mut self.pipes[toward as usize];
        if rules.swallows[toward as usize] || !pipe.is_empty() {
            return Ok(());
        }
        match pipe.end {
            End::Open | End::Forwarded => {}
            End::Reset => return Err(Over::Cut(Cut::Reset)),
            End::Ended => {
                self.sockets[1 - toward as usize].finish();
                pipe.end = End::Forwarded;
            }
        }
        Ok(())
    }

    fn wait(&self, turn: &Turn, mut woken: &UnixStream) {
        let mut ready = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        for (socket, wait) in self.sockets.iter().zip(turn.waits) {
            // Even without events to wait for, poll would report a socket whose peer is gone.
            if !wait.is_empty() {
                ready.push(PollFd::new(socket.as_fd(), wait));
            }
        }
        let timeout = turn.until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        // A signal ends the wait early. The next turn checks everything again.
        let _ = poll(&mut ready, timeout);
        // The socket never blocks, and it holds one byte for each change.
        let _ = woken.read(&mut [0; 256]);
    }

    fn cut(self, cut: Cut) {
        for socket in self.sockets {
            match cut {
                Cut::End => socket.finish(),
                Cut::Reset => socket.reset(),
            }
        }
    }
}

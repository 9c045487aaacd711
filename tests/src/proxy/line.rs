//! One connection through the proxy: a thread that moves bytes both ways as the rules have it.
//!
//! Flow, each turn: look at the rules -> write what each pipe has ready, read where it has room -> if nothing moved, wait
//! until a socket is ready, a piece is due, or a test has changed the rules. Sockets never block.

use std::io::Read;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::pipe::{End, Next, Pipe, Rules};
use super::socket::{Socket, is_passing};
use super::trail::Trail;
use super::{Cut, Shared, State, Toward, Traffic};

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// The bit that is flipped in a byte that is corrupted.
const FLIPPED: u8 = 0x10;

/// Forwards between this client and the server until both have ended or the connection is cut.
pub(super) fn run(client: Socket, number: usize, woken: &UnixStream, shared: &Shared) {
    let server = shared.lock().server.clone();
    // A client of a server that is not there finds its connection closed.
    if let Ok(server) = Socket::connect(&server) {
        let line = Line {
            sockets: [client, server],
            pipes: [Pipe::new(), Pipe::new()],
            trails: [Trail::new(), Trail::new()],
            number,
            shared,
        };
        line.forward(woken);
    }
    shared.lock().lines.remove(&number);
}

struct Line<'a> {
    /// The client and the server: each is the sender of the pipe with its index, and the receiver of the other.
    sockets: [Socket; 2],
    /// Toward the server and toward the client.
    pipes: [Pipe; 2],
    /// Of the same directions.
    trails: [Trail; 2],
    number: usize,
    shared: &'a Shared,
}

/// What a turn came to.
struct Turn {
    has_moved: bool,
    /// For each socket, what it is waited for.
    waits: [PollFlags; 2],
    until: Option<Instant>,
}

/// How a connection is over.
enum Over {
    /// Both sides have ended it.
    Ended,
    /// One has reset it, or it is to be cut.
    Cut(Cut),
}

impl Line<'_> {
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

    /// Moves what can be moved now. All of it under the lock, so that nothing moves by old rules once a test has set new
    /// ones; no socket blocks.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<Turn, Over> {
        let mut state = self.shared.lock();
        let rules = state.rules;
        let mut turn = Turn { has_moved: false, waits: [PollFlags::empty(); 2], until: None };
        for toward in Toward::BOTH {
            if let Some(cut) = state.control(self.number).is_due() {
                state.cuts += 1;
                return Err(Over::Cut(cut));
            }
            if !rules.stalled[toward as usize] {
                self.write(toward, &mut state, &mut turn);
                self.read(toward, &mut state, buffer, &mut turn);
                self.pass_end(toward, &rules)?;
            }
        }
        match self.pipes.iter().all(|pipe| pipe.end == End::Told) {
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
        let left = state.lines[&self.number].left;
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
                // Its receiver has gone; what that said before may still be on its way to the other.
                pipe.discard();
                pipe.end = End::Told;
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
            Ok(0) => pipe.end = End::Seen,
            Ok(read) => {
                let bytes = &mut buffer[..read];
                let payload = self.trails[toward as usize].follow(bytes);
                state.traffic[toward as usize].count(bytes, &payload);
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

    /// Tells the receiver that the stream has ended, once it has all of it.
    fn pass_end(&mut self, toward: Toward, rules: &Rules) -> Result<(), Over> {
        let pipe = &mut self.pipes[toward as usize];
        if rules.swallows[toward as usize] || !pipe.is_empty() {
            return Ok(());
        }
        match pipe.end {
            End::Open | End::Told => {}
            End::Reset => return Err(Over::Cut(Cut::Reset)),
            End::Seen => {
                self.sockets[1 - toward as usize].finish();
                pipe.end = End::Told;
            }
        }
        Ok(())
    }

    fn wait(&self, turn: &Turn, mut woken: &UnixStream) {
        let mut ready = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        for (socket, wait) in self.sockets.iter().zip(turn.waits) {
            // One that is waited for nothing would still be told of when its peer is gone.
            if !wait.is_empty() {
                ready.push(PollFd::new(socket.as_fd(), wait));
            }
        }
        let timeout = turn.until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        // A signal ends the wait early, and the next turn looks at everything again.
        let _ = poll(&mut ready, timeout);
        // It never blocks, and holds as many bytes as there were changes.
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

impl Traffic {
    /// Counts these bytes, and changes the one that is to be changed.
    fn count(&mut self, bytes: &mut [u8], payload: &[Range<usize>]) {
        if let Some(at) = position(self.flip_byte, self.bytes, bytes.len()) {
            bytes[at] ^= FLIPPED;
            self.flip_byte = None;
        }
        self.bytes += bytes.len() as u64;
        for range in payload {
            if let Some(at) = position(self.flip_payload, self.payload_bytes, range.len()) {
                bytes[range.start + at] ^= FLIPPED;
                self.flip_payload = None;
            }
            self.payload_bytes += range.len() as u64;
        }
    }
}

/// Where the byte with this number lies in a stretch that begins with number `start`.
fn position(number: Option<u64>, start: u64, len: usize) -> Option<usize> {
    let at = usize::try_from(number?.checked_sub(start)?).ok()?;
    (at < len).then_some(at)
}

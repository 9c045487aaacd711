//! A proxy between a client and a server that does to their bytes what networks do: it stalls, loses, cuts, delays, splits,
//! crawls and corrupts.
//!
//! Flow: [`Proxy::start`] listens at an address of its own -> each connection gets a thread (`line`), which forwards both
//! ways (`pipe`) and asks for the rules each time it has moved bytes -> a rule that a test sets wakes every line, so it
//! holds from then on, also for the connections that are open. Nothing here sleeps to look again. Bounds: a line holds
//! at most [`MAX_HELD_BYTES`](pipe::MAX_HELD_BYTES) each way, and one more piece of reading.
//!
//! It knows of the format only where payload lies (`trail`), to count it and to flip a bit of it.

mod line;
mod pipe;
mod socket;
#[cfg(test)]
mod tests;
mod trail;

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::seed::Random;
use pipe::Rules;
use socket::Listener;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From the client to the server.
    Server,
    /// From the server to the client.
    Client,
}

impl Toward {
    const BOTH: [Toward; 2] = [Toward::Server, Toward::Client];
}

/// How a connection is cut, for both of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The stream ends where it is, as when a process is killed.
    End,
    /// It is reset (RST), as when a machine has restarted. On a Unix socket this is the same as [`Cut::End`].
    Reset,
}

/// A running proxy. Dropping it cuts all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: String,
    wake: UnixStream,
    accepting: Option<JoinHandle<()>>,
}

/// What the test's thread and the lines share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The server's address.
    server: String,
    rules: Rules,
    cuts_every: Option<CutsEvery>,
    /// For each direction.
    traffic: [Traffic; 2],
    /// The connections that are open, by their numbers.
    lines: HashMap<usize, Control>,
    accepted: usize,
    cuts: usize,
}

/// What is told to one connection.
#[derive(Debug)]
struct Control {
    cut: Option<Cut>,
    /// What it still passes on, both ways together, before it is cut as the second one says.
    left: Option<(u64, Cut)>,
    /// A byte on it wakes the connection's thread.
    wake: UnixStream,
}

/// Draws after how many bytes each connection is cut, and how.
#[derive(Debug)]
struct CutsEvery {
    bytes: Range<u64>,
    random: Random,
}

impl CutsEvery {
    fn draw(&mut self) -> (u64, Cut) {
        let span = (self.bytes.end - self.bytes.start) as usize;
        let bytes = self.bytes.start + self.random.below(span) as u64;
        (bytes, [Cut::End, Cut::Reset][self.random.below(2)])
    }
}

/// What came for one direction, on all connections together.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    bytes: u64,
    payload_bytes: u64,
    /// The number of the byte to change, counted as the two above.
    flip_byte: Option<u64>,
    flip_payload: Option<u64>,
}

impl Proxy {
    /// Forwards from now on, to the server at `server` (`tcp://` or `ipc://`), at an address of the same sort. It changes
    /// nothing before it is told to.
    pub fn start(server: &str) -> Proxy {
        let (listener, address) = Listener::bind_like(server);
        let state = State {
            server: server.to_owned(),
            rules: Rules::default(),
            cuts_every: None,
            traffic: [Traffic::default(); 2],
            lines: HashMap::new(),
            accepted: 0,
            cuts: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let (wake, woken) = UnixStream::pair().expect("there are descriptors");
        let accept = {
            let shared = shared.clone();
            move || accept(&listener, &woken, &shared)
        };
        let accepting = thread::Builder::new().name("proxy".into()).spawn(accept).expect("there are threads");
        Proxy { shared, address, wake, accepting: Some(accepting) }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Connects to this server from now on. Connections that are open stay with theirs.
    pub fn redirect(&self, server: &str) {
        self.shared.lock().server = server.to_owned();
    }

    /// Connections that it has accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// Connections that it has cut so far.
    pub fn cuts(&self) -> usize {
        self.shared.lock().cuts
    }

    /// Bytes that have come so far to go this way, forwarded or not.
    pub fn bytes(&self, toward: Toward) -> u64 {
        self.shared.lock().traffic[toward as usize].bytes
    }

    /// Bytes of payload that have come so far to go this way, forwarded or not.
    pub fn payload_bytes(&self, toward: Toward) -> u64 {
        self.shared.lock().traffic[toward as usize].payload_bytes
    }

    /// Ends all faults: what comes is forwarded at once and unchanged, and nothing is cut any more. What was held is
    /// delivered; what was swallowed, cut or changed stays so.
    pub fn heal(&self) {
        self.change(State::heal);
    }

    /// As [`heal`](Proxy::heal), and cuts what is open at that moment: streams that have lost something make no sense.
    pub fn start_anew(&self) {
        self.change(|state| {
            state.heal();
            state.cut(Cut::End);
        });
    }

    /// Reads and delivers nothing either way; connections stay open. Until [`resume`](Proxy::resume).
    pub fn stall(&self) {
        self.change(|state| state.rules.stalled = [true; 2]);
    }

    /// As [`stall`](Proxy::stall), in one direction.
    pub fn stall_toward(&self, toward: Toward) {
        self.change(|state| state.rules.stalled[toward as usize] = true);
    }

    /// Ends all stalls: what has waited is delivered.
    pub fn resume(&self) {
        self.change(|state| state.rules.stalled = [false; 2]);
    }

    /// Reads, and delivers nothing of it either way, not even that a stream has ended: as where packets are lost for
    /// good. Until [`heal`](Proxy::heal) or
    /// [`start_anew`](Proxy::start_anew).
    pub fn swallow(&self) {
        self.change(|state| state.rules.swallows = [true; 2]);
    }

    /// As [`swallow`](Proxy::swallow), in one direction.
    pub fn swallow_toward(&self, toward: Toward) {
        self.change(|state| state.rules.swallows[toward as usize] = true);
    }

    /// Cuts all connections that are open.
    pub fn cut(&self, cut: Cut) {
        self.change(|state| state.cut(cut));
    }

    /// Cuts each connection, those that are open and those that come, once it has passed on so many more bytes, both ways
    /// together, introductions included: a number within `bytes`, drawn from `seed` for each, as is how it is cut. An
    /// introduction takes some 200 bytes. Until [`heal`](Proxy::heal).
    pub fn cut_every(&self, bytes: Range<u64>, seed: u64) {
        assert!(bytes.start > 0 && bytes.start < bytes.end, "there is something to draw from in {bytes:?}");
        let mut every = CutsEvery { bytes, random: Random::new(seed) };
        self.change(|state| {
            state.lines.values_mut().for_each(|line| line.left = Some(every.draw()));
            state.cuts_every = Some(every);
        });
    }

    /// Delivers everything so much later. Bytes that came before are as late as they were.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.rules.delay = delay);
    }

    /// Writes at most so many bytes at once.
    pub fn split(&self, max_bytes: usize) {
        assert!(max_bytes > 0, "nothing would ever be delivered");
        self.change(|state| state.rules.max_piece_bytes = Some(max_bytes));
    }

    /// Delivers so many bytes a second, each way of each connection.
    pub fn crawl(&self, bytes_per_second: u64) {
        assert!(bytes_per_second > 0, "use stall");
        self.change(|state| state.rules.bytes_per_second = Some(bytes_per_second));
    }

    /// Flips one bit in the `nth` byte (from 0) of payload that comes from now on to go this way, on any connection.
    pub fn corrupt_payload(&self, toward: Toward, nth: u64) {
        self.change(|state| {
            let traffic = &mut state.traffic[toward as usize];
            traffic.flip_payload = Some(traffic.payload_bytes + nth);
        });
    }

    /// As [`corrupt_payload`](Proxy::corrupt_payload), counting every byte, of whatever.
    pub fn corrupt_byte(&self, toward: Toward, nth: u64) {
        self.change(|state| {
            let traffic = &mut state.traffic[toward as usize];
            traffic.flip_byte = Some(traffic.bytes + nth);
        });
    }

    /// Makes a change; once this returns, no byte moves but by the new rules.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        change(&mut state);
        state.lines.values().for_each(|line| line.wake());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It ends when it is woken; a failure means that it has.
        let _ = self.wake.write_all(&[0]);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut(Cut::End);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test may fail while it holds it, and the proxy still ends then.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn heal(&mut self) {
        self.rules = Rules::default();
        self.cuts_every = None;
        self.lines.values_mut().for_each(|line| line.left = None);
        for traffic in &mut self.traffic {
            (traffic.flip_byte, traffic.flip_payload) = (None, None);
        }
    }

    fn cut(&mut self, cut: Cut) {
        self.lines.values_mut().for_each(|line| line.cut = Some(cut));
    }

    /// What is told to the connection with this number, which must be open.
    fn control(&mut self, number: usize) -> &mut Control {
        self.lines.get_mut(&number).expect("only its own thread removes it")
    }
}

impl Control {
    /// How the connection is to be cut now, if it is.
    fn is_due(&self) -> Option<Cut> {
        let is_used_up = self.left.filter(|(left, _)| *left == 0);
        self.cut.or(is_used_up.map(|(_, cut)| cut))
    }

    fn wake(&self) {
        // Full means that it is woken already, closed that the thread has ended.
        let _ = (&self.wake).write(&[0]);
    }
}

/// Accepts until it is woken.
fn accept(listener: &Listener, woken: &UnixStream, shared: &Arc<Shared>) {
    loop {
        let mut ready = [readable(listener.as_fd()), readable(woken.as_fd())];
        // A signal ends the wait early.
        let _ = poll(&mut ready, PollTimeout::NONE);
        if ready[1].any().unwrap_or_default() {
            return;
        }
        let Some(client) = listener.accept() else { continue };
        let (wake, woken) = UnixStream::pair().expect("there are descriptors");
        for end in [&wake, &woken] {
            end.set_nonblocking(true).expect("sockets can be asked");
        }
        let mut state = shared.lock();
        state.accepted += 1;
        let number = state.accepted;
        let left = state.cuts_every.as_mut().map(CutsEvery::draw);
        state.lines.insert(number, Control { cut: None, left, wake });
        drop(state);
        let shared = shared.clone();
        let forward = move || line::run(client, number, &woken, &shared);
        thread::Builder::new().name(format!("proxy-{number}")).spawn(forward).expect("there are threads");
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

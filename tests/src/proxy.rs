//! A proxy between a client and a server that simulates bad networks: it stalls, loses, cuts, delays, splits,
//! slows down and corrupts streams.
//!
//! Flow: [`Proxy::start`] listens at an address of its own. Each connection gets a thread (`connection`),
//! which forwards both ways (`pipe`) and reads the rules before each move. A test that changes a rule wakes
//! the threads of all open connections, so the rule applies to them at once. No thread polls. Bounds: a
//! connection holds at most [`MAX_HELD_BYTES`](pipe::MAX_HELD_BYTES) in each direction, and one more read.
//!
//! The proxy parses the wire format only to find the payload (`payload`), which it counts and corrupts.

mod connection;
mod payload;
mod pipe;
mod socket;
#[cfg(test)]
mod tests;
mod traffic;

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
use traffic::Traffic;

/// A direction of a connection.
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

/// The way in which a connection is cut, for both of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The stream ends, as when a process is killed.
    End,
    /// The stream is reset (RST), as when a machine has restarted. On a Unix socket this is the same as
    /// [`Cut::End`].
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

/// State that the test's thread and the connections share.
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
    /// Indexed by direction.
    traffic: [Traffic; 2],
    /// The open connections, by number.
    connections: HashMap<usize, Control>,
    accepted: usize,
    cuts: usize,
}

/// Orders to one connection.
#[derive(Debug)]
struct Control {
    cut: Option<Cut>,
    /// The bytes that it still forwards, both ways together, and the cut that follows.
    left: Option<(u64, Cut)>,
    /// A byte on this socket wakes the connection's thread.
    wake: UnixStream,
}

/// Draws for each connection when and how it is cut.
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

impl Proxy {
    /// Starts to forward to the server at `server` (`tcp://` or `ipc://`), without any faults. The proxy
    /// listens at an address of the same scheme.
    pub fn start(server: &str) -> Proxy {
        let (listener, address) = Listener::bind_like(server);
        let state = State {
            server: server.to_owned(),
            rules: Rules::default(),
            cuts_every: None,
            traffic: [Traffic::default(); 2],
            connections: HashMap::new(),
            accepted: 0,
            cuts: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let (wake, woken) = UnixStream::pair().expect("a socket pair can be made");
        let accept = {
            let shared = shared.clone();
            move || accept(&listener, &woken, &shared)
        };
        let accepting =
            thread::Builder::new().name("proxy".into()).spawn(accept).expect("a thread can be started");
        Proxy { shared, address, wake, accepting: Some(accepting) }
    }

    /// Returns the address at which the proxy listens.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Forwards new connections to this server. Open connections keep theirs.
    pub fn redirect(&self, server: &str) {
        self.shared.lock().server = server.to_owned();
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Returns the number of connections cut so far.
    pub fn cuts(&self) -> usize {
        self.shared.lock().cuts
    }

    /// Returns the number of bytes received so far for this direction, forwarded or not.
    pub fn bytes(&self, toward: Toward) -> u64 {
        self.shared.lock().traffic[toward as usize].bytes
    }

    /// Returns the number of payload bytes received so far for this direction, forwarded or not.
    pub fn payload_bytes(&self, toward: Toward) -> u64 {
        self.shared.lock().traffic[toward as usize].payload_bytes
    }

    /// Ends all faults. Held bytes are delivered, and new bytes are forwarded at once and unchanged. Faults
    /// that have happened, such as lost bytes, are not undone.
    pub fn heal(&self) {
        self.change(State::heal);
    }

    /// Ends all faults as [`heal`](Proxy::heal) does, and cuts all open connections, since their streams may
    /// have lost bytes.
    pub fn start_anew(&self) {
        self.change(|state| {
            state.heal();
            state.cut(Cut::End);
        });
    }

    /// Reads and delivers nothing in either direction until [`resume`](Proxy::resume). Connections stay open.
    pub fn stall(&self) {
        self.change(|state| state.rules.stalled = [true; 2]);
    }

    /// Stalls one direction, as [`stall`](Proxy::stall) does both.
    pub fn stall_toward(&self, toward: Toward) {
        self.change(|state| state.rules.stalled[toward as usize] = true);
    }

    /// Stalls one direction once `bytes` more of its payload, or slightly more, have been received.
    pub fn stall_after_payload(&self, toward: Toward, bytes: u64) {
        self.change(|state| {
            let traffic = &mut state.traffic[toward as usize];
            traffic.stall_at = Some(traffic.payload_bytes + bytes);
        });
    }

    /// Returns true if this direction is stalled.
    pub fn is_stalled(&self, toward: Toward) -> bool {
        self.shared.lock().rules.stalled[toward as usize]
    }

    /// Ends all stalls and delivers the held bytes.
    pub fn resume(&self) {
        self.change(|state| {
            state.rules.stalled = [false; 2];
            state.traffic.iter_mut().for_each(|traffic| traffic.stall_at = None);
        });
    }

    /// Reads and discards everything in both directions, the end of a stream included, as if packets were
    /// lost for good. Lasts until [`heal`](Proxy::heal) or [`start_anew`](Proxy::start_anew).
    pub fn swallow(&self) {
        self.change(|state| state.rules.swallows = [true; 2]);
    }

    /// Discards one direction, as [`swallow`](Proxy::swallow) does both.
    pub fn swallow_toward(&self, toward: Toward) {
        self.change(|state| state.rules.swallows[toward as usize] = true);
    }

    /// Cuts all connections that are open.
    pub fn cut(&self, cut: Cut) {
        self.change(|state| state.cut(cut));
    }

    /// Cuts each open and each future connection after a random number of bytes, until [`heal`](Proxy::heal).
    ///
    /// Number and kind of cut are drawn from `seed` for each connection. The number is within `bytes` and
    /// counts both directions together, including the handshake of about 200 bytes.
    pub fn cut_every(&self, bytes: Range<u64>, seed: u64) {
        assert!(bytes.start > 0 && bytes.start < bytes.end, "{bytes:?} is empty or begins at 0");
        let mut every = CutsEvery { bytes, random: Random::new(seed) };
        self.change(|state| {
            state.connections.values_mut().for_each(|connection| connection.left = Some(every.draw()));
            state.cuts_every = Some(every);
        });
    }

    /// Delivers bytes that are received from now on with this delay.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.rules.delay = delay);
    }

    /// Writes at most `max_bytes` at once.
    pub fn split(&self, max_bytes: usize) {
        assert!(max_bytes > 0, "nothing would ever be delivered");
        self.change(|state| state.rules.max_piece_bytes = Some(max_bytes));
    }

    /// Delivers `bytes_per_second` in each direction of each connection.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        assert!(bytes_per_second > 0, "to deliver nothing, call stall");
        self.change(|state| state.rules.bytes_per_second = Some(bytes_per_second));
    }

    /// Flips one bit of the `nth` payload byte (from 0) that is received from now on for this direction,
    /// counted over all connections.
    pub fn corrupt_payload(&self, toward: Toward, nth: u64) {
        self.change(|state| {
            let traffic = &mut state.traffic[toward as usize];
            traffic.flip_payload = Some(traffic.payload_bytes + nth);
        });
    }

    /// Flips one bit as [`corrupt_payload`](Proxy::corrupt_payload) does, but counts all bytes, not only
    /// payload.
    pub fn corrupt_byte(&self, toward: Toward, nth: u64) {
        self.change(|state| {
            let traffic = &mut state.traffic[toward as usize];
            traffic.flip_byte = Some(traffic.bytes + nth);
        });
    }

    /// Changes the state. Once this returns, bytes move only by the new rules.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        change(&mut state);
        state.connections.values().for_each(|connection| connection.wake());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The accepting thread ends when it is woken. An error means that it has ended already.
        let _ = self.wake.write_all(&[0]);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut(Cut::End);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The lock may be poisoned by a failed test, and the proxy must still end.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn heal(&mut self) {
        self.rules = Rules::default();
        self.cuts_every = None;
        self.connections.values_mut().for_each(|connection| connection.left = None);
        for traffic in &mut self.traffic {
            traffic.heal();
        }
    }

    fn cut(&mut self, cut: Cut) {
        self.connections.values_mut().for_each(|connection| connection.cut = Some(cut));
    }

    /// Counts received bytes and applies the faults that are due at one of them.
    fn count(&mut self, toward: Toward, bytes: &mut [u8], payload: &[Range<usize>]) {
        let is_far_enough = self.traffic[toward as usize].count(bytes, payload);
        self.rules.stalled[toward as usize] |= is_far_enough;
    }

    /// Returns the orders to the connection with this number, which must be open.
    fn control(&mut self, number: usize) -> &mut Control {
        self.connections.get_mut(&number).expect("only its own thread removes it")
    }
}

impl Control {
    /// Returns the cut that is due now, if any.
    fn due_cut(&self) -> Option<Cut> {
        let is_used_up = self.left.filter(|(left, _)| *left == 0);
        self.cut.or(is_used_up.map(|(_, cut)| cut))
    }

    fn wake(&self) {
        // If the socket is full, the thread is about to wake. If it is closed, the thread has ended.
        let _ = (&self.wake).write(&[0]);
    }
}

/// Accepts connections until it is woken.
fn accept(listener: &Listener, woken: &UnixStream, shared: &Arc<Shared>) {
    loop {
        let mut ready = [readable(listener.as_fd()), readable(woken.as_fd())];
        // A signal ends the wait early.
        let _ = poll(&mut ready, PollTimeout::NONE);
        if ready[1].any().unwrap_or_default() {
            return;
        }
        let Some(client) = listener.accept() else { continue };
        let (wake, woken) = UnixStream::pair().expect("a socket pair can be made");
        for end in [&wake, &woken] {
            end.set_nonblocking(true).expect("the socket takes the option");
        }
        let mut state = shared.lock();
        state.accepted += 1;
        let number = state.accepted;
        let left = state.cuts_every.as_mut().map(CutsEvery::draw);
        state.connections.insert(number, Control { cut: None, left, wake });
        drop(state);
        let shared = shared.clone();
        let forward = move || connection::run(client, number, &woken, &shared);
        thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(forward)
            .expect("a thread can be started");
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

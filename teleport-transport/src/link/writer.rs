//! The sending half of a link: its queue, and the thread that writes it to the socket.
//!
//! Flow: a thread locks the half and queues something -> `write` takes the [`WriteToken`] with the write
//! buffer, if it is free -> it stages under the lock and writes outside of it, until the queue is empty, the
//! socket is full or the turn is over; then the event loop continues when the socket is writable. Never
//! blocks. Bound: a turn ends after one chunk, since an event loop that writes more to a fast reader delays
//! its other work, such as a small call that arrived on the same connection.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Interest;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::coalesce::Coalesce;
use super::notsent_window::NotsentWindow;
use super::port::Port;
use super::status::Flag;
use super::write_token::WriteToken;
use crate::config::MAX_TIME;
use crate::memory::deferred_drop::DropScope;
use crate::net::socket::Socket;
use crate::protocol::{MAX_SEGMENTS_PER_WRITE, Outbound, SharedOutbound, WriteBuffer};
use crate::reactor::mailbox::Command;
use crate::reactor::source::Request;

/// The time for which a link waits for the peer to read its goodbye, before the descriptor is closed.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The sending half of a link.
pub(super) struct Writer(Mutex<Sending>);

/// The state under the lock. A thread enters a [`DropScope`] before it takes the lock to queue, drop or write
/// something.
pub(super) struct Sending {
    pub(super) outbound: Outbound,
    pub(super) coalesce: Coalesce,
    pub(super) linger: Linger,
    token: WriteToken<Box<Output>>,
    /// `None` once the link is over.
    socket: Option<Arc<Socket>>,
    /// Bytes in the write buffer when it was last returned.
    pub(super) unwritten_bytes: usize,
    /// The interest that is registered with the kernel.
    registered: Option<Interest>,
}

/// The bytes that the socket takes next, and how far the peer is behind.
#[derive(Debug)]
struct Output {
    /// `None` once the link is over.
    socket: Option<Arc<Socket>>,
    buffer: WriteBuffer,
    window: NotsentWindow,
}

impl Writer {
    pub(super) fn new(outbound: Outbound, socket: Arc<Socket>) -> Writer {
        let output = Output {
            socket: Some(socket.clone()),
            buffer: WriteBuffer::default(),
            window: NotsentWindow::new(),
        };
        Writer(Mutex::new(Sending {
            outbound,
            coalesce: Coalesce::default(),
            linger: Linger::default(),
            token: WriteToken::Free(Box::new(output)),
            socket: Some(socket),
            unwritten_bytes: 0,
            registered: None,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Sending> {
        self.0.lock()
    }

    /// Changes the half under its lock, and then writes what is queued, unless another thread or the event
    /// loop does.
    pub(super) fn send<T>(&self, port: &Port, change: impl FnOnce(&mut Sending) -> T) -> T {
        let _scope = DropScope::enter();
        let mut sending = self.lock();
        let result = change(&mut sending);
        self.write(port, sending);
        result
    }

    /// Writes what is queued, unless another thread or the event loop does.
    pub(super) fn flush(&self, port: &Port) {
        self.send(port, |_| ());
    }

    /// Takes the socket away, because the link is over. A thread that writes gives it up after its turn.
    pub(super) fn close(&self) {
        let mut sending = self.lock();
        sending.socket = None;
        if let Some(output) = sending.token.idle_mut() {
            output.socket = None;
        }
    }

    /// Writes what is queued, as [`send`](Writer::send) does, and releases the lock.
    pub(super) fn write(&self, port: &Port, mut sending: MutexGuard<'_, Sending>) {
        if let Some(output) = sending.token.take() {
            self.write_turn(port, sending, output);
        }
    }

    /// Continues a blocked write, because the socket is writable.
    pub(super) fn on_writable(&self, port: &Port) {
        let _scope = DropScope::enter();
        let mut sending = self.lock();
        if let Some(output) = sending.token.unblock() {
            port.status.clear(Flag::BLOCKED);
            self.write_turn(port, sending, output);
        }
    }

    fn write_turn<'a>(&'a self, port: &Port, mut sending: MutexGuard<'a, Sending>, mut output: Box<Output>) {
        let mut written = 0;
        loop {
            if output.buffer.is_empty() && !sending.stage(port, &mut output.buffer) {
                return sending.finish_turn(port, output);
            }
            // Checked after staging, so that a turn that writes everything wakes no event loop.
            if written >= sending.outbound.turn_bytes() {
                return sending.block(port, output);
            }
            drop(sending);
            let result = output.write();
            sending = self.lock();
            sending.unwritten_bytes = output.buffer.remaining_bytes();
            match result {
                Ok((bytes, false)) => written += bytes,
                Ok((_, true)) => return sending.block(port, output),
                Err(_) => return sending.fail(port, output),
            }
        }
    }
}

impl SharedOutbound for Writer {
    type Guard<'a> = MappedMutexGuard<'a, Outbound>;

    fn lock_outbound(&self) -> MappedMutexGuard<'_, Outbound> {
        MutexGuard::map(self.lock(), |sending| &mut sending.outbound)
    }
}

impl Output {
    /// Writes once. Returns the bytes that the socket took, and true if it is full.
    fn write(&mut self) -> io::Result<(usize, bool)> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (offered, result) = match self.buffer.single() {
            Some(bytes) => (bytes.len(), socket.write_vectored(&[IoSlice::new(bytes)])),
            None => {
                let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
                let filled = self.buffer.slices(&mut slices);
                let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
                (offered, socket.write_vectored(&slices[..filled]))
            }
        };
        let (bytes, is_full) = match result {
            Ok(bytes) => (bytes, bytes < offered),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, true),
            Err(error) => return Err(error),
        };
        self.window.wrote(bytes);
        self.buffer.advance(bytes);
        if is_full && let Some(bytes) = self.window.full(Instant::now()) {
            // On failure, the earlier bound stays.
            let _ = socket.set_max_unsent(bytes);
        }
        Ok((bytes, is_full))
    }
}

impl Sending {
    /// Returns true if no thread writes and the socket is not full.
    pub(super) fn is_idle(&self) -> bool {
        self.token.is_free()
    }

    /// Moves the next frames from the queue into `buffer`. Returns false if there are none.
    fn stage(&mut self, port: &Port, buffer: &mut WriteBuffer) -> bool {
        self.coalesce.on_write(&port.status);
        if self.outbound.poll_write(buffer) {
            port.event_loop.request(Request::Drained);
        }
        self.unwritten_bytes = buffer.remaining_bytes();
        let has_staged = !buffer.is_empty();
        if !has_staged && self.outbound.is_finished() {
            self.linger(port);
        }
        has_staged
    }

    /// Ends this side's stream, because the goodbye was written, and waits for the peer to read it.
    #[cold]
    fn linger(&mut self, port: &Port) {
        if port.status.set(Flag::LINGERS) {
            // An error means that the connection is gone, which reading will find.
            let _ = self.socket.as_ref().map(|socket| socket.shutdown_write());
            self.linger.close_within(LINGER, port);
        }
    }

    /// Ends a turn that has written everything.
    fn finish_turn(&mut self, port: &Port, mut output: Box<Output>) {
        output.window.idle(Instant::now);
        self.token.free(self.checked(output));
        if self.registered.is_some_and(Interest::is_writable) {
            self.register(port);
        }
    }

    /// Ends a turn because the socket is full or the turn was long enough. The event loop continues when the
    /// socket is writable, which may be at once.
    fn block(&mut self, port: &Port, output: Box<Output>) {
        self.token.block(self.checked(output));
        port.status.set(Flag::BLOCKED);
        self.register(port);
    }

    /// Handles a failed write. The peer's last bytes may still be unread: reading finds the reason for the
    /// end.
    fn fail(&mut self, port: &Port, mut output: Box<Output>) {
        output.buffer.clear();
        self.outbound.discard();
        self.token.block(self.checked(output));
        port.status.set(Flag::BLOCKED);
        port.status.set(Flag::BROKEN);
        port.send(Command::Read(port.key));
    }

    /// Takes the socket away from the writer if the link has ended meanwhile.
    fn checked(&self, mut output: Box<Output>) -> Box<Output> {
        if self.socket.is_none() {
            output.socket = None;
        }
        output
    }

    /// Registers the interest with the kernel, after `status` has changed.
    pub(super) fn register(&mut self, port: &Port) {
        if let Err(error) = self.try_register(port) {
            tracing::error!(link = port.key, %error, "cannot watch a socket: its connection will time out");
        }
    }

    pub(super) fn try_register(&mut self, port: &Port) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| port.register(socket, &mut self.registered))
    }

    /// Lets the event loop watch the socket if nobody reads it.
    pub(super) fn watch_if_unread(&mut self, port: &Port) {
        if port.status.watch_if_unread() {
            self.register(port);
        }
    }

    /// Returns true if the descriptor should be closed now. If a goodbye still waits behind other messages,
    /// drops those and gives the goodbye another [`LINGER`].
    pub(super) fn is_linger_over(&mut self, now: Instant) -> bool {
        if self.linger.until.is_none_or(|until| now < until) {
            return false;
        }
        let hurries = !self.linger.hurries && self.outbound.hurry_goodbye();
        if hurries {
            self.linger = Linger { until: Some(now + LINGER), hurries };
        }
        !hurries
    }
}

/// The time limit of a link that closes.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// `None` while it does not close.
    pub(super) until: Option<Instant>,
    /// The queue was dropped in favour of the goodbye, because the time to close is over.
    hurries: bool,
}

impl Linger {
    /// Closes the descriptor after `within`, unless an earlier time is set.
    pub(super) fn close_within(&mut self, within: Duration, port: &Port) {
        let until = Instant::now() + within.min(MAX_TIME);
        if self.until.is_none_or(|earlier| until < earlier) {
            self.until = Some(until);
            port.send(Command::Timeout(port.key, until));
        }
    }
}

#[cfg(test)]
impl Writer {
    /// Puts the half into the state after a write to a full socket.
    pub(super) fn block(&self, port: &Port) {
        let mut sending = self.lock();
        let output = sending.token.take().expect("the write token is free");
        sending.block(port, output);
    }
}

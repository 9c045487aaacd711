//! Writing to the socket: by whoever holds the right to, for one turn.
//!
//! Flow: somebody has queued something -> `flush` takes the right, or leaves a mark for its holder -> stages and writes, until
//! there is no more, the socket is full or the turn is over; then the poller is told to go on. Never blocks. Bound:
//! `MAX_WRITTEN_BYTES_PER_TURN`, and what was staged when that was passed.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use teleport_wire::MAX_CHUNK_BYTES;

use super::Link;
use super::notsent_window::NotsentWindow;
use crate::memory::deferred_drop::DropScope;
use crate::protocol::{MAX_SEGMENTS_PER_WRITE, WriteBuffer};
use crate::reactor::mailbox::Command;

/// What one turn of writing moves, at most, before something else gets its turn: one chunk. A poller that writes more to a
/// fast reader leaves its other work lying for as long, such as the small call that arrived on the same connection.
const MAX_WRITTEN_BYTES_PER_TURN: usize = MAX_CHUNK_BYTES as usize;

/// What goes to the socket next, and how far the socket is behind.
#[derive(Debug)]
pub(super) struct Writing {
    staged: WriteBuffer,
    window: NotsentWindow,
}

impl Writing {
    pub(super) fn new() -> Writing {
        Writing { staged: WriteBuffer::default(), window: NotsentWindow::new() }
    }
}

impl Link {
    /// Writes what is queued, if no other thread does.
    pub(crate) fn flush(self: &Arc<Self>) {
        if self.write_token.acquire() {
            self.write();
        }
    }

    /// The socket is writable: goes on where a thread stopped.
    pub(crate) fn writable(self: &Arc<Self>) {
        if self.write_token.unblock() {
            self.write();
        }
    }

    /// Called with the right to write; gives it back, or hands it to the poller.
    fn write(self: &Arc<Self>) {
        let _bin = DropScope::enter();
        let mut writing = self.writing.lock();
        let Writing { staged, window } = &mut *writing;
        let mut written = 0;
        loop {
            if staged.is_empty() && !self.stage(staged) {
                window.idle(Instant::now);
                if self.everything_is_written() {
                    return;
                }
                continue;
            }
            // Only now, so that a turn which writes all there is wakes no poller.
            if written >= MAX_WRITTEN_BYTES_PER_TURN {
                return self.hand_over();
            }
            match self.write_once(staged) {
                Ok((bytes, offered)) => {
                    window.wrote(bytes);
                    staged.advance(bytes);
                    self.unwritten.store(staged.remaining_bytes(), Ordering::Relaxed);
                    written += bytes;
                    // Less than all that is staged may have been offered: a system call takes so many pieces.
                    if bytes < offered {
                        return self.is_full(window);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.is_full(window),
                Err(_) => return self.writing_failed(staged),
            }
        }
    }

    /// Gives the right back, unless something was queued meanwhile; true if it did.
    fn everything_is_written(self: &Arc<Self>) -> bool {
        if self.outbound.lock().is_finished() {
            // A goodbye was the last thing to go.
            self.say_no_more();
        }
        self.watch_writable(false);
        self.write_token.release()
    }

    /// What the peer said last may still be unread: reading finds out why the link is over.
    fn writing_failed(self: &Arc<Self>, staged: &mut WriteBuffer) {
        staged.clear();
        self.outbound.lock().discard();
        self.broken.store(true, Ordering::Release);
        self.write_token.block();
        self.poller.send(Command::Read(self.key));
    }

    /// Moves what goes next from the outbox; false if there is nothing.
    fn stage(self: &Arc<Self>, staged: &mut WriteBuffer) -> bool {
        self.coalesce.goes();
        let mut outbound = self.outbound.lock();
        let progress = outbound.poll_write(staged);
        drop(outbound);
        self.tell_drained(progress.drained);
        progress.staged
    }

    /// How many bytes the socket took, of how many that it was offered.
    fn write_once(&self, staged: &WriteBuffer) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = staged.slices(&mut slices);
        let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
        match &*self.socket.read() {
            Some(socket) => Ok((socket.write_vectored(&slices[..filled])?, offered)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The socket takes no more for now.
    fn is_full(&self, window: &mut NotsentWindow) {
        if let Some(bytes) = window.full(Instant::now())
            && let Some(socket) = self.socket.read().as_ref()
        {
            // What it was before will do as well.
            let _ = socket.set_max_unsent(bytes);
        }
        self.hand_over();
    }

    /// The socket is full, or the turn is over: the poller writes on when the socket is writable, which may be at once.
    fn hand_over(&self) {
        self.write_token.block();
        self.watch_writable(true);
    }

    fn watch_writable(&self, writable: bool) {
        // Unchanged and false is the usual case; unchanged and true must fire again.
        if writable || self.watch.lock().writable {
            self.watch(|watch| watch.writable = writable);
        }
    }
}

//! One end of a connection, with leases to drop above it, bytes that arrive below it, and a clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::Config;
use teleport_transport::protocol::{
    Closed, Event, Gate, Inbound, Lease, MAX_SEGMENTS_PER_WRITE, Outbound, Received, Role, WriteBuffer,
    halves,
};
use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

struct Refusing;

impl Gate for Refusing {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        match method {
            "refused" => Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "no such method")),
            _ => Ok(1),
        }
    }
}

pub(super) struct End {
    pub(super) inbound: Inbound,
    pub(super) outbound: RefCell<Outbound>,
    pub(super) config: Arc<Config>,
    staged: WriteBuffer,
    pub(super) arriving: VecDeque<u8>,
    pub(super) events: Vec<Event>,
    /// The leases of messages that the layer above has not dropped.
    pub(super) leases: Vec<Lease>,
    /// Messages that wait for a grant.
    pub(super) wanted: Vec<u64>,
    now: Instant,
}

impl End {
    pub(super) fn new(role: Role, config: Arc<Config>) -> End {
        let now = Instant::now();
        let (inbound, outbound) = halves(role, &config, None, now, || {});
        End {
            inbound,
            outbound: RefCell::new(outbound),
            config,
            staged: WriteBuffer::default(),
            arriving: VecDeque::new(),
            events: Vec::new(),
            leases: Vec::new(),
            wanted: Vec::new(),
            now,
        }
    }

    /// Returns the next bytes to send, at most `at_most`.
    pub(super) fn write(&mut self, at_most: usize) -> Vec<u8> {
        self.stage();
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = self.staged.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(at_most);
        self.staged.advance(bytes.len());
        bytes
    }

    /// Stages the next bytes for the socket without writing them. Later frames must wait for them.
    pub(super) fn stage(&mut self) {
        if self.staged.is_empty() {
            let outbound = &mut *self.outbound.borrow_mut();
            outbound.send_credit();
            outbound.poll_write(&mut self.staged);
        }
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.outbound.borrow_mut().send_credit();
        !self.staged.is_empty() || self.outbound.borrow().has_work()
    }

    /// Reads at most `at_most` of the bytes that have arrived.
    pub(super) fn read(&mut self, at_most: usize) -> Result<Received, Closed> {
        let arriving = &mut self.arriving;
        let mut ahead = [0; 512];
        let read = |slices: &mut [IoSliceMut<'_>]| {
            if arriving.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut read = 0;
            for slice in slices {
                let bytes = slice.len().min(at_most - read).min(arriving.len());
                arriving.read_exact(&mut slice[..bytes])?;
                read += bytes;
            }
            Ok(read)
        };
        self.inbound.on_readable(self.now, &mut ahead, &self.outbound, &Refusing, &mut self.events, read)
    }

    pub(super) fn grant(&mut self, index: usize) {
        if !self.wanted.is_empty() {
            let id = self.wanted.swap_remove(index % self.wanted.len());
            self.inbound.send_grant(id, None, &self.outbound);
        }
    }

    /// Drops the lease of one message.
    pub(super) fn release(&mut self, index: usize) {
        if !self.leases.is_empty() {
            drop(self.leases.swap_remove(index % self.leases.len()));
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.inbound.handle_timeout(self.now, &self.outbound).expect("no run takes that long");
        assert!(self.inbound.poll_timeout() > self.now);
    }

    /// Lets the connection be silent for longer than it may live.
    pub(super) fn fall_silent(&mut self) -> Closed {
        // Each timeout is handled on time: a gap would count as a pause of this process.
        for _ in 0..2000 {
            self.now = self.inbound.poll_timeout();
            if let Err(closed) = self.inbound.handle_timeout(self.now, &self.outbound) {
                return closed;
            }
        }
        panic!("it was silent for longer than any connection lives");
    }

    /// Checks that the layer above holds no more eager payload than this end offered.
    pub(super) fn check_leases(&self) {
        let held: u64 = self.leases.iter().map(Lease::eager_bytes).sum();
        assert!(held <= self.config.eager_credit_bytes, "{held} bytes of credit are held");
        let outbound = self.outbound.borrow();
        if let Some(peer) = outbound.peer() {
            assert!(outbound.ledger().credit_bytes() <= peer.eager_credit_bytes);
        }
    }
}

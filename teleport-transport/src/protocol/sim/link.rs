//! One connection of the simulation: two ends, and for each direction a pipe that can stall, swallow,
//! change and be cut.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::sync::Arc;
use std::time::Instant;

use super::super::*;
use super::arranger::Arranger;
use super::audit::{Audit, Way};
use crate::memory::budget::Budget;

pub(super) struct End {
    pub(super) inbound: Inbound,
    pub(super) outbound: RefCell<Outbound>,
    pub(super) staged: WriteBuffer,
    ahead: Vec<u8>,
    pub(super) events: Vec<Event>,
}

impl End {
    fn new(role: Role, config: &Arc<Config>, budget: Option<Budget>, now: Instant) -> End {
        let (inbound, outbound) = halves(role, config, budget, now, || {});
        let (staged, ahead) = (WriteBuffer::default(), vec![0; 4 << 10]);
        End { inbound, outbound: RefCell::new(outbound), staged, ahead, events: Vec::new() }
    }

    /// Returns the next bytes to send, at most `at_most`.
    fn write(&mut self, at_most: usize) -> Vec<u8> {
        if self.staged.is_empty() {
            let outbound = &mut *self.outbound.borrow_mut();
            outbound.send_credit();
            outbound.poll_write(&mut self.staged);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = self.staged.slices(&mut slices);
        let mut written = Vec::new();
        for slice in &slices[..filled] {
            let bytes = slice.len().min(at_most - written.len());
            written.extend_from_slice(&slice[..bytes]);
        }
        self.staged.advance(written.len());
        written
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.outbound.borrow_mut().send_credit();
        !self.staged.is_empty() || self.outbound.borrow().has_work()
    }
}

/// The bytes that are on their way in one direction.
#[derive(Default)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    /// The receiver can read nothing for now.
    pub(super) is_stalled: bool,
    /// New bytes are lost.
    pub(super) swallows: bool,
    /// The connection is cut after this number of bytes.
    pub(super) cut_after: Option<usize>,
    /// A byte of the next chunk is changed.
    pub(super) changes: bool,
    /// Set once nothing more is sent. Holds the time at which the receiver learns of it, if it ever
    /// does.
    over: Option<Option<Instant>>,
}

impl Pipe {
    fn push(&mut self, bytes: &[u8]) {
        let kept = self.cut_after.map_or(bytes.len(), |left| left.min(bytes.len()));
        if let Some(left) = &mut self.cut_after {
            *left -= kept;
        }
        if !self.swallows && self.over.is_none() {
            self.bytes.extend(&bytes[..kept]);
        }
    }

    fn is_cut(&self) -> bool {
        self.cut_after == Some(0) && self.over.is_none()
    }

    /// Ends the stream. The last `lost` bytes of the pipe never arrive.
    pub(super) fn end(&mut self, lost: usize, learned: Option<Instant>) {
        if self.over.is_none() {
            self.bytes.truncate(self.bytes.len().saturating_sub(lost));
            self.over = Some(learned);
        }
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    fn read(&mut self, slices: &mut [IoSliceMut<'_>], now: Instant, at_most: usize) -> io::Result<usize> {
        if self.is_stalled || (self.bytes.is_empty() && !self.is_over(now)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut read = 0;
        for slice in slices {
            let bytes = slice.len().min(at_most - read).min(self.bytes.len());
            self.bytes.read_exact(&mut slice[..bytes])?;
            read += bytes;
        }
        Ok(read)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.over.flatten().is_some_and(|learned| learned <= now)
    }

    fn has_input(&self, now: Instant) -> bool {
        !self.is_stalled && (!self.bytes.is_empty() || self.is_over(now))
    }
}

pub(super) struct Link {
    pub(super) key: u64,
    /// The index of the client.
    pub(super) client: usize,
    gate: Arranger,
    /// The senders of both ways: the client, then the server. `None` once that side knows of the end.
    pub(super) ends: [Option<End>; 2],
    pub(super) pipes: [Pipe; 2],
    pub(super) audit: Audit,
    /// Something delayed or lost bytes.
    pub(super) was_disturbed: bool,
    /// Messages with a changed byte.
    pub(super) changed: Vec<u64>,
}

impl Link {
    pub(super) fn new(
        key: u64,
        client: usize,
        configs: [&Arc<Config>; 2],
        gate: Arranger,
        budget: &Budget,
        now: Instant,
    ) -> Link {
        let [own, peers] = configs;
        Link {
            key,
            client,
            gate,
            ends: [
                Some(End::new(Role::Client, own, None, now)),
                Some(End::new(Role::Server, peers, Some(budget.clone()), now)),
            ],
            pipes: [Pipe::default(), Pipe::default()],
            audit: Audit::new(),
            was_disturbed: false,
            changed: Vec::new(),
        }
    }

    /// The sender of this way writes. Returns whether it sent anything, and whether that cut the
    /// connection.
    pub(super) fn write(&mut self, way: Way, at_most: usize) -> (bool, bool) {
        let (Some(end), pipe) = (&mut self.ends[way as usize], &mut self.pipes[way as usize]) else {
            return (false, false);
        };
        let mut bytes = end.write(at_most);
        let payload = self.audit.checked_payload(way);
        let payload = payload.filter(|(_, place)| pipe.changes && place.start < bytes.len());
        self.audit.sent(way, &bytes);
        if let Some((id, place)) = payload {
            let middle = (place.start + place.end.min(bytes.len())) / 2;
            bytes[middle] ^= 16;
            pipe.changes = false;
            self.changed.push(id);
        }
        pipe.push(&bytes);
        (!bytes.is_empty(), pipe.is_cut())
    }

    /// The receiver of this way reads once. Returns `None` if that side has ended.
    pub(super) fn read(
        &mut self,
        way: Way,
        now: Instant,
        at_most: usize,
    ) -> Option<Result<Received, Closed>> {
        let (end, pipe) = (self.ends[way.back() as usize].as_mut()?, &mut self.pipes[way as usize]);
        let End { inbound, outbound, ahead, events, .. } = end;
        let read = |slices: &mut [IoSliceMut<'_>]| pipe.read(slices, now, at_most);
        Some(inbound.on_readable(now, ahead, outbound, &self.gate, events, read))
    }

    /// Returns true if the receiver of this way would find bytes, or the end.
    pub(super) fn has_input(&self, way: Way, now: Instant) -> bool {
        self.ends[way.back() as usize].is_some() && self.pipes[way as usize].has_input(now)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }

    /// Describes the link, for the report of a run that does not finish.
    pub(super) fn state(&self) -> String {
        let of = |way: Way| {
            let (end, pipe) = (&self.ends[way as usize], &self.pipes[way as usize]);
            let unwritten = end
                .as_ref()
                .map(|end| (end.staged.remaining_bytes(), end.outbound.borrow().ledger().queued_bytes()));
            let unfinished = end.as_ref().map(|end| end.inbound.unfinished());
            let flags = (pipe.is_stalled, pipe.swallows, pipe.over.is_some());
            format!(
                "unwritten {unwritten:?}, unfinished {unfinished:?}, on its way {}, {flags:?}",
                pipe.length()
            )
        };
        format!("{} of client {}: {} | {}", self.key, self.client, of(Way::Up), of(Way::Down))
    }

    /// Returns true if both sides hear each other, nothing is on its way, and nothing waits to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        self.pipes.iter().all(|pipe| pipe.bytes.is_empty() && !pipe.swallows && pipe.over.is_none())
            && self.ends.iter().all(|end| end.as_ref().is_some_and(|end| !end.has_unwritten()))
    }
}

//! One message whose payload is arriving: which memory its next byte belongs to.
//!
//! Flow: `Incoming::new` (the head came) -> `admit` (its memory is paid for) -> `place`/`placed` (read in place) or
//! `copy` (what the read-ahead caught) -> `finish` (the tree). Memory is taken from the pool when the first byte comes, unless
//! the layer above has a row of a slab for the call: whoever arranges rows may move it meanwhile, so it is locked for each
//! read. What comes of a message that was refused is only counted; neither memory nor structure is kept for it.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_wire::{Buffer, DecodeError, Order, RemoteError, Run, Signature, Tree};

use crate::config::Config;
use crate::memory::budget::Charge;
use crate::memory::pool::MemoryError;
use crate::memory::rows::{RowGuard, Ticket};
use crate::protocol::calls::LARGE_STRUCTURE_BYTES;
use crate::protocol::event::Gate;
use crate::protocol::ledger::{Lease, ReturnedCredit};

/// Segments of one message offered to one read; more arrive with the next.
pub(super) const MAX_SEGMENTS_PER_READ: usize = 16;

/// What a message is, as far as its head tells.
#[derive(Debug)]
pub(super) enum Subject {
    Call { slot: u32, deadline: Option<Deadline>, idempotent: bool, resume: bool },
    Answer,
}

/// A duration from the wire, counted from when the call's head arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) arrived: Instant,
    pub(super) time: Duration,
}

/// What a message's head told of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) subject: Subject,
    pub(super) signature: Arc<Signature>,
    pub(super) order: Order,
}

#[derive(Debug)]
enum Target {
    /// The head came, and no byte of the payload did; or the message was refused, and what still comes of it is dropped.
    None,
    /// Invariant: the buffer has one owner and is `Signature::memory_bytes` long.
    Memory(Buffer),
    /// A call that is received into the row of a slab.
    Row(Ticket),
}

/// Where the next bytes of a message belong, for one read.
pub(super) enum Place<'a> {
    /// The runs from the one that holds the next byte on, and how much of the payload is there.
    Memory(&'a [Run], u64, &'a mut [u8]),
    Row(RowGuard<'a>),
    /// Nowhere: they are dropped.
    None,
}

/// Why there is no place for a message's payload.
pub(super) enum Unplaced {
    Memory(MemoryError),
    Refused(RemoteError),
}

/// A message that came whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) subject: Subject,
    /// Null if it lies in a row.
    pub(super) tree: Result<Tree, DecodeError>,
    pub(super) lease: Lease,
    pub(super) row: Option<Ticket>,
}

#[derive(Debug)]
pub(super) struct Incoming {
    /// None if it was refused. Invariant: then the target is none too.
    plan: Option<Plan>,
    target: Target,
    payload_bytes: u64,
    /// What the payload costs: its memory with each leaf at its alignment.
    memory_bytes: u64,
    /// Payload bytes that have come.
    received_bytes: u64,
    /// The run that holds the next byte.
    run: usize,
    /// Payload bytes in chunks that were announced, received or not.
    announced_bytes: u64,
    /// In which window of the connection's pace it was admitted.
    window: u32,
    /// Pays for the memory; none until the message is granted. Invariant: dropped after `target`, so that memory which
    /// no user gets never counts as held by one.
    lease: Option<Lease>,
}

impl Incoming {
    pub(super) fn new(plan: Plan) -> Incoming {
        Incoming {
            payload_bytes: plan.signature.payload_bytes(),
            memory_bytes: plan.signature.memory_bytes() as u64,
            plan: Some(plan),
            target: Target::None,
            received_bytes: 0,
            run: 0,
            announced_bytes: 0,
            window: 0,
            lease: None,
        }
    }

    /// A message that nobody wants, whose payload may still come.
    pub(super) fn dropped(plan: Plan) -> Incoming {
        let mut dropped = Incoming::new(plan);
        dropped.drop_payload();
        dropped
    }

    /// Grants the message, paid by `charge`. Returns false if it was granted before, or if the charge is not of its size.
    pub(super) fn admit(&mut self, charge: Option<Charge>) -> bool {
        let pays = charge.as_ref().is_none_or(|charge| charge.bytes() == self.memory_bytes);
        let is_new = pays && self.lease.is_none();
        if is_new {
            self.lease = Some(Lease::charged(charge));
        }
        is_new
    }

    /// Grants the message, paid by the eager credit.
    pub(super) fn admit_eager(&mut self, credit: &Arc<ReturnedCredit>) {
        self.lease = Some(Lease::eager(self.memory_bytes, credit));
    }

    /// Takes note of the window in which it was admitted.
    pub(super) fn note_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Whether its payload may come and it holds memory of a budget, since before `window` began.
    pub(super) fn holds_charge_before(&self, window: u32) -> bool {
        let Some(plan) = &self.plan else { return false };
        let Some(lease) = &self.lease else { return false };
        let is_charged = lease.is_charged() || plan.signature.structure_bytes() > LARGE_STRUCTURE_BYTES;
        is_charged && self.window < window
    }

    /// Gives its memory back, but for credit, which goes back with the last of it. What comes of it is dropped.
    pub(super) fn give_up(&mut self) {
        self.drop_payload();
        self.lease = self.lease.take().map(|lease| if lease.is_charged() { Lease::default() } else { lease });
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.lease.is_some()
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.plan.is_none()
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received_bytes == self.payload_bytes
    }

    /// Takes note of a chunk's header; false if the chunk holds more than the message lacks.
    pub(super) fn announce(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.payload_bytes - self.announced_bytes;
        self.announced_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Whether payload follows the chunk that was announced last.
    pub(super) fn has_more_chunks(&self) -> bool {
        self.announced_bytes < self.payload_bytes
    }

    /// Finds the place for the payload, once: the row that the layer above has for a call, or memory from the pool.
    pub(super) fn find_place(&mut self, gate: &dyn Gate, config: &Config) -> Result<(), Unplaced> {
        let (Some(plan), Target::None) = (&self.plan, &self.target) else { return Ok(()) };
        if let Subject::Call { slot, .. } = plan.subject {
            let row = gate.place(slot, &plan.signature, &plan.order).map_err(Unplaced::Refused)?;
            if let Some(ticket) = row {
                self.target = Target::Row(ticket);
                return Ok(());
            }
        }
        if self.memory_bytes > 0 {
            self.target = Target::Memory(self.memory(config)?);
        }
        Ok(())
    }

    fn memory(&mut self, config: &Config) -> Result<Buffer, Unplaced> {
        let memory = config.pool.alloc(self.memory_bytes as usize).map_err(Unplaced::Memory)?;
        let Some(lent) = &config.lent else { return Ok(memory) };
        let (memory, handoff) = lent.watch(memory);
        if let Some(lease) = &mut self.lease {
            lease.set_handoff(handoff);
        }
        Ok(memory)
    }

    /// From now on, what comes of the message is dropped.
    pub(super) fn drop_payload(&mut self) {
        self.plan = None;
        self.target = Target::None;
    }

    /// Where the next bytes belong. A row stays where it is for as long as this lives.
    pub(super) fn place(&mut self) -> Place<'_> {
        match (&mut self.target, &self.plan) {
            (Target::Memory(memory), Some(plan)) => match memory.get_mut() {
                Some(memory) => {
                    Place::Memory(&plan.signature.runs()[self.run..], self.received_bytes, memory)
                }
                None => Place::None,
            },
            (Target::Row(ticket), _) => Place::Row(ticket.row().lock()),
            _ => Place::None,
        }
    }

    /// Takes note of bytes that were read into their place.
    pub(super) fn placed(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        let (Target::Memory(_), Some(plan)) = (&self.target, &self.plan) else { return };
        let runs = plan.signature.runs();
        while runs
            .get(self.run)
            .is_some_and(|run| run.payload_start + run.bytes as u64 <= self.received_bytes)
        {
            self.run += 1;
        }
    }

    /// Copies bytes to where they belong.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        match (&mut self.target, &self.plan) {
            (Target::Memory(memory), Some(plan)) => {
                let runs = &plan.signature.runs()[self.run..];
                if let Some(memory) = memory.get_mut() {
                    copy_to_runs(runs, self.received_bytes, memory, bytes);
                }
            }
            (Target::Row(ticket), _) => ticket.row().push(bytes),
            _ => {}
        }
        self.placed(bytes.len());
    }

    /// The checksum of the `bytes` payload bytes that came last, computed where they lie; none if they were dropped.
    pub(super) fn checksum_of_last(&self, bytes: usize) -> Option<u32> {
        let (start, end) = (self.received_bytes - bytes as u64, self.received_bytes);
        let (plan, memory) = match (&self.plan, &self.target) {
            (Some(plan), Target::Memory(memory)) => (plan, memory),
            (_, Target::Row(ticket)) => return ticket.row().lock().checksum(start..end),
            _ => return None,
        };
        let mut crc = 0;
        for run in plan.signature.runs() {
            let run_end = run.payload_start + run.bytes as u64;
            if run_end <= start || run.payload_start >= end {
                continue;
            }
            let from = start.max(run.payload_start) - run.payload_start;
            let to = end.min(run_end) - run.payload_start;
            let place = run.memory_start + from as usize..run.memory_start + to as usize;
            crc = teleport_wire::checksum(crc, &memory[place]);
        }
        Some(crc)
    }

    /// Returns the message, whole; none if it was dropped.
    pub(super) fn finish(self) -> Option<Whole> {
        let lease = self.lease.unwrap_or_default();
        let Plan { subject, signature, order } = self.plan?;
        let memory = match self.target {
            Target::None => Buffer::empty(),
            Target::Memory(memory) => memory,
            Target::Row(ticket) => {
                return Some(Whole { subject, tree: Ok(Tree::Null), lease, row: Some(ticket) });
            }
        };
        Some(Whole { subject, tree: signature.build(&order, memory), lease, row: None })
    }
}

/// Copies the payload bytes from `at` on to where they belong; the first of `runs` holds that one.
fn copy_to_runs(runs: &[Run], at: u64, memory: &mut [u8], bytes: &[u8]) {
    let (mut at, mut rest) = (at, bytes);
    for run in runs {
        let skip = (at - run.payload_start) as usize;
        let (now, later) = rest.split_at(rest.len().min(run.bytes - skip));
        memory[run.memory_start + skip..][..now.len()].copy_from_slice(now);
        at += now.len() as u64;
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
    debug_assert!(rest.is_empty(), "bytes past the end of a message were checked by `announce`");
}

impl Place<'_> {
    /// Fills `slices` with the places of the next bytes, up to `bytes` of them, and says how many slices and bytes that are.
    pub(super) fn slices<'a>(
        &'a mut self,
        bytes: usize,
        slices: &mut [IoSliceMut<'a>; MAX_SEGMENTS_PER_READ],
    ) -> (usize, usize) {
        let (runs, received_bytes, memory) = match self {
            Place::Memory(runs, received_bytes, memory) => (*runs, *received_bytes, memory),
            Place::Row(row) => return row.slices(bytes, slices),
            Place::None => return (0, 0),
        };
        let mut rest = &mut **memory;
        let (mut filled, mut offered, mut rest_start) = (0, 0, 0);
        let mut next = received_bytes;
        for run in runs {
            if filled == MAX_SEGMENTS_PER_READ || offered == bytes {
                break;
            }
            let skip = (next - run.payload_start) as usize;
            let length = (run.bytes - skip).min(bytes - offered);
            let start = run.memory_start + skip;
            let (place, behind) = rest[start - rest_start..].split_at_mut(length);
            slices[filled] = IoSliceMut::new(place);
            rest = behind;
            rest_start = start + length;
            next += length as u64;
            offered += length;
            filled += 1;
        }
        (filled, offered)
    }

    /// Takes note, of a row, before others see it again: bytes were read into the slices.
    pub(super) fn filled(mut self, bytes: usize) {
        if let Place::Row(row) = &mut self {
            row.placed(bytes);
        }
    }
}

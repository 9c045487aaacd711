//! One message whose payload is arriving, and the memory for its next bytes.
//!
//! Flow: `Incoming::new` (the head arrived) -> `admit` (its memory is charged) -> `read_target` and
//! `on_placed` (read in place) or `copy` (from the read-ahead buffer) -> `finish` (the tree). Memory is taken
//! from the pool at the first byte, unless the layer above has a row of a slab for the call. Another thread
//! may move a row, so it is locked for each read. The payload of a refused message is only counted; neither
//! memory nor structure is kept for it.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{Buffer, DecodeError, ErrorKind, Order, Ran, RemoteError, Run, Signature, Tree};

use super::known::Metadata;
use crate::config::Config;
use crate::memory::budget::Charge;
use crate::memory::rows::{RowGuard, Ticket};
use crate::protocol::calls::LARGE_STRUCTURE_BYTES;
use crate::protocol::event::{Call, Event, Gate, Reply};
use crate::protocol::ledger::{Lease, MAX_UNLEASED_BYTES, ReturnedCredit};

/// The segments of one message that one read gets. More are read with the next one.
pub(super) const MAX_SEGMENTS_PER_READ: usize = 16;

/// The head of a message.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) kind: HeadKind,
    pub(super) signature: Arc<Signature>,
    pub(super) order: Order,
}

impl Head {
    pub(super) fn new(kind: HeadKind, metadata: &Metadata) -> Head {
        Head { kind, signature: metadata.signature.clone(), order: metadata.order.clone() }
    }
}

#[derive(Debug)]
pub(super) enum HeadKind {
    Call { slot: u32, has_rows: bool, deadline: Option<Instant>, idempotent: bool, resume: bool },
    Result,
}

impl HeadKind {
    /// Adds the event of a complete message.
    // In each arm, so that the event is built where it stays.
    #[inline(always)]
    pub(super) fn report(
        self,
        events: &mut Vec<Event>,
        id: u64,
        tree: Result<Tree, DecodeError>,
        row: Option<Ticket>,
        lease: Lease,
    ) {
        match self {
            HeadKind::Call { slot, deadline, idempotent, resume, .. } => {
                events.push(Event::Call(Call { id, slot, tree, row, deadline, idempotent, resume, lease }));
            }
            HeadKind::Result => events.push(Event::Answer { id, answer: Ok(Reply { tree, lease }) }),
        }
    }
}

#[derive(Debug)]
enum Storage {
    /// No payload has arrived, or the message was refused and the rest of it is dropped.
    None,
    /// Invariant: the buffer has one owner and is `Signature::memory_bytes` long.
    Memory(Buffer),
    /// A call whose payload is received into the row of a slab.
    Row(Ticket),
}

/// Allocates memory for a payload, which `lease` pays for.
pub(super) fn payload_memory(config: &Config, bytes: u64, lease: &mut Lease) -> Result<Buffer, RemoteError> {
    let memory = config.pool.alloc(bytes as usize);
    let memory =
        memory.map_err(|error| RemoteError::new(ErrorKind::Overloaded, Ran::No, error.to_string()))?;
    let Some(lent) = &config.lent else { return Ok(memory) };
    let (memory, handoff) = lent.watch(memory);
    lease.set_handoff(handoff);
    Ok(memory)
}

/// The memory for the next bytes of a message, for one read.
pub(super) enum ReadTarget<'a> {
    /// The runs from the one with the next byte on, the received payload bytes, and the memory.
    Memory(&'a [Run], u64, &'a mut [u8]),
    Row(RowGuard<'a>),
    /// The bytes are dropped.
    None,
}

#[derive(Debug)]
pub(super) struct Incoming {
    /// `None` if it was refused. Invariant: then the storage is `None` too.
    head: Option<Head>,
    storage: Storage,
    payload_bytes: u64,
    /// The memory of the payload, with each leaf at its alignment.
    memory_bytes: u64,
    /// The received payload bytes.
    received_bytes: u64,
    /// The run that holds the next byte.
    run: usize,
    /// The payload bytes of all announced chunks, received or not.
    announced_bytes: u64,
    /// The window of the minimum rate in which it was admitted.
    window: u32,
    /// Pays for the memory; `None` until the message is granted. Invariant: dropped after `storage`, so that
    /// memory that no user gets never counts as held by one.
    lease: Option<Lease>,
    /// The eager credit that it uses without a lease.
    unleased_bytes: u64,
}

impl Incoming {
    pub(super) fn new(head: Head) -> Incoming {
        Incoming {
            payload_bytes: head.signature.payload_bytes(),
            memory_bytes: head.signature.memory_bytes() as u64,
            head: Some(head),
            storage: Storage::None,
            received_bytes: 0,
            run: 0,
            announced_bytes: 0,
            window: 0,
            lease: None,
            unleased_bytes: 0,
        }
    }

    /// Creates a message that nobody wants, but whose payload may still arrive.
    pub(super) fn dropped(head: Head) -> Incoming {
        let mut dropped = Incoming::new(head);
        dropped.drop_payload();
        dropped
    }

    /// Grants the message, paid by `charge`. Returns false if it was granted before, or if the charge has
    /// another size.
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
        if self.memory_bytes > MAX_UNLEASED_BYTES {
            self.lease = Some(Lease::eager(self.memory_bytes, credit));
        } else {
            self.lease = Some(Lease::default());
            self.unleased_bytes = self.memory_bytes;
        }
    }

    /// Returns the eager credit that is returned at the end of the message, complete or not.
    pub(super) fn unleased_bytes(&self) -> u64 {
        self.unleased_bytes
    }

    /// Notes the window in which it was admitted.
    pub(super) fn note_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Returns true if it holds memory of a budget since before `window` began.
    pub(super) fn holds_charge_before(&self, window: u32) -> bool {
        let Some(head) = &self.head else { return false };
        let Some(lease) = &self.lease else { return false };
        let is_charged = lease.is_charged() || head.signature.structure_bytes() > LARGE_STRUCTURE_BYTES;
        is_charged && self.window < window
    }

    /// Drops its payload and frees its memory. Eager credit returns when the last byte has arrived.
    pub(super) fn give_up(&mut self) {
        self.drop_payload();
        self.lease = self.lease.take().map(|lease| if lease.is_charged() { Lease::default() } else { lease });
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.lease.is_some()
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.head.is_none()
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

    /// A chunk begins. Returns false if it exceeds the rest of the message.
    pub(super) fn announce(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.payload_bytes - self.announced_bytes;
        self.announced_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Returns true if payload follows the last chunk.
    pub(super) fn has_more_chunks(&self) -> bool {
        self.announced_bytes < self.payload_bytes
    }

    /// Finds the memory for the payload, once: a row of the layer above for a call, or memory from the pool.
    pub(super) fn find_place(&mut self, gate: &dyn Gate, config: &Config) -> Result<(), RemoteError> {
        let (Some(head), Storage::None) = (&self.head, &self.storage) else { return Ok(()) };
        if let HeadKind::Call { slot, has_rows: true, .. } = head.kind {
            let row = gate.place(slot, &head.signature, &head.order)?;
            if let Some(ticket) = row {
                self.storage = Storage::Row(ticket);
                return Ok(());
            }
        }
        let lease = self.lease.get_or_insert_default();
        self.storage = Storage::Memory(payload_memory(config, self.memory_bytes, lease)?);
        Ok(())
    }

    /// Drops the payload that arrived or still arrives.
    pub(super) fn drop_payload(&mut self) {
        self.head = None;
        self.storage = Storage::None;
    }

    /// Returns the memory for the next bytes. A row does not move while the result lives.
    pub(super) fn read_target(&mut self) -> ReadTarget<'_> {
        match (&mut self.storage, &self.head) {
            (Storage::Memory(memory), Some(head)) => match memory.get_mut() {
                Some(memory) => {
                    ReadTarget::Memory(&head.signature.runs()[self.run..], self.received_bytes, memory)
                }
                None => ReadTarget::None,
            },
            (Storage::Row(ticket), _) => ReadTarget::Row(ticket.row().lock()),
            _ => ReadTarget::None,
        }
    }

    /// Counts bytes that were read in place.
    pub(super) fn on_placed(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        let (Storage::Memory(_), Some(head)) = (&self.storage, &self.head) else { return };
        let runs = head.signature.runs();
        while runs
            .get(self.run)
            .is_some_and(|run| run.payload_start + run.bytes as u64 <= self.received_bytes)
        {
            self.run += 1;
        }
    }

    /// Copies bytes to their place.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        match (&mut self.storage, &self.head) {
            (Storage::Memory(memory), Some(head)) => {
                let runs = &head.signature.runs()[self.run..];
                if let Some(memory) = memory.get_mut() {
                    copy_to_runs(runs, self.received_bytes, memory, bytes);
                }
            }
            (Storage::Row(ticket), _) => ticket.row().push(bytes),
            _ => {}
        }
        self.on_placed(bytes.len());
    }

    /// Returns the checksum of the last `bytes` payload bytes, or `None` if they were dropped.
    pub(super) fn checksum_of_last(&self, bytes: usize) -> Option<u32> {
        let (start, end) = (self.received_bytes - bytes as u64, self.received_bytes);
        let (head, memory) = match (&self.head, &self.storage) {
            (Some(head), Storage::Memory(memory)) => (head, memory),
            (_, Storage::Row(ticket)) => return ticket.row().lock().checksum(start..end),
            _ => return None,
        };
        let mut crc = 0;
        for run in head.signature.runs() {
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

    /// Adds the event of a complete message, unless it was dropped.
    pub(super) fn finish(self, events: &mut Vec<Event>, id: u64) {
        let lease = self.lease.unwrap_or_default();
        let Some(Head { kind, signature, order }) = self.head else { return };
        let (tree, row) = match self.storage {
            Storage::None => (signature.build(&order, Buffer::empty()), None),
            Storage::Memory(memory) => (signature.build(&order, memory), None),
            Storage::Row(ticket) => (Ok(Tree::Null), Some(ticket)),
        };
        kind.report(events, id, tree, row, lease);
    }
}

/// Copies the payload bytes from `at` on to their place. The first of `runs` holds the byte at `at`.
pub(super) fn copy_to_runs(runs: &[Run], at: u64, memory: &mut [u8], bytes: &[u8]) {
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

impl ReadTarget<'_> {
    /// Fills `slices` with the memory for the next bytes, up to `bytes` of them. Returns the number of slices
    /// and of bytes.
    pub(super) fn slices<'a>(
        &'a mut self,
        bytes: usize,
        slices: &mut [IoSliceMut<'a>; MAX_SEGMENTS_PER_READ],
    ) -> (usize, usize) {
        let (runs, received_bytes, memory) = match self {
            ReadTarget::Memory(runs, received_bytes, memory) => (*runs, *received_bytes, memory),
            ReadTarget::Row(row) => return row.slices(bytes, slices),
            ReadTarget::None => return (0, 0),
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

    /// Counts the bytes that were read into the slices. Updates a row before other threads see it again.
    pub(super) fn on_read(mut self, bytes: usize) {
        if let ReadTarget::Row(row) = &mut self {
            row.placed(bytes);
        }
    }
}

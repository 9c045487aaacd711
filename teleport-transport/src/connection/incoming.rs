//! One message whose payload is arriving: which memory its next byte belongs to.
//!
//! Flow: `Incoming::new` (the head came) -> `admit` (its memory is paid for) -> `slices`/`placed` (read in place) or
//! `copy` (what the read-ahead caught) -> `finish` (the tree). Memory is taken from the pool when the first byte comes.
//! What comes of a message that was refused is only counted; neither memory nor structure is kept for it.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_wire::{Buffer, DecodeError, Order, Signature, Tree};

use super::Hold;
use super::calls::LARGE_STRUCTURE_BYTES;
use crate::lent::{Lent, Loan};
use crate::pool::{MemoryError, Pool};

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
    /// The head came; no byte of the payload did.
    None(Plan),
    /// Invariant: the buffer has one owner and is `Signature::memory_bytes` long.
    Memory(Plan, Buffer),
    /// The message was refused: what still comes of it is dropped.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Incoming {
    target: Target,
    payload_bytes: u64,
    /// What the payload costs: its memory with each leaf at its alignment.
    memory_bytes: u64,
    /// Payload bytes that have come.
    received_bytes: u64,
    /// The run that holds the next byte.
    run: usize,
    /// What pays for the memory; none until the message was granted.
    hold: Option<Hold>,
    /// Payload bytes in chunks that were announced, received or not.
    announced_bytes: u64,
    /// In which window of the connection's pace it was admitted.
    window: u32,
    /// Of the memory, where that is counted. Invariant: dropped after `target`, so that memory which nobody gets never counts.
    loan: Option<Loan>,
}

impl Incoming {
    pub(super) fn new(plan: Plan) -> Incoming {
        Incoming {
            payload_bytes: plan.signature.payload_bytes(),
            memory_bytes: plan.signature.memory_bytes() as u64,
            target: Target::None(plan),
            received_bytes: 0,
            run: 0,
            hold: None,
            announced_bytes: 0,
            window: 0,
            loan: None,
        }
    }

    /// A message that nobody wants, whose payload may still come.
    pub(super) fn dropped(plan: Plan) -> Incoming {
        Incoming { target: Target::Dropped, ..Incoming::new(plan) }
    }

    /// The memory is paid for, if it was not and `hold` is as much as it takes; true then.
    pub(super) fn admit(&mut self, hold: Hold) -> bool {
        let pays = match &hold {
            Hold::None => true,
            Hold::Eager { bytes } => *bytes == self.memory_bytes,
            Hold::Charged(charge) => charge.bytes() == self.memory_bytes,
            // Of whole messages only.
            Hold::Lent { .. } => false,
        };
        let is_new = pays && self.hold.is_none();
        if is_new {
            self.hold = Some(hold);
        }
        is_new
    }

    /// So much of the eager credit pays for it; nothing pays yet where that is 0.
    pub(super) fn charge_eager(&mut self, bytes: u64) {
        if bytes > 0 {
            self.admit(Hold::Eager { bytes });
        }
    }

    /// Takes note of the window in which it was admitted.
    pub(super) fn note_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Whether its payload may come and it holds memory of a budget, since before `window` began.
    pub(super) fn holds_charge_before(&self, window: u32) -> bool {
        let (Target::None(plan) | Target::Memory(plan, _)) = &self.target else { return false };
        let is_charged = match &self.hold {
            None => false,
            Some(Hold::Charged(_)) => true,
            Some(_) => plan.signature.structure_bytes() > LARGE_STRUCTURE_BYTES,
        };
        is_charged && self.window < window
    }

    /// Gives its memory back, but for credit, which goes back with the last of it. What comes of it is dropped.
    pub(super) fn give_up(&mut self) {
        self.drop_payload();
        if let Some(Hold::Charged(_)) = self.hold {
            self.hold = Some(Hold::None);
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.hold.is_some()
    }

    pub(super) fn is_dropped(&self) -> bool {
        matches!(self.target, Target::Dropped)
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

    /// Takes the memory from the pool, once.
    pub(super) fn allocate(&mut self, pool: &Pool, lent: Option<&Lent>) -> Result<(), MemoryError> {
        if let Target::None(plan) = &self.target {
            let mut memory = pool.alloc(plan.signature.memory_bytes())?;
            if let Some(lent) = lent {
                (memory, self.loan) = lent.watch(memory);
            }
            if let Target::None(plan) = std::mem::replace(&mut self.target, Target::Dropped) {
                self.target = Target::Memory(plan, memory);
            }
        }
        Ok(())
    }

    /// From now on, what comes of the message is dropped.
    pub(super) fn drop_payload(&mut self) {
        self.target = Target::Dropped;
    }

    /// Fills `slices` with the places of the next bytes, up to `bytes` of them, and says how many slices and bytes it
    /// offers. Nothing for a message that is dropped.
    pub(super) fn slices<'a>(
        &'a mut self,
        bytes: usize,
        slices: &mut [IoSliceMut<'a>; MAX_SEGMENTS_PER_READ],
    ) -> (usize, usize) {
        let Target::Memory(plan, memory) = &mut self.target else { return (0, 0) };
        let Some(mut rest) = memory.get_mut() else { return (0, 0) };
        let (mut filled, mut offered, mut rest_start) = (0, 0, 0);
        let mut next = self.received_bytes;
        for run in &plan.signature.runs()[self.run..] {
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

    /// Takes note of bytes that were read into the slices.
    pub(super) fn placed(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        let Target::Memory(plan, _) = &self.target else { return };
        let runs = plan.signature.runs();
        while runs
            .get(self.run)
            .is_some_and(|run| run.payload_start + run.bytes as u64 <= self.received_bytes)
        {
            self.run += 1;
        }
    }

    /// Copies bytes to where they belong.
    pub(super) fn copy(&mut self, mut bytes: &[u8]) {
        if self.is_dropped() {
            return self.placed(bytes.len());
        }
        while !bytes.is_empty() {
            let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let (filled, offered) = self.slices(bytes.len(), &mut slices);
            for slice in &mut slices[..filled] {
                let (now, later) = bytes.split_at(slice.len());
                slice.copy_from_slice(now);
                bytes = later;
            }
            if offered == 0 {
                debug_assert!(false, "bytes past the end of a message were checked by `announce`");
                return;
            }
            self.placed(offered);
        }
    }

    /// The checksum of the `bytes` payload bytes that came last, computed where they lie.
    pub(super) fn checksum_of_last(&self, bytes: usize) -> u32 {
        let Target::Memory(plan, memory) = &self.target else { return 0 };
        let (start, end) = (self.received_bytes - bytes as u64, self.received_bytes);
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
        crc
    }

    /// What pays for the memory of a message that nobody will read.
    pub(super) fn into_hold(self) -> Hold {
        self.hold.unwrap_or(Hold::None)
    }

    /// The message, whole, and what pays for its memory; the latter alone if it was dropped.
    pub(super) fn finish(self) -> Result<(Subject, Result<Tree, DecodeError>, Hold), Hold> {
        let hold = self.hold.unwrap_or(Hold::None);
        let (plan, memory) = match self.target {
            Target::None(plan) => (plan, Buffer::empty()),
            Target::Memory(plan, memory) => (plan, memory),
            Target::Dropped => return Err(hold),
        };
        let hold = hold.with_loan(self.loan);
        Ok((plan.subject, plan.signature.build(&plan.order, memory), hold))
    }
}

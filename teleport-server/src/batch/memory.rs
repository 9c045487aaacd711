//! The memory of batches: how large a slab is, what it is charged for, and which row of it a call gets.
//!
//! Bounds: `MAX_KINDS` shapes at once. What each call brings, it has paid for; what slabs take beside that (`overhead`) is charged
//! to the budget, within `SURPLUS_PART` of it past its bound where a slab is opened.

use std::sync::Arc;

use teleport_transport::wire::{BatchLayout, ErrorKind, Ran, RemoteError, Signature};
use teleport_transport::{Pages, Pool, RowMemory, Slab};

use crate::batch::batcher::{Batcher, Inner, Kind, OpenSlab, overloaded};
use crate::batch::overhead::Overhead;
use crate::batch::plan::ids::{GroupId, Seat};

/// Shapes whose calls wait at the same time: more than any program has, and each takes memory.
const MAX_KINDS: usize = 1024;

/// What slabs take beside the rows that were paid for may exceed the budget by one in so many parts of it.
const SURPLUS_PART: u64 = 4;

/// A batch that need not be full has at most so many rows that its slab takes one in so many parts of the budget: so two that
/// have few rows yet always find room.
const SLAB_PART: u64 = 8;

impl Batcher {
    /// How many rows a slab has, of which a batch is made.
    pub(crate) fn rows_of(&self, signature: &Signature) -> Result<usize, RemoteError> {
        let max_bytes = self.env.budget.max_bytes();
        let row_bytes = (signature.memory_bytes() as u64).max(1);
        let most = usize::try_from(max_bytes / row_bytes).unwrap_or(usize::MAX);
        let run_time = usize::try_from(max_bytes / SLAB_PART / row_bytes).unwrap_or(usize::MAX);
        self.plan.fitting(run_time.max(1)).or_else(|| self.plan.fitting(most)).ok_or_else(|| {
            let text = format!(
                "method {:?} takes batches of {} rows, and rows of {row_bytes} bytes make {} bytes: more than the {max_bytes} that the \
                 server has for calls (three quarters of `max_memory`)",
                self.method,
                self.plan.least_rows(),
                row_bytes.saturating_mul(self.plan.least_rows() as u64),
            );
            RemoteError::new(ErrorKind::TooLarge, Ran::No, text)
        })
    }

    pub(crate) fn kind(&self, inner: &mut Inner, signature: &Arc<Signature>) -> Result<Kind, RemoteError> {
        if let Some(kind) = inner.kinds.get(signature) {
            return Ok(kind.clone());
        }
        let kinds = inner.scheduler.busy_groups();
        if kinds >= MAX_KINDS {
            let text = format!(
                "method {:?} has calls of {kinds} different shapes waiting, as many as may: try later",
                self.method
            );
            return Err(overloaded(text));
        }
        let rows = self.rows_of(signature)?;
        let stacked = BatchLayout::new(signature.clone(), rows).ok_or_else(|| {
            let text = format!("{rows} rows of these arguments are more than any memory holds");
            RemoteError::new(ErrorKind::TooLarge, Ran::No, text)
        })?;
        let seats = self.plan.max_rows.min(rows);
        let group = inner.scheduler.add_group(seats, stacked.row_bytes());
        let kind = Kind { group, stacked: Arc::new(stacked) };
        inner.kinds.insert(signature.clone(), kind.clone());
        inner.signatures.insert(group, signature.clone());
        Ok(kind)
    }

    /// The memory of a seat.
    pub(crate) fn seat(
        &self,
        inner: &mut Inner,
        seat: Seat,
        group: GroupId,
        is_new_slab: bool,
    ) -> Result<RowMemory, RemoteError> {
        if is_new_slab {
            let opened = self.open_slab(inner, group)?;
            inner.slabs.insert(seat.slab, opened);
        }
        let opened = inner.slabs.get(&seat.slab);
        let memory = opened.and_then(|opened| opened.slab.claim(seat.index));
        let memory = memory
            .ok_or_else(|| overloaded(format!("method {:?} had no memory left for the call", self.method)))?;
        inner.sat(seat.slab);
        Ok(memory)
    }

    pub(crate) fn open_slab(&self, inner: &mut Inner, group: GroupId) -> Result<OpenSlab, RemoteError> {
        let signature = inner.signatures.get(&group).expect("a group with rows is known");
        let stacked = inner.kinds[signature].stacked.clone();
        let budget = &self.env.budget;
        let free = |pages| Some((pages, budget.try_charge(Overhead::first_charge(&stacked, pages))?, 0));
        let beyond = || {
            let bytes = Overhead::first_charge(&stacked, Pages::Small);
            let is_bearable = inner.surplus + bytes <= budget.max_bytes() / SURPLUS_PART;
            is_bearable.then(|| (Pages::Small, budget.charge_anyway(bytes), bytes))
        };
        let found = free(Pages::Usual).or_else(|| free(Pages::Small)).or_else(beyond);
        let (pages, charge, surplus) = found.ok_or_else(|| {
            let text = format!(
                "the server has no memory left for another batch of method {:?} (`max_memory`): try later",
                self.method
            );
            overloaded(text)
        })?;
        let overhead = Overhead::new(&stacked, pages, budget, charge, surplus);
        let slab =
            Slab::new(stacked, Pool::global(), pages).map_err(|error| overloaded(error.to_string()))?;
        inner.surplus += surplus;
        Ok(OpenSlab { slab, overhead })
    }
}

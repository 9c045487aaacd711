//! The memory of batches: how large a slab is, what it is charged for, and which row of it a call gets.
//!
//! Bounds: `MAX_KINDS` shapes at once. What each call brings, it has paid for; what slabs take beside that (`upkeep`) is charged
//! to the budget, within `SURPLUS_PART` of it past its bound where a slab is opened.

use std::sync::Arc;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError, Signature, Stacked};
use teleport_transport::{Pages, Pool, RowMemory, Slab};

use super::batcher::{Batcher, Desk, Kind, OpenSlab, overloaded};
use super::slab::Seat;
use super::state::BucketId;
use super::upkeep::Upkeep;

/// Shapes whose calls wait at the same time: more than any program has, and each takes memory.
const MAX_KINDS: usize = 1024;

/// What slabs take beside the rows that were paid for may exceed the budget by one in so many parts of it.
const SURPLUS_PART: u64 = 4;

/// A batch that need not be full has at most so many rows that its slab takes one in so many parts of the budget: so two that
/// have few rows yet always find room.
const SLAB_PART: u64 = 8;

impl Batcher {
    /// How many rows a slab has, of which a batch is made.
    pub(super) fn rows_of(&self, signature: &Signature) -> Result<usize, RemoteError> {
        let max_bytes = self.around.budget.max_bytes();
        let row_bytes = (signature.memory_bytes() as u64).max(1);
        let most = usize::try_from(max_bytes / row_bytes).unwrap_or(usize::MAX);
        let usual = usize::try_from(max_bytes / SLAB_PART / row_bytes).unwrap_or(usize::MAX);
        self.plan.fitting(usual.max(1)).or_else(|| self.plan.fitting(most)).ok_or_else(|| {
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

    pub(super) fn kind(&self, desk: &mut Desk, signature: &Arc<Signature>) -> Result<Kind, RemoteError> {
        if let Some(kind) = desk.kinds.get(signature) {
            return Ok(kind.clone());
        }
        let kinds = desk.state.busy_buckets();
        if kinds >= MAX_KINDS {
            let text = format!(
                "method {:?} has calls of {kinds} different shapes waiting, as many as may: try later",
                self.method
            );
            return Err(overloaded(text));
        }
        let rows = self.rows_of(signature)?;
        let stacked = Stacked::new(signature.clone(), rows).ok_or_else(|| {
            let text = format!("{rows} rows of these arguments are more than any memory holds");
            RemoteError::new(ErrorKind::TooLarge, Ran::No, text)
        })?;
        let seats = self.plan.max_rows.min(rows);
        let bucket = desk.state.add_bucket(seats, stacked.row_bytes());
        let kind = Kind { bucket, stacked: Arc::new(stacked) };
        desk.kinds.insert(signature.clone(), kind.clone());
        desk.signatures.insert(bucket, signature.clone());
        Ok(kind)
    }

    /// The memory of a seat.
    pub(super) fn seat(
        &self,
        desk: &mut Desk,
        seat: Seat,
        bucket: BucketId,
        is_new_slab: bool,
    ) -> Result<RowMemory, RemoteError> {
        if is_new_slab {
            let opened = self.open_slab(desk, bucket)?;
            desk.slabs.insert(seat.slab, opened);
        }
        let opened = desk.slabs.get(&seat.slab);
        let memory = opened.and_then(|opened| opened.slab.claim(seat.index));
        let memory = memory
            .ok_or_else(|| overloaded(format!("method {:?} had no memory left for the call", self.method)))?;
        desk.sat(seat.slab);
        Ok(memory)
    }

    pub(super) fn open_slab(&self, desk: &mut Desk, bucket: BucketId) -> Result<OpenSlab, RemoteError> {
        let signature = desk.signatures.get(&bucket).expect("a bucket with rows is known");
        let stacked = desk.kinds[signature].stacked.clone();
        let budget = &self.around.budget;
        let free = |pages| Some((pages, budget.try_charge(Upkeep::first_charge(&stacked, pages))?, 0));
        let beyond = || {
            let bytes = Upkeep::first_charge(&stacked, Pages::Small);
            let is_bearable = desk.surplus + bytes <= budget.max_bytes() / SURPLUS_PART;
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
        let upkeep = Upkeep::new(&stacked, pages, budget, charge, surplus);
        let slab =
            Slab::new(stacked, Pool::global(), pages).map_err(|error| overloaded(error.to_string()))?;
        desk.surplus += surplus;
        Ok(OpenSlab { slab, upkeep })
    }
}

//! The memory of batches: the slabs of one method, their size and charges, and the release of rows.
//!
//! A call pays for its own row. The rest of a slab is charged to the budget (`overhead`). If the budget has
//! no room, a slab is opened anyway while such slabs take at most `SURPLUS_PART` of the budget. Bound:
//! `MAX_SIGNATURES` at once.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use teleport_transport::wire::{BatchLayout, ErrorKind, Order, QuickHash, Ran, RemoteError, Signature};
use teleport_transport::{Budget, Charge, Pages, Pool, Row, RowMemory, Slab};

use crate::batch::overhead::Overhead;
use crate::batch::plan::groups::{Groups, Unused};
use crate::batch::plan::ids::{GroupId, Seat, SlabId};
use crate::batch::plan::policy::BatchPolicy;
use crate::call::refusal::overloaded;

/// The most signatures with waiting calls: more than any program has, and each takes memory.
const MAX_SIGNATURES: usize = 1024;

/// The part of the budget by which slabs may exceed the budget.
const SURPLUS_PART: u64 = 4;

/// The largest part of the budget that a slab may take, if its batches need not be full. So two slabs with
/// few rows always fit.
const SLAB_PART: u64 = 8;

/// The slabs of one method.
#[derive(Debug)]
pub(crate) struct BatchMemory {
    method: Arc<str>,
    policy: BatchPolicy,
    budget: Budget,
    groups: HashMap<Arc<Signature>, GroupId, QuickHash>,
    layouts: HashMap<GroupId, Arc<BatchLayout>, QuickHash>,
    slabs: HashMap<SlabId, OpenSlab, QuickHash>,
    /// Returned to the caller, which drops them without its lock: another charge may then be granted.
    returned: Vec<Charge>,
}

#[derive(Debug)]
pub(crate) struct OpenSlab {
    pub(crate) slab: Slab,
    overhead: Overhead,
}

/// The row of a call that has not started.
#[derive(Clone, Debug)]
pub(crate) struct PlacedRow {
    pub(crate) row: Arc<Row>,
    pub(crate) slab: SlabId,
    pub(crate) order: Order,
}

/// Returns the number of rows of a slab.
///
/// # Errors
/// Fails if a batch does not fit into the budget.
pub(crate) fn slab_rows(
    method: &str,
    policy: &BatchPolicy,
    budget: &Budget,
    signature: &Signature,
) -> Result<usize, RemoteError> {
    let max_bytes = budget.max_bytes();
    let row_bytes = (signature.memory_bytes() as u64).max(1);
    let most = usize::try_from(max_bytes / row_bytes).unwrap_or(usize::MAX);
    let usual = usize::try_from(max_bytes / SLAB_PART / row_bytes).unwrap_or(usize::MAX);
    policy.fitting(usual.max(1)).or_else(|| policy.fitting(most)).ok_or_else(|| {
        let rows = policy.least_rows();
        let bytes = row_bytes.saturating_mul(rows as u64);
        let text = format!(
            "method {method:?} takes batches of {rows} rows, and rows of {row_bytes} bytes make {bytes} bytes: more than \
             the {max_bytes} that the server has for calls (three quarters of `max_memory`)"
        );
        RemoteError::new(ErrorKind::TooLarge, Ran::No, text)
    })
}

/// Freed memory, to be dropped without a lock.
pub(crate) type Freed = (Vec<OpenSlab>, Vec<Charge>);

impl BatchMemory {
    pub(crate) fn new(method: &Arc<str>, policy: &BatchPolicy, budget: &Budget) -> BatchMemory {
        BatchMemory {
            method: method.clone(),
            policy: policy.clone(),
            budget: budget.clone(),
            groups: HashMap::default(),
            layouts: HashMap::default(),
            slabs: HashMap::default(),
            returned: Vec::new(),
        }
    }

    /// Returns the group of a signature. Adds it to `groups` if it is new.
    ///
    /// # Errors
    /// Fails if there are too many signatures, or if the rows are too large.
    pub(crate) fn group(
        &mut self,
        groups: &mut Groups,
        signature: &Arc<Signature>,
    ) -> Result<GroupId, RemoteError> {
        if let Some(group) = self.groups.get(signature) {
            return Ok(*group);
        }
        let busy = groups.busy();
        if busy >= MAX_SIGNATURES {
            let text = format!(
                "method {:?} has calls of {busy} different shapes waiting, as many as may: try later",
                self.method
            );
            return Err(overloaded(text));
        }
        let rows = slab_rows(&self.method, &self.policy, &self.budget, signature)?;
        let layout = BatchLayout::new(signature.clone(), rows).ok_or_else(|| {
            let text = format!("{rows} rows of these arguments are more than any memory holds");
            RemoteError::new(ErrorKind::TooLarge, Ran::No, text)
        })?;
        let group = groups.add(self.policy.max_rows.min(rows), layout.row_bytes());
        self.groups.insert(signature.clone(), group);
        self.layouts.insert(group, Arc::new(layout));
        Ok(group)
    }

    // ---- Slabs ----

    /// Opens a slab, and charges its memory except the row that its first call has paid for.
    pub(crate) fn open_slab(&self, group: GroupId) -> Result<OpenSlab, RemoteError> {
        let layout = self.layouts[&group].clone();
        let within = |pages| {
            let charge = self.budget.try_charge(Overhead::first_charge(&layout, pages))?;
            Some((pages, charge, 0))
        };
        let beyond = || {
            let bytes = Overhead::first_charge(&layout, Pages::Small);
            let surplus = self.slabs.values().map(|opened| opened.overhead.surplus()).sum::<u64>();
            let is_allowed = surplus + bytes <= self.budget.max_bytes() / SURPLUS_PART;
            is_allowed.then(|| (Pages::Small, self.budget.charge_anyway(bytes), bytes))
        };
        let found = within(Pages::Usual).or_else(|| within(Pages::Small)).or_else(beyond);
        let (pages, charge, surplus) = found.ok_or_else(|| {
            overloaded(format!(
                "the server has no memory left for another batch of method {:?} (`max_memory`): try later",
                self.method
            ))
        })?;
        let overhead = Overhead::new(&layout, pages, &self.budget, charge, surplus);
        let slab = Slab::new(layout, Pool::global(), pages).map_err(|error| overloaded(error.to_string()))?;
        Ok(OpenSlab { slab, overhead })
    }

    /// Removes a slab.
    pub(crate) fn close_slab(&mut self, id: SlabId) -> Option<OpenSlab> {
        self.slabs.remove(&id)
    }

    /// Closes slabs and forgets groups that the scheduler has removed. Returns all memory that is free now.
    pub(crate) fn release(&mut self, unused: &Unused) -> Freed {
        for group in &unused.groups {
            if let Some(layout) = self.layouts.remove(group) {
                self.groups.remove(layout.signature());
            }
        }
        let slabs = unused.slabs.iter().filter_map(|slab| self.close_slab(*slab)).collect();
        (slabs, mem::take(&mut self.returned))
    }

    // ---- Rows ----

    /// Returns the memory of a seat, for a call that has paid for its row.
    pub(crate) fn take_row(
        &mut self,
        seat: Seat,
        group: GroupId,
        is_new_slab: bool,
    ) -> Result<RowMemory, RemoteError> {
        if is_new_slab {
            let opened = self.open_slab(group)?;
            self.slabs.insert(seat.slab, opened);
        }
        let opened = self.slabs.get_mut(&seat.slab);
        let row = opened.and_then(|opened| Some((opened.slab.claim(seat.index)?, opened)));
        let (memory, opened) = row
            .ok_or_else(|| overloaded(format!("method {:?} had no memory left for the call", self.method)))?;
        self.returned.extend(opened.overhead.sat());
        Ok(memory)
    }

    /// Frees the row of a call that does not run: further payload for it is dropped. Called under the
    /// batcher's lock, so that the next call on its seat finds the memory free.
    pub(crate) fn free_row(&mut self, placed: &PlacedRow) {
        drop(placed.row.vacate());
        self.left(placed.slab);
    }

    /// Called when a call has left a slab that is still open.
    pub(crate) fn left(&mut self, id: SlabId) {
        let opened = self.slabs.get_mut(&id);
        self.returned.extend(opened.and_then(|opened| opened.overhead.left()));
    }
}

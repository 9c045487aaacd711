//! Takes a batch from the batcher: starts its calls and brings their rows together.
//!
//! Flow: `take` selects the batch and claims its calls under the lock -> rows are moved without the lock ->
//! [`Assembled`] holds the arguments -> the function runs -> `Batcher::finished`. Blocks only while a row
//! that must be moved is being read.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError, Tree};
use teleport_transport::{Lease, Row, RowMemory, Slab};

use crate::batch::batcher::{Batcher, Inner, Waiter};
use crate::batch::memory::{OpenSlab, PlacedRow};
use crate::batch::plan::ids::GroupId;
use crate::batch::plan::select::{CloseDecision, SelectedBatch};
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::refusal::late;

/// The arguments of a batch.
#[derive(Debug)]
pub(crate) enum Input {
    Stacked(Tree),
    Listed(Vec<Tree>),
}

/// A batch whose calls have started. [`Batcher::finished`] must be called for it.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) group: GroupId,
    pub(crate) calls: Vec<Arc<OpenCall>>,
    /// The number of rows, including rows of zeros.
    pub(crate) padded: usize,
    /// An error if there was no memory for the batch.
    pub(crate) input: Result<Input, RemoteError>,
    /// Pay for the memory until the function takes it.
    pub(crate) leases: Vec<Lease>,
}

/// Calls that were removed, and the errors for their callers.
type Refused = Vec<(Arc<OpenCall>, RemoteError)>;

/// A batch whose calls have started, but whose rows are not in place yet.
struct Started {
    selected: SelectedBatch<Waiter>,
    /// `None` in list mode.
    slab: Option<Result<OpenSlab, RemoteError>>,
    moves: Vec<(Arc<Row>, RowMemory)>,
    calls: Vec<Arc<OpenCall>>,
    trees: Vec<Tree>,
    leases: Vec<Lease>,
}

impl Batcher {
    /// Takes the batch that is due, if one still is, with the calls that `judge` allows. Refuses late calls.
    pub(crate) fn take(&self, judge: impl Fn(&OpenCall) -> CloseDecision) -> Option<Assembled> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        // The queue has forgotten it.
        inner.timer = None;
        let judge = |waiter: &Waiter| judge(&waiter.call.as_ref().expect("a ready call is complete").0);
        let Some(selected) = inner.scheduler.select(now, judge) else {
            self.settle(inner);
            return None;
        };
        let mut refused = Vec::new();
        for waiter in selected.late {
            inner.free(&waiter);
            refused.extend(waiter.call.map(|(call, _)| (call, late())));
        }
        let started = selected.batch.map(|selected| self.start(&mut inner, selected, &mut refused));
        self.settle(inner);
        refused.iter().for_each(|(call, error)| call.refuse(error));
        Some(self.assemble(started?))
    }

    /// Does the work that needs the lock: claims the calls, and allocates all memory.
    fn start(
        &self,
        inner: &mut Inner,
        mut selected: SelectedBatch<Waiter>,
        refused: &mut Refused,
    ) -> Started {
        // First, so that its charge is free for the calls that leave the slab.
        let base = inner.memory.close_slab(selected.base);
        let moves = self.move_out(inner, &selected, refused);
        let slab = match (self.is_listed, selected.is_new_slab) {
            (true, _) => None,
            (false, true) => Some(inner.memory.open_slab(selected.group)),
            (false, false) => base.map(Ok),
        };
        let rows = selected.rows.len();
        let (mut calls, mut trees, mut leases) =
            (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        for (call, Arguments { tree, lease }) in selected.rows.iter_mut().filter_map(|row| row.call.take()) {
            calls.push(call);
            trees.push(tree);
            leases.push(lease);
        }
        let moved = moves.len() + if self.is_listed { 0 } else { selected.fills.len() };
        inner.stats.started(calls.len(), selected.padded, selected.waited, moved);
        inner.stats.running += 1;
        Started { selected, slab, moves, calls, trees, leases }
    }

    /// Allocates other memory for the calls in the batch's slab that do not take part in it.
    fn move_out(
        &self,
        inner: &mut Inner,
        selected: &SelectedBatch<Waiter>,
        refused: &mut Refused,
    ) -> Vec<(Arc<Row>, RowMemory)> {
        let mut moves = Vec::with_capacity(selected.outs.len());
        for out in &selected.outs {
            let Inner { scheduler, memory, .. } = inner;
            let placed = scheduler.value_mut(out.key).and_then(|waiter| waiter.placed.as_mut());
            // In list mode there is nothing to move.
            let Some(placed) = placed else { continue };
            if let Ok(memory) = memory.take_row(out.to, selected.group, out.is_new_slab) {
                placed.slab = out.to.slab;
                moves.push((placed.row.clone(), memory));
            } else if let Some(waiter) = scheduler.remove(out.key) {
                // An incomplete call is refused when it is complete.
                inner.free(&waiter);
                refused.extend(waiter.call.map(|(call, _)| (call, self.row_lost(inner))));
            }
        }
        moves
    }

    /// Moves rows, and assembles the arguments.
    fn assemble(&self, started: Started) -> Assembled {
        let Started { selected, slab, moves, calls, trees, leases } = started;
        move_all(moves);
        let input = match slab {
            None => Ok(Input::Listed(trees)),
            Some(Err(error)) => Err(error),
            // Its charge ends here, without the lock.
            Some(Ok(OpenSlab { slab, .. })) => self.stack(&selected, slab),
        };
        if input.is_err() {
            placed_rows(&selected).for_each(|placed| drop(placed.row.vacate()));
        }
        if !selected.outs.is_empty() || !selected.fills.is_empty() {
            let mut inner = self.inner.lock();
            inner.scheduler.moved(&selected.outs, &selected.fills);
            selected.fills.iter().for_each(|fill| inner.memory.left(fill.from.slab));
            self.settle(inner);
        }
        Assembled { group: selected.group, calls, padded: selected.padded, input, leases }
    }

    fn stack(&self, selected: &SelectedBatch<Waiter>, mut slab: Slab) -> Result<Input, RemoteError> {
        for fill in &selected.fills {
            let (placed, memory) = (selected.rows[fill.to].placed.as_ref(), slab.claim(fill.to));
            let (Some(placed), Some(memory)) = (placed, memory) else { return Err(row_in_use()) };
            placed.row.move_to(memory);
        }
        placed_rows(selected).for_each(|placed| drop(placed.row.vacate()));
        slab.zero(selected.rows.len()..selected.padded);
        let order = placed_rows(selected).next().map(|placed| placed.order.clone()).unwrap_or_default();
        let tree = slab.into_tree(&order, selected.padded, self.env.lent.as_ref());
        tree.map(Input::Stacked).map_err(|_| row_in_use())
    }
}

fn placed_rows(selected: &SelectedBatch<Waiter>) -> impl Iterator<Item = &PlacedRow> {
    selected.rows.iter().filter_map(|waiter| waiter.placed.as_ref())
}

/// Moves the rows that are not being read now, then the others.
fn move_all(moves: Vec<(Arc<Row>, RowMemory)>) {
    let mut busy = Vec::new();
    for (row, memory) in moves {
        if let Err(memory) = row.try_move_to(memory) {
            busy.push((row, memory));
        }
    }
    for (row, memory) in busy {
        row.move_to(memory);
    }
}

/// Returns the error for a state that no order of events causes.
fn row_in_use() -> RemoteError {
    let text = "a row of the batch was still in use, which is an error of the server's own";
    RemoteError::new(ErrorKind::Failed, Ran::No, text)
}

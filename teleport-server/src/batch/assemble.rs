//! Taking a batch: which calls it has, and their rows brought to where they belong.
//!
//! Flow: `take` decides under the lock, and has the calls start -> rows are moved without it -> [`Taken`], with the arguments ->
//! the function runs -> `finished`. Never blocks, but for a row that is being read into at that moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{ErrorKind, Ran, RemoteError, Tree};
use teleport_transport::{Lease, Row, RowMemory, Slab};

use crate::batch::batcher::{Batcher, Inner, OpenSlab, Waiter, vacate};
use crate::batch::plan::ids::GroupId;
use crate::batch::plan::select::{CloseDecision, SelectedBatch};
use crate::call::{Arguments, OpenCall};

/// What a batch runs with.
#[derive(Debug)]
pub(crate) enum Input {
    Stacked(Tree),
    Listed(Vec<Tree>),
}

/// A batch that a worker has taken. To be [`finished`](Batcher::finished).
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) group: GroupId,
    pub(crate) calls: Vec<Arc<OpenCall>>,
    /// With rows of zeros.
    pub(crate) padded: usize,
    /// What is wrong if there is no memory for it.
    pub(crate) input: Result<Input, RemoteError>,
    /// What pays for the memory until the function has it.
    pub(crate) leases: Vec<Lease>,
}

/// What a worker found when it was told that a batch is due.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) batch: Option<Taken>,
    /// Calls that are not here any more, and what they are told.
    pub(crate) refused: Vec<(Arc<OpenCall>, RemoteError)>,
}

/// A batch whose calls have started and whose rows are not yet where they belong.
struct Prepared {
    closing: SelectedBatch<Waiter>,
    /// None in list mode.
    slab: Option<Result<OpenSlab, RemoteError>>,
    moves: Vec<(Arc<Row>, RowMemory)>,
    calls: Vec<Arc<OpenCall>>,
    trees: Vec<Tree>,
    leases: Vec<Lease>,
}

impl Batcher {
    /// The batch that is due, if one is still. Moves rows where it must.
    pub(crate) fn take(&self, judge: impl Fn(&OpenCall) -> CloseDecision) -> Found {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        // The queue has forgotten it.
        inner.posted = None;
        let judge = |waiter: &Waiter| judge(waiter.call.as_deref().expect("a call that is ready is whole"));
        let Some(selected) = inner.scheduler.select(now, judge) else {
            self.settle(inner);
            return Found::default();
        };
        for waiter in &selected.late {
            inner.drop_row(waiter);
        }
        let late = selected.late.into_iter().filter_map(|waiter| waiter.call);
        let late = late.filter(|call| call.claim().is_some());
        let mut refused: Vec<_> = late.map(|call| (call, crate::refusal::late())).collect();
        let batch = selected.batch.map(|closing| self.prepare(&mut inner, closing, &mut refused));
        self.settle(inner);
        Found { batch: batch.map(|prepared| self.gather(prepared)), refused }
    }

    /// What must be done under the lock: the calls start, and all memory that is needed is taken.
    fn prepare(
        &self,
        inner: &mut Inner,
        closing: SelectedBatch<Waiter>,
        refused: &mut Vec<(Arc<OpenCall>, RemoteError)>,
    ) -> Prepared {
        // First, so that those who leave it find the room that it took.
        let base = inner.close_slab(closing.base);
        let mut moves = Vec::with_capacity(closing.outs.len());
        for out in &closing.outs {
            // In list mode there is nothing to move.
            let Some(row) = inner.scheduler.value_mut(out.key).and_then(|waiter| waiter.row.clone()) else {
                continue;
            };
            match self.seat(inner, out.to, closing.group, out.is_new_slab) {
                Ok(memory) => {
                    if let Some(waiter) = inner.scheduler.value_mut(out.key) {
                        waiter.slab = Some(out.to.slab);
                    }
                    moves.push((row, memory));
                }
                // It is told so when it is whole, if it is not yet.
                Err(_) => {
                    let Some(waiter) = inner.scheduler.remove(out.key) else { continue };
                    inner.drop_row(&waiter);
                    let call = waiter.call.filter(|call| call.claim().is_some());
                    refused.extend(call.map(|call| (call, self.given_up(inner))));
                }
            }
        }
        let slab = match (self.is_listed, closing.is_new_slab) {
            (true, _) => None,
            (false, true) => Some(self.open_slab(inner, closing.group).inspect(|opened| {
                // It goes with the batch, and is not closed like others.
                inner.surplus -= opened.overhead.surplus();
            })),
            (false, false) => base.map(Ok),
        };
        let calls: Vec<_> = closing.rows.iter().filter_map(|waiter| waiter.call.clone()).collect();
        // All of them: who withdraws one does so under this lock, and does not find it any more.
        let arguments = calls.iter().filter_map(|call| call.claim());
        let (trees, leases) = arguments.map(|Arguments { tree, lease }| (tree, lease)).unzip();
        let moved = moves.len() + if self.is_listed { 0 } else { closing.fills.len() };
        inner.stats.started(calls.len(), closing.padded, closing.waited, moved);
        inner.stats.running += 1;
        Prepared { closing, slab, moves, calls, trees, leases }
    }

    /// Moves what must be moved, and makes the arguments of the memory.
    fn gather(&self, prepared: Prepared) -> Taken {
        let Prepared { closing, slab, moves, calls, trees, leases } = prepared;
        move_all(moves);
        let input = match slab {
            None => Ok(Input::Listed(trees)),
            Some(Err(error)) => Err(error),
            Some(Ok(OpenSlab { slab, .. })) => self.stack(&closing, slab),
        };
        if input.is_err() {
            closing.rows.iter().for_each(vacate);
        }
        if !closing.outs.is_empty() || !closing.fills.is_empty() {
            let mut inner = self.inner.lock();
            inner.scheduler.settled(&closing.outs, &closing.fills);
            closing.fills.iter().for_each(|fill| inner.left(fill.from.slab));
            self.settle(inner);
        }
        Taken { group: closing.group, calls, padded: closing.padded, input, leases }
    }

    fn stack(&self, closing: &SelectedBatch<Waiter>, mut slab: Slab) -> Result<Input, RemoteError> {
        let rows = || closing.rows.iter().filter_map(|waiter| waiter.row.as_ref());
        for fill in &closing.fills {
            let (row, memory) = (closing.rows[fill.to].row.as_ref(), slab.claim(fill.to));
            let (Some(row), Some(memory)) = (row, memory) else { return Err(in_use()) };
            row.move_to(memory);
        }
        rows().for_each(|row| drop(row.vacate()));
        slab.zero(closing.rows.len()..closing.padded);
        let order = closing.rows.first().and_then(|waiter| waiter.order.clone()).unwrap_or_default();
        let tree = slab.into_tree(&order, closing.padded, self.env.lent.as_ref());
        tree.map(Input::Stacked).map_err(|_| in_use())
    }

    /// The function has returned for a batch of so many rows, after so long; none if that tells nothing of how long others take.
    pub(crate) fn finished(&self, group: GroupId, padded: usize, ran: Option<Duration>) {
        let mut inner = self.inner.lock();
        inner.scheduler.finished(group, ran.map(|time| (padded, time)));
        inner.stats.running -= 1;
        inner.stats.ran += ran.unwrap_or_default();
        self.settle(inner);
    }
}

/// Moves rows that are not being read into at this moment, then the others.
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

/// What no order of events leads to, and what must not be taken for a batch.
fn in_use() -> RemoteError {
    let text = "a row of the batch was still in use, which is an error of the server's own";
    RemoteError::new(ErrorKind::Failed, Ran::No, text)
}

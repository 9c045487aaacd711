//! The rows of a server's calls. Some calls are received into slabs, and their rows are moved and
//! vacated meanwhile. Some find no row. The rest have memory of their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{BatchLayout, ErrorKind, Order, Ran, RemoteError, Signature, Tree};

use super::super::*;
use super::invariants::Invariant;
use super::random::Random;
use crate::memory::pool::Pool;
use crate::memory::rows::{Pages, Row, RowMemory, Rows, Slab, Ticket};

const ROWS_OF_SLAB: usize = 3;

/// Counts what happened to rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeenRows {
    pub(super) whole: u64,
    /// Moved in the middle of a payload.
    pub(super) moved: u64,
    pub(super) vacated: u64,
    pub(super) abandoned: u64,
    pub(super) unplaced: u64,
}

/// Clones share their state.
#[derive(Clone, Default)]
pub(super) struct Arranger(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    last_key: u64,
    /// Rows whose call has neither arrived nor been abandoned.
    open: BTreeMap<u64, (Arc<Signature>, Arc<Row>)>,
    slabs: HashMap<Arc<Signature>, Vec<Slab>>,
    seen: SeenRows,
}

/// Each method name is the number of its call, which becomes the slot. Other names are refused.
impl Gate for Arranger {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        let refusal = |_| RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "no such method");
        method.parse().map_err(refusal)
    }

    fn admit_tree(&self, slot: u32, _signature: &Arc<Signature>) -> Result<(), RemoteError> {
        match slot % 23 {
            7 => Err(RemoteError::new(ErrorKind::BadArguments, Ran::No, "it cannot be stacked")),
            _ => Ok(()),
        }
    }

    fn place(
        &self,
        slot: u32,
        signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        let state = &mut *self.0.lock();
        match slot {
            _ if slot % 17 == 5 => {
                state.seen.unplaced += 1;
                Err(RemoteError::new(ErrorKind::Overloaded, Ran::No, "too many rows wait"))
            }
            _ if slot.is_multiple_of(3) => Ok(None),
            _ => {
                state.last_key += 1;
                let memory = Some(state.claim(signature));
                let ticket = Ticket::new(memory, state.last_key, Arc::new(self.clone()));
                state.open.insert(state.last_key, (signature.clone(), ticket.row().clone()));
                Ok(Some(ticket))
            }
        }
    }
}

impl Rows for Arranger {
    fn abandoned(&self, key: u64) {
        let state = &mut *self.0.lock();
        let row = state.open.remove(&key);
        Invariant::RowsEndOnce.require(row.is_some(), || format!("row {key} is abandoned and was not open"));
        // The ticket still holds the row.
        drop(row.map(|(_, row)| row.vacate()));
        state.seen.abandoned += 1;
        state.free_slabs();
    }
}

fn new_slab(signature: &Arc<Signature>, rows: usize) -> Slab {
    let stacked = BatchLayout::new(signature.clone(), rows).expect("it is small");
    Slab::new(Arc::new(stacked), Pool::global(), Pages::Usual).expect("there is memory")
}

impl State {
    /// Claims a free row of any slab, or the first row of a new one.
    fn claim(&mut self, signature: &Arc<Signature>) -> RowMemory {
        let slabs = self.slabs.entry(signature.clone()).or_default();
        let free = |slab: &Slab| (0..ROWS_OF_SLAB).find_map(|row| slab.claim(row));
        slabs.iter().find_map(free).unwrap_or_else(|| {
            slabs.push(new_slab(signature, ROWS_OF_SLAB));
            slabs.last().and_then(free).expect("it is new")
        })
    }

    /// Frees slabs without a claimed row.
    fn free_slabs(&mut self) {
        let is_used = |slab: &Slab| (0..ROWS_OF_SLAB).any(|row| slab.claim(row).is_none());
        self.slabs.retain(|_, slabs| {
            slabs.retain(is_used);
            !slabs.is_empty()
        });
    }
}

impl Arranger {
    pub(super) fn seen(&self) -> SeenRows {
        self.0.lock().seen
    }

    /// Moves a row, or takes its memory away.
    pub(super) fn arrange(&self, random: &mut Random) {
        let state = &mut *self.0.lock();
        let keys: Vec<u64> = state.open.keys().copied().collect();
        let Some((signature, row)) = random.pick(&keys).map(|key| state.open[&key].clone()) else { return };
        let what = random.below(8);
        if what == 0 {
            state.seen.vacated += u64::from(row.vacate().is_some());
            return state.free_slabs();
        }
        let memory = state.claim(&signature);
        let moved = match what {
            1..5 => row.move_to(memory),
            // A vacated row takes no memory.
            _ => row.try_move_to(memory).unwrap_or(0),
        };
        state.seen.moved += u64::from(moved > 0);
        state.free_slabs();
    }

    /// Returns the arguments of a call that arrived, or `None` if its row was vacated.
    pub(super) fn take(&self, ticket: Ticket) -> Option<Tree> {
        let state = &mut *self.0.lock();
        let row = state.open.remove(&ticket.complete());
        Invariant::RowsEndOnce.require(row.is_some(), || "a row is complete and was not open".into());
        let memory = row?.1.vacate()?;
        state.seen.whole += 1;
        let alone = new_slab(memory.stacked().signature(), 1);
        alone.claim(0).expect("it is new").copy_from(&memory, memory.stacked().row_bytes());
        drop(memory);
        state.free_slabs();
        let tree = alone.into_tree(&Order::sorted(), 1, None).expect("no row is claimed");
        tree.unstack_rows(1).expect("it is stacked").pop()
    }

    /// Returns true if no row is open and none is claimed.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.0.lock();
        state.open.is_empty() && state.slabs.is_empty()
    }
}

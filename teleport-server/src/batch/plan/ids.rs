//! Ids of calls, slabs and groups. Each is unique within its method for as long as the server runs.

/// A call that has not started.
pub(crate) type Key = u64;

/// Calls of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

/// Memory for the rows of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlabId(pub(crate) u64);

/// The place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slab: SlabId,
    pub(crate) index: usize,
}

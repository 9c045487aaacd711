//! Names of what a batch consists of.

/// Names a call of a method that has not started. Never used again.
pub(crate) type Key = u64;

/// Names a group of a method, for as long as the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

/// Names a slab of a method, for as long as the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlabId(pub(crate) u64);

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slab: SlabId,
    pub(crate) index: usize,
}

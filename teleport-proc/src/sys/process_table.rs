//! An entry of the system's process table.

/// Identifies a process, also if its process id was or will be that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) pid: i32,
    /// The time at which the process started, in ticks since boot. It is 0 where the system does not say.
    pub(crate) started: u64,
}

/// A process at one moment. Listing all takes a while, so each entry may be from another moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    /// The process that started it, or the one that adopted it when its parent ended.
    pub(crate) parent: i32,
    /// The name that it has given itself, of at most 15 bytes.
    pub(crate) name: String,
}

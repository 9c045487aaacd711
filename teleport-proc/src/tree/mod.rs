//! Trees of processes, and how they are ended.

pub(crate) mod cgroup;
pub(crate) mod kill_tree;
pub(crate) mod snapshot;

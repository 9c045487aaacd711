//! Trees of processes: how they are found and ended.

pub(crate) mod cgroup;
pub(crate) mod kill_tree;

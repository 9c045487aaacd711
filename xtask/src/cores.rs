//! The cores that this process may use. On a shared machine these are not all cores, and not always the
//! first ones.
//!
//! Flow: [`allowed`] -> [`nth`] of them -> a process pins itself with [`stay_on`]; its threads and children
//! inherit that.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::failure::Failure;

/// This thread.
const MYSELF: Pid = Pid::from_raw(0);

/// Returns the cores that this thread may use.
pub(crate) fn allowed() -> Result<CpuSet, Failure> {
    sched_getaffinity(MYSELF).map_err(Failure::bench)
}

/// Returns the first core that this thread may use.
pub(crate) fn first_allowed() -> Result<usize, Failure> {
    nth(&allowed()?, 0).ok_or_else(|| Failure::bench("the system names no core that this process may use"))
}

/// Returns core number `n` of a set, counted from 0, or `None` if the set is smaller.
pub(crate) fn nth(cores: &CpuSet, n: usize) -> Option<usize> {
    (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false)).nth(n)
}

/// Pins this thread to one core, and with it all threads and processes that it starts later.
pub(crate) fn stay_on(core: usize) -> Result<(), Failure> {
    let mut one = CpuSet::new();
    one.set(core).map_err(Failure::bench)?;
    stay_among(&one)
}

/// Pins this thread to these cores, and with it all threads and processes that it starts later.
pub(crate) fn stay_among(cores: &CpuSet) -> Result<(), Failure> {
    sched_setaffinity(MYSELF, cores).map_err(Failure::bench)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_within_the_set() {
        let mut cores = CpuSet::new();
        assert_eq!(nth(&cores, 0), None);
        cores.set(2).unwrap();
        cores.set(5).unwrap();
        assert_eq!([nth(&cores, 0), nth(&cores, 1), nth(&cores, 2)], [Some(2), Some(5), None]);
    }

    #[test]
    fn the_first_allowed_core_can_be_pinned_to() {
        // On its own thread, so that the other tests keep their cores.
        std::thread::spawn(|| {
            let all = allowed().unwrap();
            // With only the last core allowed, the machine's first core is not allowed if there are several.
            let last = (0..).map_while(|n| nth(&all, n)).last().unwrap();
            stay_on(last).unwrap();
            assert_eq!(first_allowed().unwrap(), last);
            stay_on(first_allowed().unwrap()).unwrap();
        })
        .join()
        .unwrap();
    }
}

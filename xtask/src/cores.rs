//! The cores that this process may use: where a machine is shared, not all of them, and not always the first.
//!
//! Flow: [`allowed`] -> [`nth`] of them -> a process takes it with [`stay_on`]; its threads and children inherit that.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::failure::Failure;

/// This thread.
const MYSELF: Pid = Pid::from_raw(0);

/// The cores that this thread may use.
pub(crate) fn allowed() -> Result<CpuSet, Failure> {
    sched_getaffinity(MYSELF).map_err(Failure::bench)
}

/// The first of them that this thread may use.
pub(crate) fn first_allowed() -> Result<usize, Failure> {
    nth(&allowed()?, 0).ok_or_else(|| Failure::bench("the system names no core that this process may use"))
}

/// The `n`-th of some cores, from 0; none where there are not so many.
pub(crate) fn nth(cores: &CpuSet, n: usize) -> Option<usize> {
    (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap_or(false)).nth(n)
}

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn stay_on(core: usize) -> Result<(), Failure> {
    let mut one = CpuSet::new();
    one.set(core).map_err(Failure::bench)?;
    stay_among(&one)
}

/// Keeps this thread, and what it starts from now on, on these cores.
pub(crate) fn stay_among(cores: &CpuSet) -> Result<(), Failure> {
    sched_setaffinity(MYSELF, cores).map_err(Failure::bench)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_among_those_that_are_allowed() {
        let mut cores = CpuSet::new();
        assert_eq!(nth(&cores, 0), None);
        cores.set(2).unwrap();
        cores.set(5).unwrap();
        assert_eq!([nth(&cores, 0), nth(&cores, 1), nth(&cores, 2)], [Some(2), Some(5), None]);
    }

    #[test]
    fn the_first_is_one_where_a_thread_may_stay() {
        // A thread of its own, so that the other tests keep their cores.
        std::thread::spawn(|| {
            let all = allowed().unwrap();
            // The last core alone: the first of the machine is not allowed then, if it has several.
            let last = (0..).map_while(|n| nth(&all, n)).last().unwrap();
            stay_on(last).unwrap();
            assert_eq!(first_allowed().unwrap(), last);
            stay_on(first_allowed().unwrap()).unwrap();
        })
        .join()
        .unwrap();
    }
}

//! Where client and server run. Left to itself, the scheduler puts some pairs on one core and others on two, and a wake-up of
//! an idle core takes many times as long as a call: then contenders differ by luck. So each row says where.
//!
//! Flow: who starts a process takes the core itself, starts it, and takes all cores back: a child inherits the set, and so do
//! all its threads.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::failure::Failure;

/// Where the two sides of a contender run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Both on the first core: nothing but instructions and changes of threads.
    OneCore,
    /// The client on the first core and the server on the second, each idle while the other works.
    TwoCores,
    /// As the scheduler likes.
    Free,
}

/// One side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Placement {
    const ALL: [Placement; 3] = [Placement::OneCore, Placement::TwoCores, Placement::Free];

    /// As tables and `bench --serve` have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Placement::OneCore => "one-core",
            Placement::TwoCores => "two-cores",
            Placement::Free => "free",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Placement> {
        Placement::ALL.into_iter().find(|placement| placement.name() == name)
    }

    /// The core of one side, if it has one of its own.
    fn core(self, side: Side) -> Option<usize> {
        match (self, side) {
            (Placement::Free, _) => None,
            (Placement::TwoCores, Side::Server) => Some(1),
            _ => Some(0),
        }
    }

    /// Starts something that is to run where this side does.
    pub(super) fn start<T>(
        self,
        side: Side,
        start: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let myself = Pid::from_raw(0);
        let all = sched_getaffinity(myself).map_err(Failure::bench)?;
        let Some(core) = self.core(side) else { return start() };
        if !all.is_set(core).unwrap_or(false) {
            // A machine with one core: both share it.
            return start();
        }
        let mut one = CpuSet::new();
        one.set(core).map_err(Failure::bench)?;
        sched_setaffinity(myself, &one).map_err(Failure::bench)?;
        let started = start();
        sched_setaffinity(myself, &all).map_err(Failure::bench)?;
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert!(Placement::ALL.into_iter().all(|one| Placement::of_name(one.name()) == Some(one)));
        assert_eq!(Placement::of_name("elsewhere"), None);
    }

    #[test]
    fn who_starts_others_keeps_its_cores() {
        let cores = || sched_getaffinity(Pid::from_raw(0)).unwrap();
        let before = cores();
        let within = Placement::TwoCores.start(Side::Client, || Ok(cores())).unwrap();
        assert!(within.is_set(0).unwrap() && !within.is_set(1).unwrap());
        assert_eq!(cores(), before);
    }
}

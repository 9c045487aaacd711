//! The cores on which client and server run.
//!
//! The scheduler would put some pairs on one core and others on two. A wake-up of an idle core takes many
//! times as long as a call, so contenders would differ by chance. Therefore each row chooses the cores.
//!
//! Flow: the harness pins itself to the core, starts the process, and takes all its cores back. The process
//! and its threads inherit the core.

use crate::cores;
use crate::failure::Failure;

/// The cores of the two sides of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Both on the first allowed core, which measures instructions and context switches.
    OneCore,
    /// The client on the first allowed core and the server on the second.
    TwoCores,
    /// Left to the scheduler.
    Free,
}

/// One side of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Placement {
    const ALL: [Placement; 3] = [Placement::OneCore, Placement::TwoCores, Placement::Free];

    /// Returns the name for tables and `bench --serve`.
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

    /// Returns the index of a side's core among the allowed ones, if the side is pinned.
    fn core(self, side: Side) -> Option<usize> {
        match (self, side) {
            (Placement::Free, _) => None,
            (Placement::TwoCores, Side::Server) => Some(1),
            _ => Some(0),
        }
    }

    /// Calls `start` while this thread is pinned to the core of `side`.
    pub(super) fn start<T>(
        self,
        side: Side,
        start: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(nth) = self.core(side) else { return start() };
        let all = cores::allowed()?;
        // With only one core, both sides share it.
        let Some(core) = cores::nth(&all, nth) else { return start() };
        cores::stay_on(core)?;
        let started = start();
        cores::stay_among(&all)?;
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
        let before = cores::allowed().unwrap();
        let first = cores::nth(&before, 0);
        for side in [Side::Client, Side::Server] {
            let within = Placement::OneCore.start(side, cores::allowed).unwrap();
            assert_eq!((cores::nth(&within, 0), cores::nth(&within, 1)), (first, None));
            assert_eq!(cores::allowed().unwrap(), before);
        }
        let within = Placement::TwoCores.start(Side::Server, cores::allowed).unwrap();
        assert_eq!(cores::nth(&within, 0), cores::nth(&before, 1).or(first));
        assert_eq!(cores::allowed().unwrap(), before);
    }
}

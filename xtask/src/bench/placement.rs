//! Where client and server run. Left to itself, the scheduler puts some pairs on one core and others on
//! two, and a wake-up of an idle core takes many times as long as a call: then contenders differ by
//! luck. So each row says where.
//!
//! Flow: who starts a process takes the core itself, starts it, and takes all cores back: a child
//! inherits the set, and so do all its threads.

use crate::cores;
use crate::failure::Failure;

/// Where the two sides of a contender run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Both on the first core that is allowed: nothing but instructions and changes of threads.
    OneCore,
    /// The client on the first core that is allowed and the server on the second, each idle while the
    /// other works.
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

    /// Which of the allowed cores is that of one side, if it has one of its own.
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
        let Some(nth) = self.core(side) else { return start() };
        let all = cores::allowed()?;
        // With one core both share it.
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

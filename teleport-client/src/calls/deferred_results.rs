//! Deferred results: they wait at the server, since the client has no memory for them.
//!
//! A result that finds no memory is accepted anyway in two cases: somebody waits for it, or nobody ever will
//! and it is dropped at once ([`Demand::accepts`]). Otherwise it is deferred. Asking for its outcome or
//! dropping its future fetches it ([`Demand::ask`], [`Demand::release`]). Both sides hold the lock of the
//! client's state, so neither misses the other.
//!
//! A server also bounds the results that it keeps, and starts no calls of this client past that bound. So
//! deferred results are also fetched when a later call has been waited for during one to two times `PATIENCE`
//! ([`DeferredResults`]).

use std::mem;
use std::time::{Duration, Instant};

/// The time for which a call is waited for before deferred results of earlier calls are fetched.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The interest in the outcome of a call.
#[derive(Debug)]
pub(crate) struct Demand {
    /// A future will read the outcome.
    has_future: bool,
    /// A caller asked for the outcome before it arrived.
    is_awaited: bool,
    /// `is_awaited` at the last check.
    was_awaited: bool,
    /// The result waits at the server and has not been fetched.
    is_deferred: bool,
}

impl Demand {
    pub(crate) fn new() -> Demand {
        Demand { has_future: true, is_awaited: false, was_awaited: false, is_deferred: false }
    }

    pub(crate) fn has_future(&self) -> bool {
        self.has_future
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// Returns true if a result is accepted without memory for it. Otherwise the result is deferred.
    pub(crate) fn accepts(&mut self) -> bool {
        let accepts = self.is_awaited || !self.has_future;
        self.is_deferred = !accepts;
        accepts
    }

    /// Notes that a caller asks for the outcome. Returns true if the caller must fetch the result.
    pub(crate) fn ask(&mut self) -> bool {
        self.is_awaited = true;
        mem::take(&mut self.is_deferred)
    }

    /// Notes that the outcome was read or its future dropped. Returns true if the caller must fetch the
    /// result.
    pub(crate) fn release(&mut self) -> bool {
        self.has_future = false;
        mem::take(&mut self.is_deferred)
    }

    /// Returns true if a caller waits now and waited at the last check.
    pub(crate) fn waits_long(&mut self) -> bool {
        let is_awaited = self.is_awaited && self.has_future;
        mem::replace(&mut self.was_awaited, is_awaited) && is_awaited
    }
}

/// The time of the next check of deferred results.
#[derive(Debug, Default)]
pub(crate) struct DeferredResults {
    check_at: Option<Instant>,
    has_warned: bool,
}

impl DeferredResults {
    pub(crate) fn check_at(&self) -> Option<Instant> {
        self.check_at
    }

    /// Notes a deferred result. Returns the time of the check.
    pub(crate) fn defer(&mut self, now: Instant) -> Instant {
        // A time in the past belongs to a check that already runs and does not include this result.
        let at = self.check_at.filter(|at| *at > now).unwrap_or(now + PATIENCE);
        self.check_at = Some(at);
        at
    }

    /// Sets the next check. `are_there` is true if results are deferred.
    pub(crate) fn checked(&mut self, now: Instant, are_there: bool) {
        let later = self.check_at.filter(|at| *at > now);
        self.check_at = later.or(are_there.then(|| now + PATIENCE));
    }

    /// Returns true the first time.
    pub(crate) fn warns(&mut self) -> bool {
        !mem::replace(&mut self.has_warned, true)
    }
}

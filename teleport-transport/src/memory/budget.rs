//! A bound on bytes that many connections share, handed out whole message by whole message.
//!
//! Flow: `request` -> a [`Charge`] at once, or in turn when others give theirs back -> dropping the charge. Waiting
//! messages of one connection keep their order; connections take turns, so that one with many cannot hold up the rest.
//! The first in line is never overtaken, so that a large message does not starve.
//! Never blocks and allocates no payload. Bound: `max_bytes`, or one larger message alone; waiting requests are bounded
//! by the connections' open calls.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Called with the memory that a waiting message was given. Must not block, nor take a lock under which charges are dropped.
pub type OnGrant = Box<dyn FnOnce(Charge) + Send>;

/// Bytes that may be in use at once.
///
/// ```
/// use teleport_transport::Budget;
/// let budget = Budget::new(100);
/// let first = budget.request(1, 1, 80, || Box::new(|_| {})).expect("there is room");
/// assert!(budget.request(1, 2, 80, || Box::new(|_| {})).is_none()); // waits
/// drop(first);
/// assert_eq!(budget.used_bytes(), 0); // the waiting one was granted, and dropped its charge
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Invariant: the sum of all charges; past `max_bytes` only by what `charge_anyway` took, or by one that is alone.
    used_bytes: u64,
    /// Whose turn it is stands first. Invariant: no queue is empty.
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    connection: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: u64,
    bytes: u64,
    on_grant: OnGrant,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Bytes of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Charge {
    bytes: u64,
    shared: Arc<Shared>,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(max_bytes: u64) -> Budget {
        Budget { shared: Arc::new(Shared { max_bytes, state: Mutex::default() }) }
    }

    /// What may be used at once.
    pub fn max_bytes(&self) -> u64 {
        self.shared.max_bytes
    }

    /// What is charged now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().used_bytes
    }

    /// Messages that wait for memory.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().lines.iter().map(|line| line.waiting.len()).sum()
    }

    /// Whether any but `connection` wait for memory.
    pub fn others_wait(&self, connection: u64) -> bool {
        self.shared.state.lock().lines.iter().any(|line| line.connection != connection)
    }

    /// Charges `bytes` if they are free and nobody waits. Never goes past the bound.
    pub fn try_charge(&self, bytes: u64) -> Option<Charge> {
        let mut state = self.shared.state.lock();
        let is_free = bytes <= self.shared.max_bytes.saturating_sub(state.used_bytes);
        (state.lines.is_empty() && is_free).then(|| {
            state.used_bytes += bytes;
            self.charge(bytes)
        })
    }

    /// Charges `bytes` whatever is in use: for memory that is taken already, or that somebody must have now. Until enough
    /// is given back, nobody else is granted anything.
    pub fn charge_anyway(&self, bytes: u64) -> Charge {
        self.shared.state.lock().used_bytes += bytes;
        self.charge(bytes)
    }

    /// Charges `bytes` for message `id` of `connection` at once, or calls what `on_grant` makes when its turn has come.
    /// More than `max_bytes` waits until nothing else is charged.
    pub fn request(
        &self,
        connection: u64,
        id: u64,
        bytes: u64,
        on_grant: impl FnOnce() -> OnGrant,
    ) -> Option<Charge> {
        let mut state = self.shared.state.lock();
        if state.lines.is_empty() && self.shared.fits(&state, bytes) {
            state.used_bytes += bytes;
            return Some(self.charge(bytes));
        }
        let waiting = Waiting { id, bytes, on_grant: on_grant() };
        match state.lines.iter_mut().find(|line| line.connection == connection) {
            Some(line) => line.waiting.push_back(waiting),
            None => state.lines.push_back(Line { connection, waiting: [waiting].into() }),
        }
        None
    }

    /// Forgets what waits for a connection that is gone.
    pub fn forget_connection(&self, connection: u64) {
        self.forget(|line| {
            if line.connection == connection {
                line.waiting.clear();
            }
        });
    }

    /// Forgets one message that was withdrawn.
    pub fn forget_message(&self, connection: u64, id: u64) {
        self.forget(|line| {
            if line.connection == connection {
                line.waiting.retain(|waiting| waiting.id != id);
            }
        });
    }

    fn forget(&self, change: impl FnMut(&mut Line)) {
        let mut state = self.shared.state.lock();
        state.lines.iter_mut().for_each(change);
        state.lines.retain(|line| !line.waiting.is_empty());
        drop(state);
        self.shared.serve();
    }

    fn charge(&self, bytes: u64) -> Charge {
        Charge { bytes, shared: self.shared.clone() }
    }
}

impl Shared {
    /// One alone always fits: whether it may be that large is for the limits on messages, which are checked before.
    fn fits(&self, state: &State, bytes: u64) -> bool {
        state.used_bytes == 0 || bytes <= self.max_bytes.saturating_sub(state.used_bytes)
    }

    /// Grants to those in line while there is room. Called without the lock; each callback runs without it too.
    fn serve(self: &Arc<Self>) {
        while let Some((charge, on_grant)) = self.next_grant() {
            on_grant(charge);
        }
    }

    fn next_grant(self: &Arc<Self>) -> Option<(Charge, OnGrant)> {
        let mut state = self.state.lock();
        let bytes = state.lines.front()?.waiting.front()?.bytes;
        if !self.fits(&state, bytes) {
            return None;
        }
        let mut line = state.lines.pop_front()?;
        let waiting = line.waiting.pop_front()?;
        if !line.waiting.is_empty() {
            state.lines.push_back(line);
        }
        state.used_bytes += bytes;
        Some((Charge { bytes, shared: self.clone() }, waiting.on_grant))
    }
}

impl Charge {
    /// How much is charged.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.state.lock().used_bytes -= self.bytes;
        self.shared.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Granted = Arc<Mutex<Vec<(u64, u64, Charge)>>>;

    fn ask(budget: &Budget, granted: &Granted, connection: u64, id: u64, bytes: u64) {
        let list = granted.clone();
        let on_grant =
            move || -> OnGrant { Box::new(move |charge| list.lock().push((connection, id, charge))) };
        if let Some(charge) = budget.request(connection, id, bytes, on_grant) {
            granted.lock().push((connection, id, charge));
        }
    }

    fn ids(granted: &Granted) -> Vec<(u64, u64)> {
        granted.lock().iter().map(|(connection, id, _)| (*connection, *id)).collect()
    }

    #[test]
    fn connections_take_turns() {
        let budget = Budget::new(10);
        let granted = Granted::default();
        for id in 1..=3 {
            ask(&budget, &granted, 1, id, 10);
        }
        ask(&budget, &granted, 2, 1, 10);
        assert_eq!(budget.waiting(), 3);
        assert!(budget.others_wait(1) && budget.others_wait(2) && budget.others_wait(3));
        budget.forget_connection(2);
        assert!(!budget.others_wait(1) && budget.others_wait(2));
        ask(&budget, &granted, 2, 1, 10);
        let mut order = Vec::new();
        while let Some((connection, id, charge)) = { granted.lock().pop() } {
            order.push((connection, id));
            drop(charge);
        }
        assert_eq!(order, [(1, 1), (1, 2), (2, 1), (1, 3)]);
        assert_eq!((budget.used_bytes(), budget.waiting()), (0, 0));
    }

    #[test]
    fn the_first_in_line_is_not_overtaken() {
        let budget = Budget::new(10);
        let granted = Granted::default();
        let held = budget.try_charge(5).expect("room");
        ask(&budget, &granted, 1, 1, 8);
        ask(&budget, &granted, 2, 2, 1);
        assert!(ids(&granted).is_empty());
        assert!(budget.try_charge(1).is_none());
        drop(held);
        assert_eq!(ids(&granted), [(1, 1), (2, 2)]);
        assert_eq!(budget.used_bytes(), 9);
    }

    #[test]
    fn what_is_charged_anyway_holds_up_the_others() {
        let budget = Budget::new(10);
        let granted = Granted::default();
        let first = budget.charge_anyway(25);
        ask(&budget, &granted, 1, 1, 1);
        assert!(ids(&granted).is_empty() && budget.try_charge(1).is_none());
        assert_eq!(budget.used_bytes(), 25);
        drop(first);
        assert_eq!(ids(&granted), [(1, 1)]);
    }

    #[test]
    fn one_that_is_too_large_waits_until_it_is_alone() {
        let budget = Budget::new(10);
        let granted = Granted::default();
        assert!(budget.try_charge(11).is_none());
        let held = budget.try_charge(1).expect("room");
        ask(&budget, &granted, 1, 1, 25);
        ask(&budget, &granted, 2, 2, 1);
        assert!(ids(&granted).is_empty());
        drop(held);
        assert_eq!(ids(&granted), [(1, 1)]);
        let first = granted.lock().pop();
        drop(first);
        assert_eq!(ids(&granted), [(2, 2)]);
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let budget = Budget::new(10);
        let granted = Granted::default();
        let held = budget.try_charge(5).expect("room");
        ask(&budget, &granted, 1, 1, 8);
        ask(&budget, &granted, 1, 2, 9);
        ask(&budget, &granted, 2, 1, 5);
        budget.forget_message(1, 1);
        budget.forget_connection(1);
        assert_eq!(ids(&granted), [(2, 1)]);
        drop(held);
        granted.lock().clear();
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn threads_never_exceed_it() {
        let budget = Budget::new(100);
        std::thread::scope(|scope| {
            for connection in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for id in 0..1000 {
                        let (sender, receiver) = std::sync::mpsc::channel();
                        let charge = budget.request(connection, id, 40, || {
                            Box::new(move |charge| sender.send(charge).expect("its receiver waits"))
                        });
                        let charge = charge.unwrap_or_else(|| receiver.recv().expect("its turn comes"));
                        assert!(budget.used_bytes() <= 100);
                        drop(charge);
                    }
                });
            }
        });
        assert_eq!(budget.used_bytes(), 0);
    }
}

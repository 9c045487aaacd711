//! A limit on bytes that many connections share. Memory is granted to whole messages.
//!
//! Flow: `request` -> a [`Charge`], at once or when other charges are dropped. Waiting messages of one
//! connection keep their order. Connections take turns, so one with many messages cannot delay the others.
//! Nobody overtakes the first message in line, so a large message does not starve.
//!
//! Never blocks and never allocates payload. Bounds: `max_bytes`, or one larger message alone. Connections'
//! open calls bound the waiting requests.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Called when a waiting message is granted its memory.
///
/// Must not block, and must not take a lock that is held while charges are dropped.
pub type OnGrant = Box<dyn FnOnce(Charge) + Send>;

/// A limit on the bytes that are in use at once. Clones share it.
///
/// ```
/// use teleport_transport::Budget;
/// let budget = Budget::new(100);
/// let first = budget.request(1, 1, 80, || Box::new(|_| {})).expect("there is room");
/// assert!(budget.request(1, 2, 80, || Box::new(|_| {})).is_none()); // waits
/// drop(first);
/// assert_eq!(budget.used_bytes(), 0); // the waiting message was granted, and its charge was dropped
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<BudgetInner>,
}

#[derive(Debug)]
struct BudgetInner {
    max_bytes: u64,
    state: Mutex<BudgetState>,
}

#[derive(Debug, Default)]
struct BudgetState {
    /// Invariant: the sum of all charges. Exceeds `max_bytes` only by `charge_anyway`, or by one charge that
    /// is alone.
    used_bytes: u64,
    /// The connection whose turn is next comes first. Invariant: no queue is empty.
    lines: VecDeque<Line>,
}

/// The waiting messages of one connection.
#[derive(Debug)]
struct Line {
    connection: u64,
    requests: VecDeque<Request>,
}

struct Request {
    id: u64,
    bytes: u64,
    on_grant: OnGrant,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Bytes of a [`Budget`]. Dropping it returns them.
#[derive(Debug)]
pub struct Charge {
    bytes: u64,
    inner: Arc<BudgetInner>,
}

impl Budget {
    /// Creates a budget of `max_bytes`.
    pub fn new(max_bytes: u64) -> Budget {
        Budget { inner: Arc::new(BudgetInner { max_bytes, state: Mutex::default() }) }
    }

    /// Returns the limit.
    pub fn max_bytes(&self) -> u64 {
        self.inner.max_bytes
    }

    /// Returns the bytes that are charged now.
    pub fn used_bytes(&self) -> u64 {
        self.inner.state.lock().used_bytes
    }

    /// Returns how many messages wait for memory.
    pub fn waiting(&self) -> usize {
        self.inner.state.lock().lines.iter().map(|line| line.requests.len()).sum()
    }

    /// Returns true if another connection waits for memory.
    pub fn others_wait(&self, connection: u64) -> bool {
        self.inner.state.lock().lines.iter().any(|line| line.connection != connection)
    }

    /// Charges `bytes` if they are free and nobody waits. Never exceeds the limit.
    pub fn try_charge(&self, bytes: u64) -> Option<Charge> {
        let mut state = self.inner.state.lock();
        let is_free = bytes <= self.inner.max_bytes.saturating_sub(state.used_bytes);
        (state.lines.is_empty() && is_free).then(|| {
            state.used_bytes += bytes;
            self.charge(bytes)
        })
    }

    /// Charges `bytes` even past the limit: for memory that is in use already, or needed at once. Nothing
    /// else is granted until enough is returned.
    pub fn charge_anyway(&self, bytes: u64) -> Charge {
        self.inner.state.lock().used_bytes += bytes;
        self.charge(bytes)
    }

    /// Charges `bytes` for message `id` of `connection`, at once if possible. Otherwise the message waits,
    /// and the callback that `on_grant` creates gets the charge later. A message of more than `max_bytes`
    /// waits until nothing else is charged.
    pub fn request(
        &self,
        connection: u64,
        id: u64,
        bytes: u64,
        on_grant: impl FnOnce() -> OnGrant,
    ) -> Option<Charge> {
        let mut state = self.inner.state.lock();
        if state.lines.is_empty() && self.inner.fits(&state, bytes) {
            state.used_bytes += bytes;
            return Some(self.charge(bytes));
        }
        let request = Request { id, bytes, on_grant: on_grant() };
        match state.lines.iter_mut().find(|line| line.connection == connection) {
            Some(line) => line.requests.push_back(request),
            None => state.lines.push_back(Line { connection, requests: [request].into() }),
        }
        None
    }

    /// Removes the requests of a connection that has ended.
    pub fn forget_connection(&self, connection: u64) {
        self.forget(|line| {
            if line.connection == connection {
                line.requests.clear();
            }
        });
    }

    /// Removes the request of one message, which was withdrawn.
    pub fn forget_message(&self, connection: u64, id: u64) {
        self.forget(|line| {
            if line.connection == connection {
                line.requests.retain(|request| request.id != id);
            }
        });
    }

    fn forget(&self, change: impl FnMut(&mut Line)) {
        let mut state = self.inner.state.lock();
        state.lines.iter_mut().for_each(change);
        state.lines.retain(|line| !line.requests.is_empty());
        drop(state);
        self.inner.serve();
    }

    fn charge(&self, bytes: u64) -> Charge {
        Charge { bytes, inner: self.inner.clone() }
    }
}

impl BudgetInner {
    /// Returns true if `bytes` may be charged. A message alone always fits: its size was checked before.
    fn fits(&self, state: &BudgetState, bytes: u64) -> bool {
        state.used_bytes == 0 || bytes <= self.max_bytes.saturating_sub(state.used_bytes)
    }

    /// Grants waiting requests while there is room. Called without the lock; callbacks run without it too.
    fn serve(self: &Arc<Self>) {
        while let Some((charge, on_grant)) = self.next_grant() {
            on_grant(charge);
        }
    }

    fn next_grant(self: &Arc<Self>) -> Option<(Charge, OnGrant)> {
        let mut state = self.state.lock();
        let bytes = state.lines.front()?.requests.front()?.bytes;
        if !self.fits(&state, bytes) {
            return None;
        }
        let mut line = state.lines.pop_front()?;
        let request = line.requests.pop_front()?;
        if !line.requests.is_empty() {
            state.lines.push_back(line);
        }
        state.used_bytes += bytes;
        Some((Charge { bytes, inner: self.clone() }, request.on_grant))
    }
}

impl Charge {
    /// Returns how many bytes are charged.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.inner.state.lock().used_bytes -= self.bytes;
        self.inner.serve();
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
    fn nobody_overtakes_the_first_in_line() {
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
    fn a_charge_past_the_limit_delays_others() {
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
    fn a_message_over_the_limit_waits_until_it_is_alone() {
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
    fn removed_requests_make_room() {
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
    fn threads_never_exceed_the_limit() {
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

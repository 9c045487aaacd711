//! A client's logic above its connection, without I/O: its open calls, how they go on after a lost
//! connection, and what it asks for on the next one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use teleport_wire::{
    CallAnswer, CallHead, CallState, ErrorKind, Hello, Id128, Limits, Message, Ran, RemoteError, Resume,
};

use super::super::*;
use super::invariants::Invariant;
use super::ledger::{Call, Ledger, Outcome};
use super::link::{End, Link};
use crate::memory::budget::{Budget, Charge};

pub(super) type Granted = Arc<Mutex<Vec<(u64, u64, Charge)>>>;

pub(super) struct Caller {
    pub(super) config: Arc<Config>,
    /// The client's connection, if calls can be made on it.
    pub(super) link: Option<u64>,
    /// Calls that wait for their answer on this connection, by id.
    pub(super) open: BTreeMap<u64, usize>,
    /// Calls that have ended for their caller but whose answer may still arrive.
    given_up: HashSet<u64>,
    /// Calls of earlier connections that are to be resumed.
    pub(super) kept: BTreeMap<u64, (usize, CallState)>,
    /// Idempotent calls that are to be made again.
    pub(super) again: Vec<usize>,
    numbers: BTreeMap<u64, usize>,
    had_connection: bool,
    /// The server instance that has the calls.
    server: Id128,
    /// Leases of results that were not read.
    pub(super) unread: Vec<Lease>,
    pub(super) budget: Budget,
    granted: Granted,
}

impl Caller {
    pub(super) fn new(config: Arc<Config>, max_memory: u64) -> Caller {
        Caller {
            config,
            link: None,
            open: BTreeMap::new(),
            given_up: HashSet::new(),
            kept: BTreeMap::new(),
            again: Vec::new(),
            numbers: BTreeMap::new(),
            had_connection: false,
            server: Id128::NONE,
            unread: Vec::new(),
            budget: Budget::new(max_memory),
            granted: Arc::default(),
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.config.session != Id128::NONE
    }

    /// Returns the number of the call that had this id on one of the connections.
    pub(super) fn number(&self, id: u64) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    // ---- Users ----

    /// Makes a call if the connection accepts one. Without a `number` the call is new.
    pub(super) fn call(&mut self, ledger: &mut Ledger, end: &End, number: Option<usize>) -> bool {
        let mut outbound = end.outbound.borrow_mut();
        let may = outbound.peer().is_some_and(|peer| outbound.open_calls() < peer.max_open_calls as usize);
        if !may {
            return false;
        }
        let (message, probe) = match number {
            Some(number) => (message(ledger, number), number),
            None => {
                let number = self.new_call(ledger);
                (message(ledger, number), number)
            }
        };
        match outbound.send_call(message, |_| true) {
            Ok(id) => {
                self.open.insert(id, probe);
                self.numbers.insert(id, probe);
                true
            }
            // The connection waits for the answer to a resume. A new call then counts as never sent.
            Err(SendError::NotReady) => {
                if number.is_none() {
                    ledger.end(probe, Outcome::Lost(Ran::No));
                    ledger.calls[probe].resume = false;
                }
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn new_call(&self, ledger: &mut Ledger) -> usize {
        let tree = ledger.tree();
        let random = &mut ledger.random;
        let deadline = random.one_in(8).then(|| Duration::from_micros(random.below(300_000)));
        let call = Call {
            tree,
            method: if random.one_in(12) { "unknown".into() } else { String::new() },
            deadline: deadline.map(|time| ledger.now + time),
            idempotent: random.one_in(4),
            resume: self.has_session() && !random.one_in(4),
            was_tried: false,
            was_forgotten: false,
            was_changed: false,
            runs: 0,
            outcome: None,
        };
        ledger.note(call)
    }

    /// Withdraws one of the calls, in whatever state it is.
    pub(super) fn withdraw(&mut self, ledger: &mut Ledger, end: Option<&End>) {
        let kept: Vec<u64> = self.kept.keys().copied().collect();
        if let Some(id) = ledger.random.pick(&kept).filter(|_| ledger.random.one_in(2)) {
            self.forget(ledger, id, Outcome::Withdrawn);
            return;
        }
        let open: Vec<u64> = self.open.keys().copied().collect();
        let (Some(id), Some(end)) = (ledger.random.pick(&open), end) else { return };
        match end.outbound.borrow_mut().withdraw(id) {
            Withdrawn::NeverSent => {}
            Withdrawn::Aborted => ledger.seen.aborted += 1,
            Withdrawn::Requested | Withdrawn::NotOpen => return,
        }
        if let Some(number) = self.open.remove(&id) {
            ledger.end(number, Outcome::Withdrawn(Ran::No));
        }
    }

    /// Ends a call that waits for a connection.
    fn forget(&mut self, ledger: &mut Ledger, id: u64, outcome: fn(Ran) -> Outcome) {
        if let Some((number, state)) = self.kept.remove(&id) {
            let ran = if state == CallState::Unsent { Ran::No } else { Ran::Maybe };
            ledger.end(number, outcome(ran));
        }
    }

    /// Ends the calls whose deadline has passed.
    pub(super) fn look_at_clock(&mut self, ledger: &mut Ledger, end: Option<&End>) {
        let is_over = |number: usize| ledger.calls[number].deadline.is_some_and(|due| due <= ledger.now);
        let open: Vec<(u64, usize)> = self.open.iter().map(|(id, number)| (*id, *number)).collect();
        let overdue: Vec<_> = open.into_iter().filter(|(_, number)| is_over(*number)).collect();
        let kept: Vec<u64> =
            self.kept.iter().filter(|(_, (number, _))| is_over(*number)).map(|(id, _)| *id).collect();
        for id in kept {
            self.forget(ledger, id, Outcome::Overdue);
        }
        let Some(end) = end else { return };
        for (id, number) in overdue {
            self.open.remove(&id);
            let ran = match end.outbound.borrow_mut().withdraw(id) {
                Withdrawn::NeverSent | Withdrawn::Aborted => Ran::No,
                Withdrawn::Requested | Withdrawn::NotOpen => {
                    self.given_up.insert(id);
                    Ran::Maybe
                }
            };
            ledger.end(number, Outcome::Overdue(ran));
        }
    }

    /// Drops one result.
    pub(super) fn read_result(&mut self) {
        drop(self.unread.pop());
    }

    // ---- Events of the connection ----

    pub(super) fn handle_events(&mut self, ledger: &mut Ledger, link: &mut Link) {
        let key = link.key;
        let Some(end) = &mut link.ends[0] else { return };
        for event in std::mem::take(&mut end.events) {
            match event {
                Event::Open(hello) => self.opened(&hello, end),
                Event::Resumed { calls } => self.resumed(ledger, calls, end),
                Event::Acknowledged { .. } => {}
                Event::Answer { id, answer } => self.answered(ledger, id, answer, end),
                Event::Wants { id, bytes } => {
                    let granted = self.granted.clone();
                    let on_grant = || -> crate::OnGrant {
                        Box::new(move |charge| granted.lock().push((key, id, charge)))
                    };
                    if let Some(charge) = self.budget.request(key, id, bytes, on_grant) {
                        self.granted.lock().push((key, id, charge));
                    }
                }
                Event::Withdrawn { id } => self.budget.forget_message(key, id),
                event => panic!("a server sends no {event:?}"),
            }
        }
        self.grant(link);
    }

    /// Passes on the charges that the budget has granted for results of this connection.
    pub(super) fn grant(&mut self, link: &mut Link) {
        let Some(end) = &mut link.ends[0] else { return };
        for (key, id, charge) in std::mem::take(&mut *self.granted.lock()) {
            if key == link.key {
                end.inbound.send_grant(id, Some(charge), &end.outbound);
            }
        }
    }

    fn opened(&mut self, hello: &Hello, end: &End) {
        let mut outbound = end.outbound.borrow_mut();
        outbound.number_after(self.numbers.keys().last().copied().unwrap_or(0));
        if self.had_connection && outbound.resumes() {
            let calls = self.kept.iter().map(|(id, (_, state))| (*id, *state)).collect();
            outbound.send_resume(&Resume { server: self.server, calls }).expect("it is the first thing");
        }
        if !self.had_connection {
            self.server = hello.instance;
        }
        self.had_connection = true;
    }

    fn resumed(&mut self, ledger: &mut Ledger, calls: Vec<(u64, CallAnswer)>, end: &End) {
        self.server = end.outbound.borrow().peer().map_or(self.server, |hello| hello.instance);
        for (id, answer) in calls {
            let Some((number, state)) = self.kept.remove(&id) else {
                // The call was given up while the resume was on its way. Its answer, if any, still
                // arrives.
                match answer {
                    CallAnswer::Done | CallAnswer::Running => drop(self.given_up.insert(id)),
                    CallAnswer::Expired => end.outbound.borrow_mut().send_ack(id),
                    CallAnswer::Missing | CallAnswer::UnknownSession => {}
                }
                continue;
            };
            match answer {
                CallAnswer::Done | CallAnswer::Running => {
                    ledger.seen.resumed += 1;
                    self.open.insert(id, number);
                }
                CallAnswer::Missing => {
                    ledger.seen.sent_again += 1;
                    let message = message(ledger, number);
                    end.outbound.borrow_mut().send_call_again(id, message).expect("it is missing");
                    self.open.insert(id, number);
                }
                CallAnswer::Expired => {
                    end.outbound.borrow_mut().send_ack(id);
                    ledger.end(number, Outcome::Failed(ErrorKind::Expired, Ran::Yes));
                }
                CallAnswer::UnknownSession => {
                    ledger.seen.unknown += 1;
                    ledger.calls[number].was_forgotten = true;
                    self.end_or_repeat(ledger, number, state);
                }
            }
        }
    }

    /// Handles a call whose connection is lost and which cannot be resumed.
    fn end_or_repeat(&mut self, ledger: &mut Ledger, number: usize, state: CallState) {
        let call = &mut ledger.calls[number];
        if state == CallState::Unsent && !call.idempotent {
            ledger.end(number, Outcome::Lost(Ran::No));
        } else if call.idempotent {
            call.was_tried |= state != CallState::Unsent;
            self.again.push(number);
        } else {
            ledger.end(number, Outcome::Lost(Ran::Maybe));
        }
    }

    fn answered(&mut self, ledger: &mut Ledger, id: u64, answer: Result<Reply, RemoteError>, end: &End) {
        let number = self.number(id).expect("it was made");
        if ledger.calls[number].resume {
            end.outbound.borrow_mut().send_ack(id);
        }
        let is_open = self.open.remove(&id).is_some();
        Invariant::EndsOnce
            .require(is_open || self.given_up.remove(&id), || format!("call {id} is not open"));
        let outcome = match answer {
            Ok(Reply { tree, lease }) => {
                let is_own = tree.is_ok_and(|tree| tree == ledger.calls[number].tree);
                Invariant::NothingMadeUp.require(is_own, || format!("call {number} was returned changed"));
                self.unread.push(lease);
                Outcome::Result
            }
            Err(error) => Outcome::Failed(error.kind, error.ran),
        };
        if is_open {
            ledger.end(number, outcome);
        }
    }

    /// Handles the end of the connection on this side.
    pub(super) fn closed(&mut self, ledger: &mut Ledger, key: u64, end: &End) {
        let mut outbound = end.outbound.borrow_mut();
        outbound.end();
        self.budget.forget_connection(key);
        self.link = None;
        self.given_up.clear();
        let states: BTreeMap<u64, CallState> = outbound.call_states().into_iter().collect();
        for (id, number) in std::mem::take(&mut self.open) {
            let state = states[&id];
            if ledger.calls[number].resume {
                self.kept.insert(id, (number, state));
            } else {
                self.end_or_repeat(ledger, number, state);
            }
        }
    }
}

fn message(ledger: &Ledger, number: usize) -> Message {
    let call = &ledger.calls[number];
    let head = CallHead {
        method: &call.method,
        deadline: call.deadline.map(|due| due.saturating_duration_since(ledger.now)),
        idempotent: call.idempotent,
        resume: call.resume,
    };
    Message::call(&head, &call.tree, &Limits::default()).expect("it is within the limits")
}

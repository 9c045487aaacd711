//! The server's logic above its connections, without I/O. It holds the calls that wait or run, and the
//! answers that it keeps for sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use teleport_wire::{CallAnswer, ErrorKind, Id128, Limits, Message, Ran, RemoteError, Resume, Tree};

use super::super::*;
use super::arranger::Arranger;
use super::audit::Way;
use super::caller::Granted;
use super::invariants::Invariant;
use super::ledger::Ledger;
use super::link::{End, Link};
use crate::memory::budget::Budget;

pub(super) type Links = BTreeMap<u64, Link>;

/// A connection with more unsent bytes than this starts no further calls.
const MAX_UNSENT_BYTES: u64 = 50_000;

/// A call that has no answer.
pub(super) struct Serving {
    client: usize,
    key: u64,
    call: Call,
    runs: bool,
}

/// The state that the server keeps for a client whose calls survive its connections.
#[derive(Default)]
struct Session {
    /// The server has no answer for an open call, and no longer has one for an expired call.
    records: BTreeMap<u64, Record>,
    /// The connection on which answers are sent.
    link: Option<u64>,
    /// The newest connection whose hello has arrived.
    newest: u64,
    /// The newest call that arrived whole.
    last_id: u64,
    /// The server has forgotten every call up to this id that is not in `records`.
    forgotten_id: u64,
}

enum Record {
    Open,
    Ended(Option<Message>),
}

pub(super) struct Answerer {
    /// Changes with each restart.
    pub(super) instance: Id128,
    pub(super) budget: Budget,
    granted: Granted,
    pub(super) serving: Vec<Serving>,
    pub(super) rows: Arranger,
    sessions: HashMap<usize, Session>,
}

fn end_of(links: &mut Links, key: u64) -> Option<&mut End> {
    links.get_mut(&key)?.ends[1].as_mut()
}

impl Answerer {
    pub(super) fn new(max_memory: u64) -> Answerer {
        let budget = Budget::new(max_memory);
        let (instance, granted) = (Id128([1; 16]), Arc::default());
        let (serving, rows, sessions) = (Vec::new(), Arranger::default(), HashMap::new());
        Answerer { instance, budget, granted, serving, rows, sessions }
    }

    /// Returns the number of kept answers and open calls of all sessions.
    pub(super) fn kept(&self) -> usize {
        self.sessions.values().map(|session| session.records.len()).sum()
    }

    // ---- Events of the connections ----

    pub(super) fn handle_events(&mut self, ledger: &mut Ledger, links: &mut Links, key: u64) {
        let Some(link) = links.get_mut(&key) else { return };
        let client = link.client;
        let events = link.ends[1].as_mut().map(|end| std::mem::take(&mut end.events));
        for event in events.into_iter().flatten() {
            if end_of(links, key).is_none() {
                // The lease came with the hello of a connection that is too old.
                break;
            }
            match event {
                Event::Open(hello) if !hello.session.is_none() => self.opened(ledger, links, client, key),
                Event::Open(_) => {}
                Event::Resume(resume) => self.resume(links, client, key, &resume),
                Event::Acknowledged { ids } => self.acknowledged(client, &ids),
                Event::Call(call) => self.arrived(ledger, links, client, key, call),
                Event::Cancel { id } => self.cancel(ledger, links, client, key, id),
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
                event => panic!("a client sends no {event:?}"),
            }
        }
        self.grant(links);
    }

    /// Passes on the charges that the budget has granted.
    pub(super) fn grant(&mut self, links: &mut Links) {
        for (key, id, charge) in std::mem::take(&mut *self.granted.lock()) {
            if let Some(end) = end_of(links, key) {
                end.inbound.send_grant(id, Some(charge), &end.outbound);
            }
        }
        // Results are charged when they exist, even if there is no room.
        let results = |link: &Link| link.ends[1].as_ref().map(|end| end.outbound.borrow().charged_bytes());
        let results: u64 = links.values().filter_map(results).sum();
        let (used, most) = (self.budget.used_bytes(), self.budget.max_bytes());
        Invariant::BudgetKept.require(used <= most + results, || {
            format!("{used} bytes of {most} are charged, and results only {results}")
        });
    }

    /// Attaches a connection to a session. The session stops reading its other connections. The newest
    /// connection counts, even if the hello of an older one is read later: the client may have sent
    /// again on the newer connection whatever it sent on the older one.
    fn opened(&mut self, ledger: &mut Ledger, links: &mut Links, client: usize, key: u64) {
        let session = self.sessions.entry(client).or_default();
        let before = if key > session.newest {
            session.newest = key;
            session.link.replace(key)
        } else {
            Some(key)
        };
        if let Some(before) = before.and_then(|before| links.get_mut(&before))
            && before.ends[1].is_some()
        {
            ledger.seen.fenced += 1;
            before.pipes[Way::Down as usize].end(0, Some(ledger.now));
            before.was_disturbed = true;
            self.closed(before);
        }
    }

    /// Handles the end of the connection on this side.
    pub(super) fn closed(&mut self, link: &mut Link) {
        if let Some(end) = link.ends[1].take() {
            end.outbound.borrow_mut().end();
        }
        self.budget.forget_connection(link.key);
        if let Some(session) = self.sessions.get_mut(&link.client)
            && session.link == Some(link.key)
        {
            session.link = None;
        }
    }

    fn arrived(&mut self, ledger: &Ledger, links: &mut Links, client: usize, key: u64, mut call: Call) {
        let number = call.slot as usize;
        let in_row = call.row.take().map(|ticket| self.rows.take(ticket));
        let was_vacated = matches!(in_row, Some(None));
        if let Some(Some(tree)) = in_row {
            call.tree = Ok(tree);
        }
        let is_own = call.tree.as_ref().is_ok_and(|tree| *tree == ledger.calls[number].tree);
        Invariant::NothingMadeUp.require(is_own || was_vacated, || format!("call {number} arrived changed"));
        if call.resume {
            let session = self.sessions.get_mut(&client).expect("the hello has created it");
            session.last_id = session.last_id.max(call.id);
            let before = session.records.insert(call.id, Record::Open);
            Invariant::RunsAtMostOnce.require(before.is_none(), || format!("call {number} arrived twice"));
            if let Some(end) = end_of(links, key) {
                end.outbound.borrow_mut().send_ack(call.id);
            }
        }
        let serving = Serving { client, key, call, runs: false };
        if was_vacated {
            let error = RemoteError::new(ErrorKind::Overloaded, Ran::No, "its row was needed");
            return self.end(ledger, links, serving, Message::error(&error));
        }
        self.serving.push(serving);
    }

    fn cancel(&mut self, ledger: &mut Ledger, links: &mut Links, client: usize, key: u64, id: u64) {
        let is_it = |serving: &Serving| {
            serving.client == client && serving.call.id == id && (serving.key == key || serving.call.resume)
        };
        if let Some(index) = self.serving.iter().position(is_it).filter(|index| !self.serving[*index].runs) {
            let serving = self.serving.swap_remove(index);
            let error = RemoteError::new(ErrorKind::Cancelled, Ran::No, "withdrawn");
            self.end(ledger, links, serving, Message::error(&error));
        }
    }

    fn acknowledged(&mut self, client: usize, ids: &[u64]) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.records.retain(|id, record| matches!(record, Record::Open) || !ids.contains(id));
        }
    }

    fn resume(&mut self, links: &mut Links, client: usize, key: u64, resume: &Resume) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if resume.server != self.instance {
            // A server does not know the calls of another instance.
            if let Some(end) = end_of(links, key) {
                let unknown = resume.calls.iter().map(|(id, _)| (*id, CallAnswer::UnknownSession)).collect();
                end.outbound
                    .borrow_mut()
                    .send_resume_answer(unknown)
                    .expect("the ids are those of the resume");
            }
            return;
        }
        let is_listed = |id: &u64| resume.calls.iter().any(|(listed, _)| listed == id);
        session.records.retain(|id, _| is_listed(id));
        let answer = |id: &u64| match session.records.get(id) {
            // A call above `forgotten_id` without a record never arrived.
            None if *id <= session.forgotten_id => CallAnswer::UnknownSession,
            None => CallAnswer::Missing,
            Some(Record::Open) => CallAnswer::Running,
            Some(Record::Ended(None)) => CallAnswer::Expired,
            Some(Record::Ended(Some(_))) => CallAnswer::Done,
        };
        let answers: Vec<_> = resume.calls.iter().map(|(id, _)| (*id, answer(id))).collect();
        if let Some(end) = end_of(links, key) {
            let mut outbound = end.outbound.borrow_mut();
            outbound.send_resume_answer(answers).expect("the ids are those of the resume");
            for (id, record) in &session.records {
                if let Record::Ended(Some(message)) = record {
                    outbound.send_answer(*id, message.clone()).expect("it was said to be done");
                }
            }
        }
        // The server need not run calls that the client has given up.
        let records = &session.records;
        let is_wanted = |serving: &Serving| {
            !(serving.client == client && serving.call.resume)
                || serving.runs
                || records.contains_key(&serving.call.id)
        };
        let (wanted, unwanted) = std::mem::take(&mut self.serving).into_iter().partition(is_wanted);
        self.serving = wanted;
        drop::<Vec<Serving>>(unwanted);
    }

    // ---- Workers ----

    /// Starts a waiting call, or ends a running one.
    pub(super) fn work(&mut self, ledger: &mut Ledger, links: &mut Links) {
        if self.serving.is_empty() {
            return;
        }
        let index = ledger.random.index(self.serving.len());
        let call = &mut self.serving[index].call;
        let number = call.slot as usize;
        if !self.serving[index].runs {
            let unsent = end_of(links, self.serving[index].key)
                .map(|end| end.outbound.borrow().ledger().unsent_bytes().all);
            if unsent.is_some_and(|bytes| bytes > MAX_UNSENT_BYTES) {
                return;
            }
            if self.serving[index].call.deadline.is_some_and(|due| due <= ledger.now) {
                let serving = self.serving.swap_remove(index);
                let error = RemoteError::new(ErrorKind::Deadline, Ran::No, "its time was over");
                return self.end(ledger, links, serving, Message::error(&error));
            }
            ledger.run(number);
            self.serving[index].runs = true;
            return;
        }
        let mut serving = self.serving.swap_remove(index);
        let tree = std::mem::replace(&mut serving.call.tree, Ok(Tree::Null)).expect("it was compared");
        let message = if ledger.random.one_in(10) {
            Message::error(&RemoteError::new(ErrorKind::Failed, Ran::Yes, "it failed"))
        } else {
            Message::result(&tree, &Limits::default()).expect("it arrived within the limits")
        };
        self.end(ledger, links, serving, message);
    }

    fn end(&mut self, ledger: &Ledger, links: &mut Links, serving: Serving, message: Message) {
        let (id, number) = (serving.call.id, serving.call.slot as usize);
        drop(serving.call.lease);
        let mut key = Some(serving.key);
        if serving.call.resume {
            let Some(session) = self.sessions.get_mut(&serving.client) else { return };
            key = session.link;
            // The client has given up the call, or the session was forgotten and created again.
            let Some(record) = session.records.get_mut(&id) else { return };
            *record = Record::Ended(Some(message.clone()));
        }
        let Some(end) = key.and_then(|key| end_of(links, key)) else { return };
        let answered = end.outbound.borrow_mut().send_answer(id, message);
        // On a later connection the call is not open until the resume is answered.
        Invariant::RulesKept.require(answered.is_ok() || ledger.calls[number].resume, || {
            format!("call {number} cannot be answered: {answered:?}")
        });
    }

    /// Gives up the result of a call that ran, unless all of it was sent.
    pub(super) fn give_up(&mut self, links: &mut Links, key: u64, id: u64) {
        let error = RemoteError::new(ErrorKind::TooSlow, Ran::Yes, "the receiver is too slow");
        if let Some(end) = end_of(links, key) {
            end.outbound.borrow_mut().replace_answer(id, &error);
        }
    }

    /// Ends calls whose memory the peer moves too slowly while others wait for it.
    pub(super) fn check_min_rate(
        &mut self,
        ledger: &Ledger,
        links: &mut Links,
        key: u64,
    ) -> Result<(), Closed> {
        let Some(end) = end_of(links, key) else { return Ok(()) };
        let unwritten = end.staged.remaining_bytes() as u64;
        let others_wait = || self.budget.others_wait(key);
        end.inbound.handle_rate_timeout(ledger.now, unwritten, &end.outbound, others_wait).map(drop)
    }

    /// Drops a kept answer, as a server does that is short of memory.
    pub(super) fn expire(&mut self, ledger: &mut Ledger) {
        let clients: Vec<usize> = (0..4).filter(|client| self.sessions.contains_key(client)).collect();
        let Some(client) = ledger.random.pick(&clients) else { return };
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let ended =
            |record: &&mut Record| matches!(record, Record::Ended(Some(message)) if is_result(message));
        if let Some(record) = session.records.values_mut().find(ended) {
            *record = Record::Ended(None);
        }
    }

    /// Forgets the calls of all sessions without a connection, but keeps their newest ids.
    pub(super) fn forget_sessions(&mut self) {
        for session in self.sessions.values_mut().filter(|session| session.link.is_none()) {
            session.records.clear();
            session.forgotten_id = session.last_id;
        }
    }

    /// Replaces this server with a new one, as after a crash.
    pub(super) fn restart(&mut self, links: &mut Links) {
        for link in links.values_mut() {
            self.closed(link);
        }
        self.sessions.clear();
        self.serving.clear();
        self.granted.lock().clear();
        self.instance.0[0] += 1;
    }
}

fn is_result(message: &Message) -> bool {
    message.kind() == teleport_wire::Kind::Result
}

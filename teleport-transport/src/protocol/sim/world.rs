//! Some clients, one server, and the connections between them. This file says what happens in one step,
//! and how a run ends after the last fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_wire::Id128;

use super::super::*;
use super::answerer::{Answerer, Links};
use super::audit::Way;
use super::caller::Caller;
use super::invariants::Invariant;
use super::ledger::{Ledger, Seen};
use super::link::{End, Link};
use super::random::Random;

/// The server's budget, which all its clients share.
const BUDGET_BYTES: u64 = 4 << 20;

/// Steps of a run before it is left to finish.
const STEPS: usize = 500;

/// After the last fault, a run must finish within this number of rounds. A round moves everything that
/// can move on every connection, ends one call, and reads one result of each client.
const MAX_ROUNDS: usize = 3000;

pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
const MAX_SILENCE: Duration = Duration::from_secs(5);

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) clients: Vec<Caller>,
    pub(super) server: Answerer,
    server_config: Arc<Config>,
    pub(super) links: Links,
    last_key: u64,
}

/// Creates a random configuration, so that the two sides differ.
fn config(random: &mut Random, session: Id128) -> Arc<Config> {
    let eager_credit_bytes = match random.below(4) {
        0 => 0,
        1 => random.below(1000),
        2 => random.below(200_000),
        _ => random.below(3_000_000),
    };
    Arc::new(Config {
        eager_credit_bytes,
        max_open_calls: if random.one_in(3) { 1 + random.below(5) as u32 } else { 40 },
        max_structure_bytes: if random.one_in(3) { 3000 } else { 64 << 20 },
        checksum: random.one_in(2),
        ping_interval: PING_INTERVAL,
        max_silence: MAX_SILENCE,
        min_rate: if random.one_in(3) { 1 << 20 } else { 0 },
        min_rate_window: Duration::from_millis(20),
        session,
        resume: true,
        ..Config::default()
    })
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let server_config = config(&mut random, Id128::NONE);
        let clients = (0..1 + random.below(3)).map(|client| {
            // The calls of about half of the clients survive their connection.
            let session = if random.one_in(2) { Id128([1 + client as u8; 16]) } else { Id128::NONE };
            Caller::new(config(&mut random, session), BUDGET_BYTES)
        });
        let clients = clients.collect();
        let ledger = Ledger { random, now: Instant::now(), calls: Vec::new(), seen: Seen::default() };
        let (server, links) = (Answerer::new(BUDGET_BYTES), Links::new());
        World { ledger, clients, server, server_config, links, last_key: 0 }
    }

    pub(super) fn run(&mut self) {
        self.connect();
        for _ in 0..STEPS {
            self.ledger.now += Duration::from_micros(self.ledger.random.below(1000));
            match self.ledger.random.below(24) {
                0..3 => self.call(),
                3..6 => self.server.work(&mut self.ledger, &mut self.links),
                6 | 7 => self.read_results(1),
                8 if self.ledger.random.one_in(2) => self.withdraw(),
                9 if self.ledger.random.one_in(3) => self.give_up(),
                10 if self.ledger.random.one_in(6) => self.fault(),
                11 if self.ledger.random.one_in(12) => self.let_time_pass(PING_INTERVAL),
                12 if self.ledger.random.one_in(4) => self.connect(),
                14 if self.ledger.random.one_in(4) => self.check_min_rate(),
                15 => self.server.rows.arrange(&mut self.ledger.random),
                13 if self.ledger.random.one_in(8) => self.server.expire(&mut self.ledger),
                _ => self.step(),
            }
        }
        self.settle();
    }

    // ---- Steps ----

    /// Connects each client that has no connection.
    fn connect(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| client.link.is_none())
        {
            self.last_key += 1;
            let instance = self.server.instance;
            let server_config = Arc::new(Config { instance, ..(*self.server_config).clone() });
            let configs = [&client.config, &server_config];
            client.link = Some(self.last_key);
            let (rows, budget) = (self.server.rows.clone(), &self.server.budget);
            let link = Link::new(self.last_key, index, configs, rows, budget, self.ledger.now);
            self.links.insert(self.last_key, link);
        }
    }

    /// Moves bytes of a random connection in a random direction.
    fn step(&mut self) {
        let keys: Vec<u64> = self.links.keys().copied().collect();
        let Some(key) = self.ledger.random.pick(&keys) else { return };
        let (way, amount) = (Way::BOTH[self.ledger.random.index(2)], self.ledger.random.amount());
        if self.ledger.random.one_in(2) {
            self.write(key, way, amount);
        } else {
            self.read(key, way, amount);
        }
    }

    fn write(&mut self, key: u64, way: Way, amount: usize) -> bool {
        let Some(link) = self.links.get_mut(&key) else { return false };
        let (wrote, is_cut) = link.write(way, amount);
        for id in std::mem::take(&mut link.changed) {
            // A call and its result share an id. Either may be the one that was changed.
            if let Some(number) = self.clients[link.client].number(id) {
                self.ledger.calls[number].was_changed = true;
            }
        }
        if is_cut {
            self.cut(key);
        }
        wrote
    }

    fn read(&mut self, key: u64, way: Way, amount: usize) {
        let now = self.ledger.now;
        let Some(link) = self.links.get_mut(&key) else { return };
        let Some(received) = link.read(way, now, amount) else { return };
        self.handle_events(key);
        if let Err(closed) = received {
            self.closed(key, way.back(), &closed);
        }
    }

    fn handle_events(&mut self, key: u64) {
        if let Some(link) = self.links.get_mut(&key) {
            self.clients[link.client].handle_events(&mut self.ledger, link);
        }
        self.server.handle_events(&mut self.ledger, &mut self.links, key);
        // A new connection of a session ends the one before it.
        self.links.retain(|_, link| !link.is_gone());
        for link in self.links.values_mut() {
            self.clients[link.client].grant(link);
        }
    }

    /// Ends the connection for the side that sends on `way`. The other side learns of it later, or
    /// never.
    fn closed(&mut self, key: u64, way: Way, why: &Closed) {
        let Some(link) = self.links.get_mut(&key) else { return };
        match why {
            Closed::Lost { .. } | Closed::TooSlow { .. } => {}
            Closed::NotAlive { .. } | Closed::NoHandshake { .. } => {
                self.ledger.seen.not_alive += 1;
                Invariant::LivesWhileHeard
                    .require(link.was_disturbed, || format!("{way:?} {why}: {}", link.state()));
            }
            other => Invariant::RulesKept.require(false, || format!("connection {key}: {other}")),
        }
        let learned = self.ledger.now + Duration::from_micros(self.ledger.random.below(5000));
        link.pipes[way as usize].end(0, Some(learned));
        link.was_disturbed = true;
        match way {
            Way::Up => {
                if let Some(end) = link.ends[0].take() {
                    self.clients[link.client].closed(&mut self.ledger, key, &end);
                }
            }
            Way::Down => self.server.closed(link),
        }
        if link.is_gone() {
            self.links.remove(&key);
        }
        // The bytes that were on their way are no longer charged, so others may have been granted them.
        self.server.grant(&mut self.links);
    }

    // ---- Users and workers ----

    fn call(&mut self) {
        let client = self.ledger.random.index(self.clients.len());
        let client = &mut self.clients[client];
        let Some(end) = own_end(&self.links, client.link) else { return };
        match client.again.pop() {
            Some(number) if !client.call(&mut self.ledger, end, Some(number)) => client.again.push(number),
            Some(_) => {}
            None => drop(client.call(&mut self.ledger, end, None)),
        }
    }

    fn withdraw(&mut self) {
        let client = self.ledger.random.index(self.clients.len());
        let client = &mut self.clients[client];
        client.withdraw(&mut self.ledger, own_end(&self.links, client.link));
    }

    fn give_up(&mut self) {
        let keys: Vec<u64> = self.links.keys().copied().collect();
        let Some(key) = self.ledger.random.pick(&keys) else { return };
        let client = &self.clients[self.links[&key].client];
        let Some(newest) = client.open.keys().next_back() else { return };
        let id = 1 + self.ledger.random.below(*newest);
        if client.number(id).is_some_and(|number| self.ledger.calls[number].runs > 0) {
            self.server.give_up(&mut self.links, key, id);
        }
    }

    fn read_results(&mut self, of_each: usize) {
        for client in &mut self.clients {
            for _ in 0..of_each {
                client.read_result();
            }
        }
        for link in self.links.values_mut() {
            self.clients[link.client].grant(link);
        }
        for client in &self.clients {
            let (used, most) = (client.budget.used_bytes(), client.budget.max_bytes());
            Invariant::BudgetKept.require(used <= most, || format!("{used} of {most} bytes are unread"));
        }
    }

    // ---- Time ----

    /// Lets time pass. Every side that nothing stops writes, reads and checks the clock.
    pub(super) fn let_time_pass(&mut self, time: Duration) {
        self.ledger.now += time / 2;
        for _ in 0..2 {
            self.move_all();
            self.look_at_clock();
        }
    }

    /// Moves everything that can move, once.
    fn move_all(&mut self) {
        for key in self.links.keys().copied().collect::<Vec<_>>() {
            for way in Way::BOTH {
                self.write(key, way, usize::MAX);
                while self.links.get(&key).is_some_and(|link| link.has_input(way, self.ledger.now)) {
                    self.read(key, way, usize::MAX);
                }
            }
        }
    }

    /// Handles timeouts. Everything that has arrived was read before, so that silence is real.
    fn look_at_clock(&mut self) {
        let now = self.ledger.now;
        for key in self.links.keys().copied().collect::<Vec<_>>() {
            for way in Way::BOTH {
                let Some(end) = self.links.get_mut(&key).and_then(|link| link.ends[way as usize].as_mut())
                else {
                    continue;
                };
                if let Err(closed) = end.inbound.handle_timeout(now, &end.outbound) {
                    self.closed(key, way, &closed);
                }
            }
        }
        for client in &mut self.clients {
            client.look_at_clock(&mut self.ledger, own_end(&self.links, client.link));
        }
        self.check_min_rate();
    }

    fn check_min_rate(&mut self) {
        for key in self.links.keys().copied().collect::<Vec<_>>() {
            if let Err(closed) = self.server.check_min_rate(&self.ledger, &mut self.links, key) {
                self.closed(key, Way::Down, &closed);
            }
        }
    }

    // ---- The end ----

    /// Finishes the run: no more faults occur, and everything that has begun must end.
    fn settle(&mut self) {
        self.calm();
        for _ in 0..MAX_ROUNDS {
            self.connect();
            self.let_time_pass(PING_INTERVAL / 4);
            for _ in 0..4 {
                self.server.work(&mut self.ledger, &mut self.links);
            }
            self.repeat_calls();
            self.read_results(1);
            if self.is_settled() {
                return self.check();
            }
        }
        let open: Vec<_> = self.ledger.calls.iter().filter(|call| call.outcome.is_none()).collect();
        Invariant::Progress.require(false, || {
            let left = (open.len(), self.server.serving.len(), self.server.kept());
            let links: Vec<String> = self.links.values().map(Link::state).collect();
            format!("calls without an end, unanswered, kept: {left:?}; connections: {links:#?}")
        });
    }

    fn repeat_calls(&mut self) {
        for client in &mut self.clients {
            let Some(end) = own_end(&self.links, client.link) else { continue };
            while let Some(number) = client.again.pop() {
                if !client.call(&mut self.ledger, end, Some(number)) {
                    client.again.push(number);
                    break;
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        let rests = |client: &Caller| {
            let is_open = |end: &End| end.inbound.is_open() && end.outbound.borrow().peer().is_some();
            own_end(&self.links, client.link).is_some_and(is_open)
                && client.open.is_empty()
                && client.kept.is_empty()
                && client.again.is_empty()
                && client.unread.is_empty()
        };
        self.clients.iter().all(rests)
            && self.server.serving.is_empty()
            && self.server.kept() == 0
            && self.links.len() == self.clients.len()
            && self.links.values().all(Link::is_quiet)
    }

    fn check(&mut self) {
        self.ledger.seen.rows = self.server.rows.seen();
        self.ledger.check();
        let rows = &self.server.rows;
        Invariant::AllReturns.require(rows.is_settled(), || "a row is open or claimed".into());
        for budget in self.clients.iter().map(|client| &client.budget).chain([&self.server.budget]) {
            let left = (budget.used_bytes(), budget.waiting());
            Invariant::AllReturns.require(left == (0, 0), || format!("charged and waiting: {left:?}"));
        }
        for link in self.links.values() {
            let is_whole = |end: &End| {
                let outbound = end.outbound.borrow();
                let whole = outbound.peer().map(|peer| peer.eager_credit_bytes);
                end.inbound.unfinished() == 0
                    && (outbound.ledger().queued_bytes(), outbound.open_calls()) == (0, 0)
                    && Some(outbound.ledger().credit_bytes()) == whole
            };
            let are_whole = link.ends.iter().flatten().all(is_whole) && link.audit.is_settled();
            Invariant::AllReturns.require(are_whole, || link.state());
        }
    }
}

/// Returns the client's end of its connection.
fn own_end(links: &Links, key: Option<u64>) -> Option<&End> {
    links.get(&key?)?.ends[0].as_ref()
}

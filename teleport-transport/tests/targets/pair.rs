//! Two ends that keep the rules, and a connection that may be cut anywhere and made again. Neither end
//! may refuse anything, and every call ends exactly once and with its own bytes. When everything is
//! read, nothing is left and all credit is back.

use std::collections::HashMap;

use teleport_transport::protocol::{Call, Closed, Event, Lease, Reply, Role, SendError, Withdrawn};
use teleport_transport::wire::{ErrorKind, Message, Tree};

use super::end::End;
use super::session::Session;
use super::{Input, call_message, config, failure, result_message};

/// The limit of rounds. Each moves everything that can move, and one answer, one grant and one lease of
/// each end.
const MAX_ROUNDS: usize = 2000;

struct Pair {
    client: End,
    server: End,
    /// Calls that the client waits for, with their arguments.
    open: HashMap<u64, Tree>,
    serving: Vec<Call>,
    session: Session,
    said_goodbye: bool,
}

pub(super) fn run(input: &mut Input<'_>) {
    let (client, server) = (End::new(Role::Client, config(input)), End::new(Role::Server, config(input)));
    let (open, serving, session) = (HashMap::new(), Vec::new(), Session::default());
    let mut pair = Pair { client, server, open, serving, session, said_goodbye: false };
    while !input.is_empty() {
        pair.operate(input);
        pair.take_events();
        pair.client.check_leases();
        pair.server.check_leases();
    }
    pair.drain();
    pair.check_end();
}

impl Pair {
    fn operate(&mut self, input: &mut Input<'_>) {
        match input.below(18) {
            0 | 1 => self.call(input),
            2 => self.answer(input.next().into(), input.next()),
            3 => self.withdraw(input),
            4 => {
                let id = 1 + input.below(8) as u64;
                self.server.outbound.borrow_mut().replace_answer(id, &failure());
            }
            5 => self.client.grant(input.next().into()),
            6 => self.server.grant(input.next().into()),
            7 => self.client.release(input.next().into()),
            8 => self.server.release(input.next().into()),
            9 => self.client.arriving.extend(self.server.write(amount(input))),
            10 => self.server.arriving.extend(self.client.write(amount(input))),
            11 => self.read(amount(input)),
            12 => {
                self.client.tick(input.next().into());
                self.server.tick(u64::from(input.next()) * 10);
            }
            13 => [&mut self.client, &mut self.server][input.below(2)].stage(),
            14 if input.below(4) == 3 => self.cut(),
            15 => self.session.expire(),
            16 if input.below(32) == 31 => self.fall_silent(input.below(2)),
            _ if input.below(32) == 31 => {
                let end = [&self.client, &self.server][input.below(2)];
                end.outbound.borrow_mut().send_goodbye(None, "enough");
                self.said_goodbye = true;
            }
            _ => {}
        }
    }

    fn call(&mut self, input: &mut Input<'_>) {
        let (tree, message) = call_message(input);
        let (open, last_id) = (&mut self.open, &mut self.session.last_id);
        let register = |id| {
            *last_id = id;
            open.insert(id, tree);
            true
        };
        let called = self.client.outbound.borrow_mut().send_call(message, register);
        match called {
            Ok(_) | Err(SendError::TooManyCalls { .. }) => {}
            Err(SendError::NotReady) => {
                assert!(self.client.outbound.borrow().peer().is_none() || self.client.config.resume);
            }
            Err(other) => assert!(self.said_goodbye, "{other}"),
        }
    }

    fn answer(&mut self, index: usize, how: u8) {
        if self.serving.is_empty() {
            return;
        }
        let call = self.serving.swap_remove(index % self.serving.len());
        let message = match &call.tree {
            Ok(tree) if !how.is_multiple_of(4) => result_message(tree),
            _ => Message::error(&failure()),
        };
        self.server.leases.push(call.lease);
        if call.resume && !self.session.answered(call.id, &message) {
            return;
        }
        // A call of an earlier connection is open again once its resume was answered.
        let answered = self.server.outbound.borrow_mut().send_answer(call.id, message);
        assert!(answered.is_ok() || self.said_goodbye || call.resume, "{answered:?}");
    }

    fn withdraw(&mut self, input: &mut Input<'_>) {
        let mut open: Vec<u64> = self.open.keys().copied().collect();
        open.sort_unstable();
        let Some(id) = input.pick(&open) else { return };
        let withdrawn = self.client.outbound.borrow_mut().withdraw(id);
        if matches!(withdrawn, Withdrawn::NeverSent | Withdrawn::Aborted) {
            self.open.remove(&id);
        }
    }

    fn read(&mut self, at_most: usize) {
        for end in [&mut self.client, &mut self.server] {
            if let Err(error) = end.read(at_most) {
                panic!("both keep the rules: {error}");
            }
        }
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.server.events) {
            match event {
                Event::Call(call) => {
                    if call.resume {
                        self.session.arrived(call.id, &self.server);
                    }
                    self.serving.push(call);
                }
                Event::Acknowledged { ids } => self.session.acknowledged(&ids),
                Event::Resume(resume) => self.session.resume(&resume, &self.server),
                Event::Wants { id, .. } => self.server.wanted.push(id),
                Event::Withdrawn { id } => self.server.wanted.retain(|wanted| *wanted != id),
                Event::Open(_) | Event::Cancel { .. } | Event::Goodbye(_) => {}
                event => panic!("a client sends no {event:?}"),
            }
        }
        for event in std::mem::take(&mut self.client.events) {
            match event {
                Event::Answer { id, answer } => {
                    let sent = self.open.remove(&id).expect("each call ends once");
                    self.client.outbound.borrow_mut().send_ack(id);
                    match answer {
                        Ok(Reply { tree, lease }) => {
                            assert!(tree.expect("nothing was changed on the way") == sent);
                            self.client.leases.push(lease);
                        }
                        Err(error) => assert_ne!(error.kind, ErrorKind::Checksum),
                    }
                }
                Event::Wants { id, .. } => self.client.wanted.push(id),
                Event::Withdrawn { id } => self.client.wanted.retain(|wanted| *wanted != id),
                Event::Open(_) => self.session.opened(&self.client),
                Event::Resumed { calls } => {
                    for (id, answer) in calls {
                        let tree = self.session.resumed(id, answer, &self.client);
                        self.open.extend(tree.map(|tree| (id, tree)));
                    }
                }
                Event::Acknowledged { .. } | Event::Goodbye(_) => {}
                event => panic!("the server sent {event:?}"),
            }
        }
    }

    /// Lets one side hear nothing for too long, so that it gives up.
    fn fall_silent(&mut self, side: usize) {
        let closed = [&mut self.client, &mut self.server][side].fall_silent();
        assert!(matches!(closed, Closed::NotAlive { .. } | Closed::NoHandshake { .. }), "{closed}");
        self.cut();
    }

    /// Loses the connection and all bytes on their way, and makes a new one.
    fn cut(&mut self) {
        let resumes = self.client.outbound.borrow().resumes();
        for end in [&self.client, &self.server] {
            end.outbound.borrow_mut().end();
        }
        let states = self.client.outbound.borrow().call_states();
        for (id, state) in states {
            let tree = self.open.remove(&id).expect("it has no answer yet");
            if resumes {
                self.session.kept.insert(id, (tree, state));
            }
        }
        assert!(self.open.is_empty(), "calls {:?} are open at one place only", self.open.keys());
        self.serving.retain(|call| call.resume);
        for call in &mut self.serving {
            // Its lease belongs to a connection that has ended.
            call.lease = Lease::default();
        }
        self.client = End::new(Role::Client, self.client.config.clone());
        self.server = End::new(Role::Server, self.server.config.clone());
        self.said_goodbye = false;
    }

    /// Lets everything that has begun end.
    fn drain(&mut self) {
        for _ in 0..MAX_ROUNDS {
            self.client.arriving.extend(self.server.write(usize::MAX));
            self.server.arriving.extend(self.client.write(usize::MAX));
            self.read(usize::MAX);
            self.take_events();
            self.answer(0, 1);
            for end in [&mut self.client, &mut self.server] {
                end.grant(0);
                end.release(0);
            }
            let is_busy =
                |end: &End| end.has_unwritten() || !(end.arriving.is_empty() && end.leases.is_empty());
            let waits = !(self.client.wanted.is_empty() && self.server.wanted.is_empty());
            if !(is_busy(&self.client) || is_busy(&self.server) || waits || !self.serving.is_empty()) {
                return;
            }
        }
        // A goodbye may wait for a grant that a peer cannot send after its own goodbye. Links close
        // then.
        assert!(self.said_goodbye, "it never comes to an end");
    }

    fn check_end(&self) {
        if self.said_goodbye {
            return;
        }
        assert!(self.open.is_empty(), "calls {:?} never ended", self.open.keys());
        assert!(self.session.is_settled(), "something is kept for ever");
        for end in [&self.client, &self.server] {
            let outbound = end.outbound.borrow();
            assert_eq!(
                (end.inbound.unfinished(), outbound.open_calls(), outbound.ledger().queued_bytes()),
                (0, 0, 0)
            );
            let whole = outbound.peer().expect("everything was read").eager_credit_bytes;
            assert_eq!(outbound.ledger().credit_bytes(), whole);
        }
    }
}

fn amount(input: &mut Input<'_>) -> usize {
    match input.next() {
        amount @ 0..200 => 1 + usize::from(amount),
        amount @ 200..250 => usize::from(amount) * 300,
        _ => usize::MAX,
    }
}

//! One end against frames made by hand. It may end the connection, and then stays ended; until then each call ends at
//! most once, and what the end holds is bounded by what it said in its hello.

use std::collections::HashSet;

use teleport_transport::connection::{Closed, Event, Role, Withdrawn};
use teleport_transport::wire::{
    Goodbye, Header, Hello, Id128, Kind, Limits, Message, Preface, encode_frame, encode_ids,
};

use super::end::End;
use super::{Input, call_message, config, failure, result_message, tree};

struct Lone {
    role: Role,
    end: End,
    /// A client's calls that have not ended.
    open: HashSet<u64>,
    /// A server's calls that have arrived.
    arrived: HashSet<u64>,
    serving: Vec<u64>,
}

pub(super) fn run(input: &mut Input<'_>) {
    let role = [Role::Client, Role::Server][input.below(2)];
    let end = End::new(role, config(input));
    let mut lone = Lone { role, end, open: HashSet::new(), arrived: HashSet::new(), serving: Vec::new() };
    lone.end.arriving.extend(introduction(input));
    while !input.is_empty() {
        lone.operate(input);
        let received = lone.receive(input);
        lone.take_events();
        lone.check();
        if let Err(error) = received {
            return lone.is_over(&error);
        }
    }
}

impl Lone {
    fn operate(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => self.call(input),
            1 => self.withdraw(input),
            2 => self.answer(input),
            3 => {
                self.end.outbound.borrow_mut().replace_answer(id(input), &failure());
            }
            4 => self.end.grant(input.next().into()),
            5 => self.end.release(input.next().into()),
            6 => drop(self.end.write(usize::from(input.next()) * 40)),
            7 => self.end.tick(u64::from(input.next()) * 10),
            _ => self.end.arriving.extend(frame(input)),
        }
    }

    fn call(&mut self, input: &mut Input<'_>) {
        if self.role == Role::Client {
            let (_, message) = call_message(input);
            // Fails before the hello, and past the calls that the peer allows.
            if let Ok(id) = self.end.outbound.borrow_mut().push_call(message, |_| {}) {
                self.open.insert(id);
            }
        }
    }

    fn withdraw(&mut self, input: &mut Input<'_>) {
        let id = id(input);
        let withdrawn = self.end.outbound.borrow_mut().withdraw(id);
        if matches!(withdrawn, Withdrawn::NeverSent | Withdrawn::Aborted) {
            assert!(self.open.remove(&id), "call {id} was withdrawn, and had ended");
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(id) = input.pick(&self.serving) else { return };
        self.serving.retain(|serving| *serving != id);
        let message = match input.below(2) {
            0 => Message::error(&failure()),
            _ => result_message(&tree(input)),
        };
        self.end.outbound.borrow_mut().push_answer(id, message).expect("whole calls stay open");
    }

    fn receive(&mut self, input: &mut Input<'_>) -> Result<(), Closed> {
        let at_most = [1, 30, 100, usize::MAX][input.below(4)];
        while !self.end.arriving.is_empty() {
            self.end.read(at_most)?;
        }
        Ok(())
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.end.events) {
            match (event, self.role) {
                (Event::Call(call), Role::Server) => {
                    assert!(self.arrived.insert(call.id), "call {} arrived twice", call.id);
                    self.serving.push(call.id);
                    self.end.holds.push(call.hold);
                }
                (Event::Answer { id, answer }, Role::Client) => {
                    assert!(self.open.remove(&id), "call {id} ended twice");
                    self.end.holds.extend(answer.ok().map(|(_, hold)| hold));
                }
                (Event::Cancel { .. }, Role::Server) | (Event::Open(_) | Event::Goodbye(_), _) => {}
                (Event::Wants { id, .. }, _) => self.end.wanted.push(id),
                (Event::Withdrawn { id }, _) => self.end.wanted.retain(|wanted| *wanted != id),
                (Event::Dropped { hold }, _) => self.end.holds.push(hold),
                (event, role) => panic!("a {role:?} was told of {event:?}"),
            }
        }
    }

    fn check(&self) {
        self.end.check_holds();
        if self.role == Role::Server {
            let max_open_calls = self.end.config.max_open_calls as usize;
            assert!(self.end.inbound.unfinished() <= 2 * max_open_calls);
            assert!(self.end.outbound.borrow().open_calls() <= max_open_calls);
            assert!(self.serving.len() <= max_open_calls);
        }
    }

    /// Nothing that comes later has an effect.
    fn is_over(&mut self, error: &Closed) {
        assert!(matches!(error, Closed::Protocol(_)), "{error}");
        assert!(!error.to_string().is_empty());
        self.end.arriving.extend(Header::empty(Kind::Ping, 1).encode());
        assert!(self.end.read(usize::MAX).is_err());
        assert!(self.end.events.is_empty());
        let mut outbound = self.end.outbound.borrow_mut();
        outbound.finish_now(None, "the peer broke a rule");
        assert_eq!(outbound.queued_bytes(), 0);
    }
}

/// Few ids, so that frames meet; seldom one that nobody used.
fn id(input: &mut Input<'_>) -> u64 {
    match input.next() {
        255 => u64::MAX,
        byte => 1 + u64::from(byte) % 8,
    }
}

fn introduction(input: &mut Input<'_>) -> Vec<u8> {
    let hello = Hello {
        features: input.next().into(),
        limits: Limits::default(),
        eager_credit_bytes: [0, 64, 70_000, u64::MAX][input.below(4)],
        max_open_calls: input.below(6) as u32,
        instance: Id128::NONE,
        session: Id128::NONE,
        name: String::new(),
        auth: Vec::new(),
    };
    [&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat()
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let head = |id, message: &Message, eager| [&message.header(id, eager)[..], &message.metadata].concat();
    match input.below(16) {
        0..3 => head(id(input), &call_message(input).1, input.below(2) == 1),
        3..5 => head(id(input), &result_message(&tree(input)), input.below(2) == 1),
        5 => head(id(input), &Message::error(&failure()), false),
        6..9 => data(input),
        9 => Header::empty(Kind::Abort, id(input)).encode().to_vec(),
        10 => Header::empty(Kind::Cancel, id(input)).encode().to_vec(),
        11 => {
            let ids: Vec<u64> = (0..=input.below(4)).map(|_| id(input)).collect();
            encode_frame(Kind::Grant, 0, &encode_ids(&ids))
        }
        12 => Header::empty(Kind::Credit, [1, 64, 1000, u64::MAX][input.below(4)]).encode().to_vec(),
        13 => Header::empty([Kind::Ping, Kind::Pong][input.below(2)], id(input)).encode().to_vec(),
        14 if input.below(8) == 0 => Goodbye { kind: None, reason: "enough".into() }.encode_frame(),
        _ => raw(input),
    }
}

fn data(input: &mut Input<'_>) -> Vec<u8> {
    let (id, body) = (id(input), vec![7; input.bytes().max(1)]);
    let crc = match input.below(4) {
        0 => Some(teleport_transport::wire::checksum(0, &body)),
        1 => Some(1),
        _ => None,
    };
    [&Header::data(id, body.len() as u64, crc).encode()[..], &body].concat()
}

/// A frame of any kind with any body, and the checksums that belong to it.
fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, flags, id, arg) = (input.next(), input.next(), id(input), input.next());
    let body: Vec<u8> = (0..input.below(64)).map(|_| input.next()).collect();
    let mut frame = Header::of_body(Kind::Ping, id, &body).encode();
    (frame[0], frame[1], frame[24]) = (kind, flags, arg);
    let crc = teleport_transport::wire::checksum(0, &frame[..28]);
    frame[28..].copy_from_slice(&crc.to_le_bytes());
    [&frame[..], &body].concat()
}

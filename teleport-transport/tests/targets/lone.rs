//! One end against frames made by hand. It may end the connection, and then stays ended. Until then
//! each call ends at most once, and the memory of the end is bounded by its hello.

use std::collections::HashSet;

use teleport_transport::protocol::{Closed, Event, Role, Withdrawn};
use teleport_transport::wire::{
    CallAnswer, CallHead, CallState, Goodbye, Header, Hello, Id128, Kind, Limits, Message, Preface, Resume,
    ResumeAnswer, Tree, encode_frame, encode_ids,
};

use super::end::End;
use super::{Input, SESSION, call_message, config, failure, result_message, tree};

struct Lone {
    role: Role,
    end: End,
    /// The calls of a client that have not ended.
    open: HashSet<u64>,
    /// The calls that a server has received.
    arrived: HashSet<u64>,
    serving: Vec<u64>,
    /// A resume of the client that has no answer yet.
    asked: Option<Resume>,
    said_goodbye: bool,
}

pub(super) fn run(input: &mut Input<'_>) {
    let role = [Role::Client, Role::Server][input.below(2)];
    let end = End::new(role, config(input));
    let (open, arrived, serving) = (HashSet::new(), HashSet::new(), Vec::new());
    let mut lone = Lone { role, end, open, arrived, serving, asked: None, said_goodbye: false };
    lone.end.arriving.extend(introduction(input));
    while !input.is_empty() {
        if input.next() == 255 {
            let closed = lone.end.fall_silent();
            return assert!(
                matches!(closed, Closed::NotAlive { .. } | Closed::NoHandshake { .. }),
                "{closed}"
            );
        }
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
        match input.below(16) {
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
            8 => self.end.stage(),
            9 => self.resume(input),
            10 => self.end.outbound.borrow_mut().send_ack(id(input)),
            11 if input.below(16) == 15 => {
                self.end.outbound.borrow_mut().send_goodbye(None, "enough");
                self.said_goodbye = true;
            }
            _ => self.end.arriving.extend(frame(input)),
        }
    }

    fn call(&mut self, input: &mut Input<'_>) {
        if self.role == Role::Client {
            let (_, message) = call_message(input);
            // This fails before the hello, and for more calls than the peer allows.
            if let Ok(id) = self.end.outbound.borrow_mut().send_call(message, |_| true) {
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
        let answered = self.end.outbound.borrow_mut().send_answer(id, message);
        assert!(answered.is_ok() || self.said_goodbye, "whole calls stay open: {answered:?}");
    }

    /// Asks for calls of an earlier connection, or answers such a resume. This fails out of order, and
    /// if a side cannot resume.
    fn resume(&mut self, input: &mut Input<'_>) {
        let mut outbound = self.end.outbound.borrow_mut();
        match self.role {
            Role::Client => {
                outbound.number_after(8);
                let _ = outbound.send_resume(&Resume { server: Id128::NONE, calls: states(input) });
            }
            Role::Server => {
                let Some(resume) = self.asked.take() else { return };
                let answers = resume.calls.iter().map(|(id, _)| (*id, ANSWERS[input.below(ANSWERS.len())]));
                let answers: Vec<_> = answers.collect();
                if outbound.send_resume_answer(answers.clone()).is_err() {
                    return;
                }
                let held = answers.iter().filter(|(_, answer)| is_held(*answer)).map(|(id, _)| *id);
                self.serving.extend(held);
            }
        }
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
                    self.end.leases.push(call.lease);
                }
                (Event::Answer { id, answer }, Role::Client) => {
                    assert!(self.open.remove(&id), "call {id} ended twice");
                    self.end.leases.extend(answer.ok().map(|reply| reply.lease));
                }
                (Event::Cancel { .. }, Role::Server) | (Event::Open(_) | Event::Goodbye(_), _) => {}
                (Event::Resume(resume), Role::Server) => self.asked = Some(resume),
                (Event::Resumed { calls }, Role::Client) => self.resumed(calls),
                (Event::Acknowledged { ids }, _) => assert!(!ids.is_empty()),
                (Event::Wants { id, .. }, _) => self.end.wanted.push(id),
                (Event::Withdrawn { id }, _) => self.end.wanted.retain(|wanted| *wanted != id),
                (event, role) => panic!("a {role:?} got the event {event:?}"),
            }
        }
    }

    /// Handles the server's answer to a resume. Calls that the server has are open. Missing calls are
    /// sent again.
    fn resumed(&mut self, calls: Vec<(u64, CallAnswer)>) {
        for (id, answer) in calls {
            if answer == CallAnswer::Missing {
                let message = Message::call(&CallHead::new("again"), &Tree::Null, &Limits::default());
                let again = message.expect("null fits");
                if self.end.outbound.borrow_mut().send_call_again(id, again).is_err() {
                    continue;
                }
            }
            if is_held(answer) || answer == CallAnswer::Missing {
                assert!(self.open.insert(id), "call {id} is resumed twice");
            }
        }
    }

    fn check(&self) {
        self.end.check_leases();
        if self.role == Role::Server {
            let max_open_calls = self.end.config.max_open_calls as usize;
            assert!(self.end.inbound.unfinished() <= 2 * max_open_calls);
            // The layer above stops a client that resumes more calls than it may have open.
            let most = max_open_calls + MAX_RESUMED;
            assert!(self.end.outbound.borrow().open_calls() <= most);
            assert!(self.serving.len() <= most);
        }
    }

    /// Checks that later input has no effect.
    fn is_over(&mut self, error: &Closed) {
        assert!(matches!(error, Closed::Protocol(_)), "{error}");
        assert!(!error.to_string().is_empty());
        self.end.arriving.extend(Header::empty(Kind::Ping, 1).encode());
        assert!(self.end.read(usize::MAX).is_err());
        assert!(self.end.events.is_empty());
        let mut outbound = self.end.outbound.borrow_mut();
        outbound.discard();
        outbound.send_goodbye(None, "the peer broke a rule");
        assert_eq!(outbound.ledger().queued_bytes(), 0);
    }
}

const ANSWERS: [CallAnswer; 5] = [
    CallAnswer::Done,
    CallAnswer::Running,
    CallAnswer::Missing,
    CallAnswer::Expired,
    CallAnswer::UnknownSession,
];

fn is_held(answer: CallAnswer) -> bool {
    matches!(answer, CallAnswer::Done | CallAnswer::Running)
}

/// The most calls that one resume lists.
const MAX_RESUMED: usize = 8;

/// Chooses some of the ids 1 to 8, each in some state.
fn states(input: &mut Input<'_>) -> Vec<(u64, CallState)> {
    const STATES: [CallState; 4] =
        [CallState::Unsent, CallState::Part, CallState::Sent, CallState::Acknowledged];
    let chosen = input.next();
    let ids = (0..MAX_RESUMED as u64).filter(|bit| chosen >> bit & 1 == 1);
    ids.map(|bit| (1 + bit, STATES[input.below(4)])).collect()
}

/// Chooses one of a few ids, so that frames meet, and rarely an unused one.
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
        session: if input.below(2) == 1 { SESSION } else { Id128::NONE },
        name: String::new(),
        auth: Vec::new(),
    };
    [&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat()
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let head = |id, message: &Message, eager| [&message.header(id, eager)[..], message.metadata()].concat();
    match input.below(20) {
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
        15 => {
            let resume = Resume { server: Id128::NONE, calls: states(input) };
            encode_frame(Kind::Resume, 0, &resume.encode())
        }
        16 => {
            let ids = states(input).into_iter().map(|(id, _)| id);
            let calls = ids.map(|id| (id, ANSWERS[input.below(ANSWERS.len())])).collect();
            encode_frame(Kind::ResumeAnswer, 0, &ResumeAnswer { calls }.encode())
        }
        17 => {
            let ids: Vec<u64> = (0..=input.below(4)).map(|_| id(input)).collect();
            encode_frame(Kind::Ack, 0, &encode_ids(&ids))
        }
        18 => inline(input),
        14 if input.below(8) == 0 => Goodbye { kind: None, reason: "enough".into() }.encode_frame(),
        _ => raw(input),
    }
}

/// Creates a call or result with an inline payload, which is rarely damaged or not what is announced.
fn inline(input: &mut Input<'_>) -> Vec<u8> {
    let id = id(input);
    let message = match input.below(2) {
        0 => call_message(input).1,
        _ => result_message(&tree(input)),
    };
    let mut payload: Vec<u8> = message.payload().flatten().copied().collect();
    let mut arg = teleport_transport::wire::checksum(0, &payload);
    let mut flags = Header::EAGER | Header::INLINE | Header::CHECKED;
    match input.below(8) {
        0 => payload.push(7),
        1 => arg ^= 1,
        2..5 => (flags, arg) = (Header::EAGER | Header::INLINE, 0),
        _ => {}
    }
    let metadata = message.metadata();
    let length = (metadata.len() + payload.len()) as u64;
    let header = Header { flags, length, arg, ..Header::of_body(message.kind(), id, metadata) };
    [&header.encode()[..], metadata, &payload].concat()
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

/// Creates a frame of any kind with any body, and its checksums.
fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, flags, id, arg) = (input.next(), input.next(), id(input), input.next());
    let body: Vec<u8> = (0..input.below(64)).map(|_| input.next()).collect();
    let mut frame = Header::of_body(Kind::Ping, id, &body).encode();
    (frame[0], frame[1], frame[24]) = (kind, flags, arg);
    let crc = teleport_transport::wire::checksum(0, &frame[..28]);
    frame[28..].copy_from_slice(&crc.to_le_bytes());
    [&frame[..], &body].concat()
}

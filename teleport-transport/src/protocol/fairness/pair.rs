//! Two real ends with a wire for each direction. Probes are small messages that are sent while large
//! ones are on their way. They count the bytes that went before them.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{Array, CallHead, Kind, Limits, Message, RemoteError, Tree};

use super::super::{Event, Gate, Inbound, Outbound, Role, Withdrawn, WriteBuffer, halves};
use super::wire::Wire;
use crate::config::Config;

/// The bytes that are read at once.
pub(super) const STEP: usize = 100_003;

pub(super) struct AllowAll;

impl Gate for AllowAll {
    fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        Ok(0)
    }
}

pub(super) struct Side {
    pub(super) inbound: Inbound,
    pub(super) outbound: RefCell<Outbound>,
    pub(super) staged: WriteBuffer,
    pub(super) ahead: Vec<u8>,
    pub(super) events: Vec<Event>,
    pub(super) now: Instant,
}

impl Side {
    pub(super) fn new(role: Role, config: &Arc<Config>) -> Side {
        let now = Instant::now();
        let (inbound, outbound) = halves(role, config, None, now, || {});
        let (outbound, staged) = (RefCell::new(outbound), WriteBuffer::default());
        Side { inbound, outbound, staged, ahead: vec![0; 16 << 10], events: Vec::new(), now }
    }

    pub(super) fn receive(&mut self, read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>) {
        self.inbound
            .on_readable(self.now, &mut self.ahead, &self.outbound, &AllowAll, &mut self.events, read)
            .expect("both keep the rules");
    }
}

pub(super) struct Pair {
    pub(super) client: Side,
    pub(super) server: Side,
    pub(super) up: Wire,
    pub(super) down: Wire,
    pub(super) arrived: Vec<u64>,
    pub(super) cancelled: Vec<u64>,
    pub(super) answered: Vec<u64>,
    pub(super) last_token: u64,
}

impl Pair {
    pub(super) fn new(eager_credit_bytes: u64) -> Pair {
        let config = Arc::new(Config { eager_credit_bytes, ..Config::default() });
        let (client, server) = (Side::new(Role::Client, &config), Side::new(Role::Server, &config));
        let (up, down, last_token) = (Wire::new(), Wire::new(), 1 << 40);
        let (arrived, cancelled, answered) = (Vec::new(), Vec::new(), Vec::new());
        let mut pair = Pair { client, server, up, down, arrived, cancelled, answered, last_token };
        pair.until(1 << 16, |pair| pair.client.outbound.borrow().peer().is_some());
        pair
    }

    /// The client writes. The server reads, and grants every request.
    pub(super) fn go_up(&mut self, bytes: usize) {
        self.up.fill(&mut self.client);
        self.up.drain(&mut self.server, bytes);
        for event in std::mem::take(&mut self.server.events) {
            match event {
                Event::Call(call) => self.arrived.push(call.id),
                Event::Wants { id, .. } => self.server.inbound.send_grant(id, None, &self.server.outbound),
                Event::Cancel { id } => self.cancelled.push(id),
                Event::Open(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The server writes. The client reads, and grants every request.
    pub(super) fn go_down(&mut self, bytes: usize) {
        self.down.fill(&mut self.server);
        self.down.drain(&mut self.client, bytes);
        for event in std::mem::take(&mut self.client.events) {
            match event {
                Event::Answer { id, answer } => {
                    drop(answer.expect("nothing fails"));
                    self.answered.push(id);
                }
                Event::Wants { id, .. } => self.client.inbound.send_grant(id, None, &self.client.outbound),
                Event::Open(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) fn until(&mut self, bytes: usize, mut is_so: impl FnMut(&Pair) -> bool) {
        for _ in 0..1_000_000 {
            if is_so(self) {
                return;
            }
            self.go_up(bytes);
            self.go_down(bytes);
        }
        panic!("it does not come to this");
    }

    pub(super) fn call(&mut self, tree: &Tree) -> u64 {
        let message =
            Message::call(&CallHead::new("m"), tree, &Limits::default()).expect("within the limits");
        self.client.outbound.borrow_mut().send_call(message, |_| true).expect("few are open")
    }

    pub(super) fn answer(&mut self, id: u64, tree: &Tree) {
        let message = Message::result(tree, &Limits::default()).expect("within the limits");
        self.server.outbound.borrow_mut().send_answer(id, message).expect("it is open");
    }

    /// Makes a call of 1 KiB with an answer of the same size. Returns the bytes that passed each way
    /// until it had gone through.
    pub(super) fn probe_call(&mut self) -> [u64; 2] {
        let (tree, from) = (bytes(1024), self.up.delivered);
        let id = self.call(&tree);
        self.until(STEP, |pair| pair.arrived.contains(&id));
        let up = passed(from, self.up.end_of(id, &[Kind::Call, Kind::Data]));
        let from = self.down.delivered;
        self.answer(id, &tree);
        self.until(STEP, |pair| pair.answered.contains(&id));
        [up, passed(from, self.down.end_of(id, &[Kind::Result, Kind::Data]))]
    }

    /// Sends a ping of the client and its pong.
    pub(super) fn probe_ping(&mut self) -> [u64; 2] {
        // The token is new, and is not the id of a call.
        self.last_token += 1;
        let token = self.last_token;
        let from = self.up.delivered;
        self.client.outbound.borrow_mut().queue.control.add().ping = Some(token);
        self.up.fill(&mut self.client);
        while self.up.end_of(token, &[Kind::Ping]).is_none_or(|end| end > self.up.delivered) {
            self.go_up(STEP);
        }
        let up = passed(from, self.up.end_of(token, &[Kind::Ping]));
        let from = self.down.delivered;
        while self.down.end_of(token, &[Kind::Pong]).is_none() {
            self.go_down(STEP);
        }
        [up, passed(from, self.down.end_of(token, &[Kind::Pong]))]
    }

    /// Withdraws a running call, and answers it.
    pub(super) fn probe_cancel(&mut self) -> [u64; 2] {
        let id = self.call(&Tree::Null);
        self.until(STEP, |pair| pair.arrived.contains(&id));
        let from = self.up.delivered;
        assert_eq!(self.client.outbound.borrow_mut().withdraw(id), Withdrawn::Requested);
        self.until(STEP, |pair| pair.cancelled.contains(&id));
        let up = passed(from, self.up.end_of(id, &[Kind::Cancel]));
        let from = self.down.delivered;
        self.answer(id, &Tree::Null);
        self.until(STEP, |pair| pair.answered.contains(&id));
        [up, passed(from, self.down.end_of(id, &[Kind::Result]))]
    }

    /// Returns the most bytes that passed each way for any kind of small message. Probes begin at many
    /// moments while `goes_on`.
    pub(super) fn probe(&mut self, mut goes_on: impl FnMut(&Pair) -> bool) -> [u64; 2] {
        let (mut most, mut probes) = ([0, 0], 0);
        // The strides are odd, so that probes begin at every place within a chunk.
        for stride in (1..).map(|probe: usize| 1 + probe * 1_000_003 % (12 << 20)) {
            for _ in 0..stride.div_ceil(STEP) {
                self.go_up(STEP);
                self.go_down(STEP);
            }
            self.go_up(stride % STEP);
            self.go_down(stride % STEP);
            if !goes_on(self) {
                break;
            }
            for passed in [self.probe_call(), self.probe_ping(), self.probe_cancel()] {
                most = [most[0].max(passed[0]), most[1].max(passed[1])];
            }
            probes += 1;
        }
        assert!(probes >= 20, "only {probes} probes fell into the transfer");
        most
    }
}

pub(super) fn passed(from: u64, end: Option<u64>) -> u64 {
    end.expect("it was sent") - from
}

pub(super) fn bytes(length: usize) -> Tree {
    Tree::Array(Array::zeros::<u8>([length]))
}

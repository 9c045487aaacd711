//! The machine's own ceiling: plain sockets, tuned, with the same messages, buffers and replies as the
//! contenders.
//!
//! Flow: before a round's clock starts, the client sends a [`Plan`], from which both sides know all
//! sizes; then a message is a head and its payload, and an answer the message itself, a payload, or one
//! byte. Both sides read into a [`Ring`] of as many warm messages as are in flight, with reads of at
//! most 1 MiB that may end in the middle of a message. Small messages go many to a write: the client
//! sends as many as were answered, and the server answers all that one read has brought. Waiting is done
//! in one of two ways, of which the report takes the better one for each row: a read that blocks, or one
//! that looks for a moment before it blocks, as Teleport does. The memory is of the same kind as
//! Teleport's, huge pages included. Nothing is checked, copied, or looked up: what a program can do that
//! knows beforehand what comes.

pub(super) mod crowd;
mod sockets;

use std::io;
use std::thread;

use teleport::{Array, Pool};

use crate::bench::protocol::{Answer, Round, Stopwatch, Workload};
use crate::failure::Failure;

pub(super) use self::sockets::Waiting;
use self::sockets::{Listener, Stream, connect};

/// The largest read: measured, larger ones are slower since they leave the cache.
const MAX_READ_BYTES: usize = 1 << 20;

/// Messages up to this size go many to a write.
const MAX_SMALL_BYTES: usize = 16 << 10;

/// Rings of small messages are at least so large, so that a read seldom ends at their end.
const MIN_RING_BYTES: usize = 64 << 10;

/// What sockets take in any case. With more on its way in both directions, two sides that block would
/// wait for each other.
const MAX_ECHOES_BYTES: u64 = 64 << 10;

/// What both sides know of a round before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Of a message with its head.
    message_bytes: usize,
    answer_bytes: usize,
    messages: usize,
    in_flight: usize,
    /// Whether the answer is the message itself.
    is_echo: bool,
}

impl Plan {
    fn of(round: &Round) -> Result<Plan, Answer> {
        let unsupported = |why: &str| Err(Answer::Unsupported(why.to_owned()));
        let (sent, answered, is_echo) = match round.workload {
            Workload::Sink => (round.bytes, 1, false),
            Workload::Source => (1, round.bytes, false),
            Workload::Echo => (round.bytes, round.bytes, true),
            _ => return unsupported("plain sockets have neither workers nor names, and one stream of bytes"),
        };
        if is_echo && round.in_flight > 1 && round.in_flight * (round.bytes + 64) > MAX_ECHOES_BYTES {
            return unsupported("both sides would wait until the other one reads");
        }
        // The payload of a large message stays aligned as Teleport's is.
        let head_bytes = if sent as usize > MAX_SMALL_BYTES { 64 } else { 16 };
        let message_bytes = head_bytes + sent as usize;
        let answer_bytes = if is_echo { message_bytes } else { answered as usize };
        let (messages, in_flight) = (round.messages as usize, round.in_flight as usize);
        Ok(Plan { message_bytes, answer_bytes, messages, in_flight, is_echo })
    }

    fn send(&self, stream: &mut dyn Stream) -> io::Result<()> {
        let Plan { message_bytes, answer_bytes, messages, in_flight, is_echo } = *self;
        let fields = [message_bytes, answer_bytes, messages, in_flight, usize::from(is_echo)];
        stream.write_all(&fields.map(|field| (field as u64).to_le_bytes()).concat())
    }

    fn receive(stream: &mut dyn Stream) -> io::Result<Plan> {
        let mut field = || {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes) as usize)
        };
        let (message_bytes, answer_bytes, messages, in_flight) = (field()?, field()?, field()?, field()?);
        Ok(Plan { message_bytes, answer_bytes, messages, in_flight, is_echo: field()? == 1 })
    }
}

/// Memory into which messages of one size are read, one behind the other.
struct Ring {
    memory: Array,
    slot_bytes: usize,
    /// Up to here it was read. Invariant: `taken <= filled <= memory.len()`.
    filled: usize,
    /// Up to here messages were handed out. Invariant: a multiple of `slot_bytes`.
    taken: usize,
    /// Whether the next read may go to the start as soon as nothing is left, to stay in the cache.
    starts_over: bool,
}

impl Ring {
    fn new(slot_bytes: usize, in_flight: usize) -> io::Result<Ring> {
        let is_small = slot_bytes <= MAX_SMALL_BYTES;
        let least = if is_small { MIN_RING_BYTES.div_ceil(slot_bytes) } else { 1 };
        let memory = warm(slot_bytes * in_flight.max(least))?;
        Ok(Ring { memory, slot_bytes, filled: 0, taken: 0, starts_over: is_small })
    }

    /// Reads once; gives the messages that are whole now, one behind the other.
    fn read(&mut self, stream: &mut dyn Stream) -> io::Result<&[u8]> {
        if self.taken == self.filled && (self.starts_over || self.filled == self.memory.len()) {
            (self.taken, self.filled) = (0, 0);
        }
        let end = self.memory.len().min(self.filled + MAX_READ_BYTES);
        let free = &mut bytes_of(&mut self.memory)?[self.filled..end];
        match stream.read(free)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => self.filled += bytes,
        }
        let start = self.taken;
        self.taken = self.filled - (self.filled - start) % self.slot_bytes;
        Ok(&self.memory.as_bytes()[start..self.taken])
    }
}

/// Memory as Teleport's messages have it, touched.
fn warm(bytes: usize) -> io::Result<Array> {
    let mut memory = Pool::global().alloc_array::<u8>([bytes]).map_err(io::Error::other)?;
    bytes_of(&mut memory)?.fill(1);
    Ok(memory)
}

fn bytes_of(memory: &mut Array) -> io::Result<&mut [u8]> {
    memory.as_mut_slice::<u8>().map_err(io::Error::other)
}

/// What goes out: one message, or for small ones as many as can be in flight.
struct Outbox {
    memory: Array,
    slot_bytes: usize,
}

impl Outbox {
    fn new(slot_bytes: usize, in_flight: usize) -> io::Result<Outbox> {
        let copies = if slot_bytes <= MAX_SMALL_BYTES { in_flight } else { 1 };
        Ok(Outbox { memory: warm(slot_bytes * copies)?, slot_bytes })
    }

    fn send(&self, messages: usize, stream: &mut dyn Stream) -> io::Result<()> {
        let mut left = messages * self.slot_bytes;
        while left > 0 {
            let part = left.min(self.memory.len());
            stream.write_all(&self.memory.as_bytes()[..part])?;
            left -= part;
        }
        Ok(())
    }
}

/// What one side reads into and sends from; kept as long as rounds are alike, so that it stays warm.
struct Kit {
    plan: Plan,
    ring: Ring,
    /// None of a server that sends messages back.
    outbox: Option<Outbox>,
}

impl Kit {
    fn of_server(plan: Plan) -> io::Result<Kit> {
        let ring = Ring::new(plan.message_bytes, plan.in_flight)?;
        let outbox = if plan.is_echo { None } else { Some(Outbox::new(plan.answer_bytes, plan.in_flight)?) };
        Ok(Kit { plan, ring, outbox })
    }

    fn of_client(plan: Plan) -> io::Result<Kit> {
        let ring = Ring::new(plan.answer_bytes, plan.in_flight)?;
        Ok(Kit { plan, ring, outbox: Some(Outbox::new(plan.message_bytes, plan.in_flight)?) })
    }

    /// Whether it will do for `plan`.
    fn fits(&self, plan: Plan) -> bool {
        Plan { messages: plan.messages, ..self.plan } == plan
    }
}

/// Serves each client on a thread of its own, for ever. Gives its address.
pub(super) fn serve(address: &str, waiting: Waiting) -> Result<String, Failure> {
    let (listener, address) = Listener::bind(address).map_err(Failure::bench)?;
    thread::spawn(move || {
        while let Ok(mut stream) = listener.accept(waiting) {
            let mut kit = None;
            // A client that goes ends its thread.
            thread::spawn(move || while answer(&mut *stream, &mut kit).is_ok() {});
        }
    });
    Ok(address)
}

/// One round.
fn answer(stream: &mut dyn Stream, kept: &mut Option<Kit>) -> io::Result<()> {
    let plan = Plan::receive(stream)?;
    let kit = match kept.take().filter(|kit| kit.fits(plan)) {
        Some(kit) => kept.insert(kit),
        None => kept.insert(Kit::of_server(plan)?),
    };
    stream.write_all(&[1])?;
    let mut answered = 0;
    while answered < plan.messages {
        let messages = kit.ring.read(stream)?;
        let count = messages.len() / plan.message_bytes;
        match &kit.outbox {
            Some(outbox) => outbox.send(count, stream)?,
            None => stream.write_all(messages)?,
        }
        answered += count;
    }
    Ok(())
}

/// A client of `serve`.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    kit: Option<Kit>,
}

impl Client {
    pub(super) fn connect(address: &str, waiting: Waiting) -> Result<Client, Failure> {
        Ok(Client { stream: connect(address, waiting).map_err(Failure::bench)?, kit: None })
    }

    pub(super) fn run(&mut self, round: &Round) -> Answer {
        let plan = match Plan::of(round) {
            Ok(plan) => plan,
            Err(answer) => return answer,
        };
        self.exchange(plan, round).unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }

    fn exchange(&mut self, plan: Plan, round: &Round) -> io::Result<Answer> {
        let stream = &mut *self.stream;
        let kit = match self.kit.take().filter(|kit| kit.fits(plan)) {
            Some(kit) => self.kit.insert(kit),
            None => self.kit.insert(Kit::of_client(plan)?),
        };
        let Kit { ring, outbox: Some(outbox), .. } = kit else {
            return Err(io::Error::other("a client has messages to send"));
        };
        plan.send(stream)?;
        stream.read_exact(&mut [0])?;
        let (mut sent, mut answered) = (0, 0);
        let mut watch = Stopwatch::start(round);
        while answered < plan.messages {
            let room = (plan.in_flight - (sent - answered)).min(plan.messages - sent);
            let start = watch.sent();
            outbox.send(room, stream)?;
            sent += room;
            let before = answered;
            while answered == before {
                answered += ring.read(stream)?.len() / plan.answer_bytes;
            }
            watch.answered(start);
        }
        Ok(watch.done())
    }
}

//! The ceiling: tuned plain sockets with the same messages, buffers and replies as the contenders.
//!
//! Flow: before a round's clock starts, the client sends a [`Plan`], from which both sides know all sizes.
//! Then a message is a head and its payload, and an answer is the message itself, a payload, or one byte.
//! Both sides read into a [`Ring`] of as many warm messages as are in flight, with reads of at most 1 MiB
//! that may end in the middle of a message. Many small messages go with one write: the client sends as many
//! as were answered, and the server answers all that one read has brought.
//!
//! There are two ways to wait: a read that blocks, or one that spins before it blocks, as Teleport does. The
//! report takes the better one for each row. The memory is of the same kind as Teleport's, huge pages
//! included. Nothing is checked, copied or looked up.

pub(super) mod crowd;
mod sockets;

use std::io;
use std::thread;

use teleport::{Array, Pool};

use crate::bench::protocol::{Answer, Round, Stopwatch, Workload};
use crate::failure::Failure;

pub(super) use self::sockets::Waiting;
use self::sockets::{Listener, Stream, connect};

/// The largest read. Larger ones were measured to be slower, because they leave the cache.
const MAX_READ_BYTES: usize = 1 << 20;

/// Messages up to this size share writes.
const MAX_SMALL_BYTES: usize = 16 << 10;

/// The smallest ring for small messages, so that few reads end at the end of the ring.
const MIN_RING_BYTES: usize = 64 << 10;

/// The bytes that sockets always take. With more on the way in both directions, two blocking sides would
/// wait for each other.
const MAX_ECHOES_BYTES: u64 = 64 << 10;

/// The facts of a round that both sides know before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// The size of a message with its head.
    message_bytes: usize,
    answer_bytes: usize,
    messages: usize,
    in_flight: usize,
    /// True if the answer is the message itself.
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
        // The payload of a large message is aligned as Teleport's is.
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

/// Memory into which messages of one size are read one after the other.
struct Ring {
    memory: Array,
    slot_bytes: usize,
    /// The end of the bytes that were read. Invariant: `taken <= filled <= memory.len()`.
    filled: usize,
    /// The end of the messages that were handed out. Invariant: a multiple of `slot_bytes`.
    taken: usize,
    /// True if the next read may start over when nothing is left, to stay in the cache.
    starts_over: bool,
}

impl Ring {
    fn new(slot_bytes: usize, in_flight: usize) -> io::Result<Ring> {
        let is_small = slot_bytes <= MAX_SMALL_BYTES;
        let least = if is_small { MIN_RING_BYTES.div_ceil(slot_bytes) } else { 1 };
        let memory = warm(slot_bytes * in_flight.max(least))?;
        Ok(Ring { memory, slot_bytes, filled: 0, taken: 0, starts_over: is_small })
    }

    /// Reads once. Returns the messages that are now complete.
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

/// Allocates memory as Teleport does for messages, and touches it.
fn warm(bytes: usize) -> io::Result<Array> {
    let mut memory = Pool::global().alloc_array::<u8>([bytes]).map_err(io::Error::other)?;
    bytes_of(&mut memory)?.fill(1);
    Ok(memory)
}

fn bytes_of(memory: &mut Array) -> io::Result<&mut [u8]> {
    memory.as_mut_slice::<u8>().map_err(io::Error::other)
}

/// The outgoing bytes: one message, or as many small ones as can be in flight.
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

/// The memory of one side. It is kept while rounds are alike, so that it stays warm.
struct Kit {
    plan: Plan,
    ring: Ring,
    /// `None` for a server that sends messages back.
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

    /// Returns true if this memory fits `plan`.
    fn fits(&self, plan: Plan) -> bool {
        Plan { messages: plan.messages, ..self.plan } == plan
    }
}

/// Serves each client on its own thread, for ever. Returns its address.
pub(super) fn serve(address: &str, waiting: Waiting) -> Result<String, Failure> {
    let (listener, address) = Listener::bind(address).map_err(Failure::bench)?;
    thread::spawn(move || {
        while let Ok(mut stream) = listener.accept(waiting) {
            let mut kit = None;
            // The thread ends with its client.
            thread::spawn(move || while answer(&mut *stream, &mut kit).is_ok() {});
        }
    });
    Ok(address)
}

/// Runs one round.
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

//! The work whose instructions are counted: encoding, decoding, and calls over a connection in memory, in
//! one thread.
//!
//! Flow: preparation and warm-up -> [`measured`], where callgrind counts. A call runs the real state of both
//! ends (`transport::protocol`): bytes that one end has staged are copied for the other to read. There is no
//! socket, thread or clock, so the counts of one program vary only with the seeds of its hash maps.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use teleport::transport::Config;
use teleport::transport::protocol::{
    Event, Gate, Inbound, MAX_SEGMENTS_PER_WRITE, Outbound, Reply, Role, WriteBuffer, halves,
};
use teleport::wire::{CallHead, CallMetadata, Limits, Message, Order, Signature};
use teleport::{Array, BoxError, Buffer, Dict, RemoteError, Tree};

/// A kind of work, and the tree that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shape {
    EncodeNull,
    EncodeArray,
    EncodeDict,
    DecodeNull,
    DecodeArray,
    DecodeDict,
    CallNull,
    CallArray,
    CallDict,
}

impl Shape {
    /// All shapes, with the names of their rows.
    pub(super) const ALL: [(Shape, &str); 9] = [
        (Shape::EncodeNull, "encode null"),
        (Shape::EncodeArray, "encode an array of 1 KiB"),
        (Shape::EncodeDict, "encode a dict of 64 arrays"),
        (Shape::DecodeNull, "decode null"),
        (Shape::DecodeArray, "decode an array of 1 KiB"),
        (Shape::DecodeDict, "decode a dict of 64 arrays"),
        (Shape::CallNull, "call in memory, null both ways"),
        (Shape::CallArray, "call in memory, an array of 1 KiB both ways"),
        (Shape::CallDict, "call in memory, a dict of 64 arrays both ways"),
    ];

    /// Returns the name on the command line.
    pub(super) fn argument(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn tree(self) -> Tree {
        match self {
            Shape::EncodeNull | Shape::DecodeNull | Shape::CallNull => Tree::Null,
            Shape::EncodeArray | Shape::DecodeArray | Shape::CallArray => {
                Tree::from(Array::from(vec![1u8; 1 << 10]))
            }
            Shape::EncodeDict | Shape::DecodeDict | Shape::CallDict => {
                let entry = |index: u8| (format!("key {index:02}"), Tree::from(Array::from(vec![index; 16])));
                Tree::from((0..64).map(entry).collect::<Dict>())
            }
        }
    }
}

/// Repetitions that are not counted, in which signatures are cached and vectors grow.
const WARM_UP: u32 = 16;

/// Repeats the shape `times` times, where instructions are counted.
pub(super) fn run(shape: Shape, times: u32) -> Result<(), BoxError> {
    let tree = shape.tree();
    match shape {
        Shape::EncodeNull | Shape::EncodeArray | Shape::EncodeDict => {
            repeat(times, || encode(&tree).map(drop))
        }
        Shape::DecodeNull | Shape::DecodeArray | Shape::DecodeDict => {
            let message = encode(&tree)?;
            let metadata = CallMetadata::decode(message.metadata())?;
            let signature = Signature::decode(metadata.signature, &Limits::default())?;
            let memory = Buffer::zeroed(signature.memory_bytes());
            repeat(times, || decode(&message, &memory).map(drop))
        }
        Shape::CallNull | Shape::CallArray | Shape::CallDict => {
            let mut pair = Pair::new()?;
            repeat(times, || pair.call(&tree))
        }
    }
}

fn repeat(times: u32, mut work: impl FnMut() -> Result<(), BoxError>) -> Result<(), BoxError> {
    for _ in 0..WARM_UP {
        work()?;
    }
    measured(times, &mut work)
}

/// Does the work that is counted. The command line of callgrind names this function.
#[inline(never)]
fn measured(times: u32, work: &mut dyn FnMut() -> Result<(), BoxError>) -> Result<(), BoxError> {
    for _ in 0..times {
        black_box(work()?);
    }
    Ok(())
}

fn encode(tree: &Tree) -> Result<Message, BoxError> {
    Ok(Message::call(&CallHead::new("act"), black_box(tree), &Limits::default())?)
}

/// Decodes as a connection does that has not seen the signature before.
fn decode(message: &Message, memory: &Buffer) -> Result<Tree, BoxError> {
    let metadata = CallMetadata::decode(black_box(message.metadata()))?;
    let signature = Signature::decode(metadata.signature, &Limits::default())?;
    let order = Order::decode(metadata.order, &signature)?;
    Ok(signature.build(&order, memory.clone())?)
}

/// One end of a connection.
struct End {
    inbound: Inbound,
    outbound: RefCell<Outbound>,
    staged: WriteBuffer,
    ahead: Vec<u8>,
    events: Vec<Event>,
    /// The bytes that this end has sent and the other has not read.
    sent: Vec<u8>,
}

impl End {
    fn new(role: Role, config: &Arc<Config>) -> End {
        let (inbound, outbound) = halves(role, config, None, Instant::now(), || {});
        End {
            inbound,
            outbound: RefCell::new(outbound),
            staged: WriteBuffer::default(),
            ahead: vec![0; 16 << 10],
            events: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn send(&mut self) {
        loop {
            self.outbound.borrow_mut().poll_write(&mut self.staged);
            if self.staged.is_empty() {
                return;
            }
            let mut slices: [IoSlice<'_>; MAX_SEGMENTS_PER_WRITE] =
                std::array::from_fn(|_| IoSlice::new(&[]));
            let filled = self.staged.slices(&mut slices);
            let mut bytes = 0;
            for slice in &slices[..filled] {
                self.sent.extend_from_slice(slice);
                bytes += slice.len();
            }
            self.staged.advance(bytes);
        }
    }

    /// Reads all that the other end has sent.
    fn receive(&mut self, now: Instant, other: &mut End) -> Result<(), BoxError> {
        let mut read = 0;
        while read < other.sent.len() {
            let source = &other.sent[read..];
            let fill = |slices: &mut [IoSliceMut<'_>]| {
                let bytes = scatter(source, slices);
                read += bytes;
                Ok::<_, io::Error>(bytes)
            };
            let End { inbound, outbound, ahead, events, .. } = self;
            inbound.on_readable(now, ahead, outbound, &AllowAll, events, fill)?;
        }
        other.sent.clear();
        Ok(())
    }
}

/// Fills the slices in order, as `readv` does.
fn scatter(source: &[u8], slices: &mut [IoSliceMut<'_>]) -> usize {
    let mut bytes = 0;
    for slice in slices {
        let part = slice.len().min(source.len() - bytes);
        slice[..part].copy_from_slice(&source[bytes..bytes + part]);
        bytes += part;
    }
    bytes
}

struct AllowAll;

impl Gate for AllowAll {
    fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        Ok(0)
    }
}

/// A client and a server that are connected by memory.
struct Pair {
    client: End,
    server: End,
    now: Instant,
}

impl Pair {
    fn new() -> Result<Pair, BoxError> {
        let config = Arc::new(Config::default());
        let (client, server) = (End::new(Role::Client, &config), End::new(Role::Server, &config));
        let mut pair = Pair { client, server, now: Instant::now() };
        for _ in 0..2 {
            pair.exchange()?;
        }
        pair.client.events.clear();
        pair.server.events.clear();
        Ok(pair)
    }

    fn exchange(&mut self) -> Result<(), BoxError> {
        self.client.send();
        self.server.receive(self.now, &mut self.client)?;
        self.server.send();
        self.client.receive(self.now, &mut self.server)
    }

    /// Makes one call, which is answered with its own argument.
    fn call(&mut self, tree: &Tree) -> Result<(), BoxError> {
        let call = encode(tree)?;
        self.client.outbound.borrow_mut().send_call(call, |_| true)?;
        self.client.send();
        self.server.receive(self.now, &mut self.client)?;
        for event in std::mem::take(&mut self.server.events) {
            if let Event::Call(call) = event {
                let result = Message::result(&call.tree?, &Limits::default())?;
                self.server.outbound.borrow_mut().send_answer(call.id, result)?;
            }
        }
        self.server.send();
        self.client.receive(self.now, &mut self.server)?;
        let mut answered = false;
        for event in std::mem::take(&mut self.client.events) {
            if let Event::Answer { answer, .. } = event {
                let Reply { tree: result, lease } = answer?;
                black_box(result?);
                drop(lease);
                answered = true;
            }
        }
        if answered { Ok(()) } else { Err("the call was not answered at once".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_works() {
        for (shape, name) in Shape::ALL {
            run(shape, 3).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

//! One side of a connection against frames made by hand. Each rule of the format is broken once. Other
//! frames look like a breach but are legal.

mod asking;
mod broken;
mod legal;
mod placing;
mod resuming;
mod sending;
mod slow_peers;
mod whole;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{
    Array, CallHead, DecodeError, Decoder, ErrorKind, FrameHeader, Goodbye, Header, Hello, Id128, Kind,
    Limits, Message, Preface, Ran, RemoteError, Sink, Tree, encode_frame, encode_ids,
};

use super::*;

const CREDIT: u64 = 1000;

fn config() -> Config {
    Config { eager_credit_bytes: CREDIT, max_open_calls: 3, ..Config::default() }
}

struct Refusing;

impl Gate for Refusing {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        match method {
            "refused" => Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "no such method")),
            _ => Ok(0),
        }
    }
}

/// The side under test. Its peer is the test.
struct Side {
    gate: Box<dyn Gate>,
    inbound: Inbound,
    outbound: RefCell<Outbound>,
    events: Vec<Event>,
    sent: Frames,
    decoder: Decoder,
}

/// The frames that a side sent, without its hello: kind, id and flags.
#[derive(Default)]
struct Frames(Vec<(Kind, u64, u8)>);

impl Sink for Frames {
    type Error = DecodeError;

    fn preface(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), DecodeError> {
        match header.kind {
            Kind::Hello => {}
            Kind::Grant => {
                self.0.extend(teleport_wire::decode_ids(body)?.map(|id| (Kind::Grant, id, 0)));
            }
            kind => self.0.push((kind, header.id, header.flags)),
        }
        Ok(())
    }

    fn message(&mut self, header: &Header, metadata: &[u8], _payload: &[u8]) -> Result<(), DecodeError> {
        self.0.push((header.kind, header.id, header.flags));
        header.check_body(metadata)
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), DecodeError> {
        self.0.push((Kind::Data, header.id, header.flags));
        Ok(())
    }

    fn chunk_bytes(&mut self, _bytes: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}

impl Side {
    fn new(role: Role, config: Config) -> Side {
        let (inbound, outbound) = halves(role, &Arc::new(config), None, Instant::now(), || {});
        let (outbound, events) = (RefCell::new(outbound), Vec::new());
        let decoder = Decoder::new(&Limits::default());
        Side { gate: Box::new(Refusing), inbound, outbound, events, sent: Frames::default(), decoder }
    }

    /// Creates a side whose peer has sent its hello.
    fn open(role: Role) -> Side {
        let mut side = Side::new(role, config());
        side.feed(&introduction(0)).expect("a plain hello");
        side.events.clear();
        side
    }

    fn server() -> Side {
        Side::open(Role::Server)
    }

    /// Creates a client that has sent the calls 1 to `count`, with a payload of `bytes` each.
    fn client(count: u64, bytes: usize) -> Side {
        let mut side = Side::open(Role::Client);
        for _ in 0..count {
            side.outbound.borrow_mut().send_call(call_message("m", bytes), |_| true).expect("few are open");
        }
        side.sent();
        side
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let mut ahead = [0; 4096];
        while !bytes.is_empty() {
            let read = |slices: &mut [io::IoSliceMut<'_>]| io::Read::read_vectored(&mut bytes, slices);
            let events = &mut self.events;
            let now = Instant::now();
            match self.inbound.on_readable(now, &mut ahead, &self.outbound, &*self.gate, events, read) {
                Ok(_) => {}
                Err(Closed::Protocol(error)) => return Err(error),
                Err(other) => panic!("{other}"),
            }
        }
        Ok(())
    }

    /// Returns the frames that the side sends now, in order.
    fn sent(&mut self) -> Vec<(Kind, u64, u8)> {
        let mut staged = WriteBuffer::default();
        self.outbound.borrow_mut().send_credit();
        while self.outbound.borrow().has_work() {
            self.outbound.borrow_mut().poll_write(&mut staged);
            while !staged.is_empty() {
                let mut slices = [io::IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
                let filled = staged.slices(&mut slices);
                let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                self.decoder.feed(&bytes, &mut self.sent).expect("it keeps the format");
                staged.advance(bytes.len());
            }
        }
        std::mem::take(&mut self.sent.0)
    }

    fn grant(&mut self, id: u64) {
        self.inbound.send_grant(id, None, &self.outbound);
    }

    /// Takes the events, each as a short text, and drops their leases.
    fn events(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for event in std::mem::take(&mut self.events) {
            all.push(match event {
                Event::Call(call) => format!("call {}", call.id),
                Event::Answer { id, answer: Ok(_) } => format!("result {id}"),
                Event::Answer { id, answer: Err(error) } => format!("error {id} {}", error.kind),
                Event::Wants { id, bytes } => format!("wants {id} {bytes}"),
                Event::Cancel { id } => format!("cancel {id}"),
                Event::Withdrawn { id } => format!("withdrawn {id}"),
                Event::Goodbye(_) => "goodbye".into(),
                Event::Open(_) => "open".into(),
                Event::Acknowledged { ids } => format!("acknowledged {ids:?}"),
                Event::Resume(resume) => format!("resume {:?}", resume.calls),
                Event::Resumed { calls } => format!("resumed {calls:?}"),
            });
        }
        all
    }
}

// ---- Frames ----

fn introduction(features: u64) -> Vec<u8> {
    introduction_of(features, Id128::NONE)
}

fn introduction_of(features: u64, session: Id128) -> Vec<u8> {
    let hello = Hello {
        features,
        limits: Limits::default(),
        eager_credit_bytes: CREDIT,
        max_open_calls: 100,
        instance: Id128([1; 16]),
        session,
        name: String::new(),
        auth: Vec::new(),
    };
    [&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat()
}

fn bytes_tree(bytes: usize) -> Tree {
    Tree::Array(Array::zeros::<u8>([bytes]))
}

fn call_message(method: &str, bytes: usize) -> Message {
    Message::call(&CallHead::new(method), &bytes_tree(bytes), &Limits::default()).expect("it is small")
}

fn head(id: u64, message: &Message, eager: bool) -> Vec<u8> {
    [&message.header(id, eager)[..], message.metadata()].concat()
}

fn call(id: u64, method: &str, bytes: usize, eager: bool) -> Vec<u8> {
    head(id, &call_message(method, bytes), eager)
}

fn result(id: u64, bytes: usize, eager: bool) -> Vec<u8> {
    head(id, &Message::result(&bytes_tree(bytes), &Limits::default()).expect("it is small"), eager)
}

/// Makes the frame with only the metadata of a message into one with an inline payload, which the message
/// need not fit. The checksum may be wrong.
fn inline(head: &[u8], payload: &[u8], crc: Option<u32>) -> Vec<u8> {
    let (header, metadata) = head.split_first_chunk().expect("it has a header");
    let Ok(FrameHeader::Known(header)) = Header::decode(header, &Limits::default()) else {
        panic!("not a frame of this version")
    };
    let flags = Header::EAGER | Header::INLINE | if crc.is_some() { Header::CHECKED } else { 0 };
    let (length, arg) = (header.length + payload.len() as u64, crc.unwrap_or(0));
    [&Header { flags, length, arg, ..header }.encode()[..], metadata, payload].concat()
}

fn error(id: u64) -> Vec<u8> {
    head(id, &Message::error(&RemoteError::new(ErrorKind::Failed, Ran::Yes, "why")), false)
}

fn data(id: u64, bytes: usize) -> Vec<u8> {
    [&Header::data(id, bytes as u64, None).encode()[..], &vec![0; bytes]].concat()
}

fn corrupt_data(id: u64, bytes: usize) -> Vec<u8> {
    [&Header::data(id, bytes as u64, Some(1)).encode()[..], &vec![0; bytes]].concat()
}

fn empty(kind: Kind, id: u64) -> Vec<u8> {
    Header::empty(kind, id).encode().to_vec()
}

fn ids(kind: Kind, ids: &[u64]) -> Vec<u8> {
    encode_frame(kind, 0, &encode_ids(ids))
}

fn goodbye() -> Vec<u8> {
    Goodbye { kind: None, reason: String::new() }.encode_frame()
}

/// Checks that the last of the frames breaks a rule, and no other frame does.
#[track_caller]
fn check(mut side: Side, frames: &[Vec<u8>], text: &str) -> ProtocolError {
    let (last, legal) = frames.split_last().expect("at least one frame");
    for (index, frame) in legal.iter().enumerate() {
        let fed = side.feed(frame);
        assert!(fed.is_ok(), "frame {index} was refused: {fed:?}");
        side.grant(1_000_000); // the message does not exist, so this does nothing
    }
    let error = side.feed(last).expect_err("the last frame is refused");
    assert_eq!(error.to_string(), text);
    error
}

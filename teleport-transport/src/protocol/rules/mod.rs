//! One side of a connection against frames made by hand. Each rule of the format is broken once. Other
//! frames look like a breach but are legal.

mod asking;
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

// ---- Broken rules ----

#[test]
fn bytes_that_are_not_the_format() {
    let error = check(Side::new(Role::Server, config()), &[b"GET / HTTP/1.1\r\n".to_vec()], {
        "the peer speaks HTTP, not Teleport: check the address and port on its side"
    });
    assert!(error.is_stranger());
    let mut ping = empty(Kind::Ping, 1);
    ping[8] = 2;
    let error = check(Side::server(), &[ping], {
        "the frame header's checksum is 0x21a92fec, its bytes give 0x786d372b"
    });
    assert!(!error.is_stranger());
}

#[test]
fn frames_before_the_hello() {
    for (frame, text) in [
        (empty(Kind::Ping, 1), "Ping came before the hello"),
        (call(1, "m", 0, false), "Call came before the hello"),
        (data(1, 1), "Data came before the hello"),
    ] {
        check(Side::new(Role::Server, config()), &[Preface::BYTES.to_vec(), frame], text);
    }
}

#[test]
fn frames_after_the_goodbye() {
    for (frame, text) in [
        (empty(Kind::Ping, 1), "Ping came after the goodbye"),
        (data(1, 1), "Data came after the goodbye"),
        (goodbye(), "Goodbye came after the goodbye"),
    ] {
        check(Side::server(), &[goodbye(), frame], text);
    }
}

#[test]
fn frames_of_the_other_side_and_of_features_that_were_not_agreed_on() {
    let server = " is not allowed here: this is the Server and the hellos agreed on no such thing";
    let client = " is not allowed here: this is the Client and the hellos agreed on no such thing";
    check(Side::server(), &[result(1, 0, false)], &format!("Result{server}"));
    check(Side::server(), &[error(1)], &format!("Error{server}"));
    check(Side::client(0, 0), &[call(1, "m", 0, false)], &format!("Call{client}"));
    check(Side::client(1, 0), &[empty(Kind::Cancel, 1)], &format!("Cancel{client}"));
    check(Side::server(), &[introduction(0)[16..].to_vec()], &format!("Hello{server}"));
    check(Side::server(), &[ids(Kind::Ack, &[1])], &format!("Ack{server}"));
    check(Side::server(), &[empty(Kind::Release, 1)], &format!("Release{server}"));
    let shared = Header { flags: Header::SHARED, ..Header::data(1, 24, None) }.encode().to_vec();
    check(Side::server(), &[call(1, "m", 24, true), shared], &format!("Data{server}"));
}

#[test]
fn frames_about_messages_that_were_never_begun() {
    let text = |kind: &str, id: u64| format!("{kind} names message {id}, which is not open");
    check(Side::server(), &[data(1, 1)], &text("Data", 1));
    check(Side::server(), &[call(1, "m", 4, true), data(1, 4), data(1, 1)], &text("Data", 1));
    for kind in [Kind::Abort, Kind::Cancel] {
        let text = text(&kind.to_string(), 8);
        check(Side::server(), &[call(7, "m", 0, false), empty(kind, 7), empty(kind, 8)], &text);
    }
    check(Side::client(2, 0), &[empty(Kind::Abort, 2), empty(Kind::Abort, 3)], &text("Abort", 3));
    check(Side::client(2, 0), &[ids(Kind::Grant, &[1, 2]), ids(Kind::Grant, &[3])], &text("Grant", 3));
    let client = Side::client(0, 0);
    client.outbound.borrow_mut().send_call(call_message("m", 1), |_| true).expect("none is open");
    check(client, &[ids(Kind::Grant, &[1])], &text("Grant", 1)); // it was not sent yet
}

#[test]
fn ids_that_do_not_increase() {
    let text = "call 5 came after call 6: ids must increase";
    check(Side::server(), &[call(6, "m", 0, false), call(5, "m", 0, false)], text);
    let text = "call 6 came after call 6: ids must increase";
    check(Side::server(), &[call(6, "m", 5, false), empty(Kind::Abort, 6), call(6, "m", 0, false)], text);
}

#[test]
fn answers_to_calls_that_are_not_open() {
    let text = "an answer came for call 1, which is not open";
    for answer in [result(1, 0, false), result(1, 8, true), error(1)] {
        check(Side::client(0, 0), std::slice::from_ref(&answer), text);
        check(Side::client(1, 0), &[error(1), answer.clone()], text);
        check(Side::client(1, 0), &[result(1, 0, false), answer.clone()], text);
        // The result is in progress and was not given up.
        check(Side::client(1, 0), &[result(1, 8, true), data(1, 4), answer.clone()], text);
        let client = Side::client(0, 0);
        client.outbound.borrow_mut().send_call(call_message("m", 1), |_| true).expect("none is open");
        check(client, &[answer], text); // it was not sent yet
    }
}

#[test]
fn results_of_calls_that_were_not_sent_whole() {
    let text = "a result came for call 1, whose payload was not sent to its end";
    check(Side::client(1, 2000), &[result(1, 0, false)], text);
    let withdrawn = Side::client(1, 2000);
    assert_eq!(withdrawn.outbound.borrow_mut().withdraw(1), Withdrawn::Aborted);
    check(withdrawn, &[result(1, 0, false)], "an answer came for call 1, which is not open");
}

#[test]
fn more_calls_than_the_hello_allows() {
    let text = "more than 3 calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)";
    let calls: Vec<_> = (1..=4).map(|id| call(id, "m", 0, false)).collect();
    check(Side::server(), &calls, text);
    // Unread answers are not staged.
    let refused: Vec<_> = (1..=4).map(|id| call(id, "refused", 0, false)).collect();
    check(Side::server(), &refused, text);
}

#[test]
fn refused_calls_that_are_never_ended() {
    let mut server = Side::server();
    for id in 1..=6 {
        server.feed(&call(id, "refused", 10, id % 2 == 0)).expect("six may be unfinished");
        assert_eq!(server.sent(), [(Kind::Error, id, 0)]);
    }
    let text = "more than 3 calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)";
    server.feed(&call(7, "m", 0, false)).expect("it is whole at once");
    check(server, &[call(8, "m", 1, false)], text);
}

#[test]
fn payload_that_was_not_granted() {
    let text = "payload of message 1 came before its grant";
    check(Side::server(), &[call(1, "m", 10, false), data(1, 10)], text);
    check(Side::server(), &[call(1, "refused", 10, false), data(1, 10)], text);
    check(Side::client(1, 0), &[result(1, 10, false), data(1, 10)], text);
}

#[test]
fn payload_past_the_end_of_its_message() {
    let text = "more payload for message 1 than the 10 bytes that its metadata announced";
    check(Side::server(), &[call(1, "m", 10, true), data(1, 11)], text);
    check(Side::server(), &[call(1, "refused", 10, true), data(1, 6), data(1, 5)], text);
    check(Side::client(1, 0), &[result(1, 10, true), data(1, 9), data(1, 2)], text);
}

#[test]
fn eager_payload_past_the_credit() {
    let text = "600 eager bytes go past the credit of 1000";
    for method in ["m", "refused"] {
        check(Side::server(), &[call(1, method, 600, true), call(2, method, 600, true)], text);
    }
    check(Side::client(2, 0), &[result(1, 600, true), result(2, 600, true)], text);
}

#[test]
fn credit_that_was_never_used() {
    let text = "1 bytes of credit given back go past the 1000 that there are";
    check(Side::server(), &[empty(Kind::Credit, 1)], text);
    let text = "18446744073709551615 bytes of credit given back go past the 1000 that there are";
    check(Side::client(1, 10), &[empty(Kind::Credit, 10), empty(Kind::Credit, u64::MAX)], text);
}

#[test]
fn eager_messages_without_payload() {
    // `Message::header` would not write this.
    let eager = |mut frame: Vec<u8>| {
        frame[1] = Header::EAGER;
        let crc = teleport_wire::checksum(0, &frame[..28]);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        frame
    };
    let text = "message 1 has no payload but claims eager credit";
    check(Side::server(), &[eager(call(1, "m", 0, false))], text);
    check(Side::server(), &[eager(call(1, "refused", 0, false))], text);
    check(Side::client(1, 0), &[eager(result(1, 0, false))], text);
    check(Side::server(), &[inline(&call(1, "m", 0, false), &[0], None)], text);
    check(Side::client(1, 0), &[inline(&result(1, 0, false), &[0], None)], text);
}

#[test]
fn inline_payload_of_another_length_than_announced() {
    for bytes in [1, 9, 11] {
        let text = format!("{bytes} bytes of inline payload for message 1, whose metadata announced 10");
        for method in ["m", "refused"] {
            let call = inline(&call(1, method, 10, false), &vec![0; bytes], None);
            check(Side::server(), &[call], &text);
        }
        check(Side::client(1, 0), &[inline(&result(1, 10, false), &vec![0; bytes], Some(1))], &text);
        // Also if nobody waits for the result.
        let given_up = [result(1, 100, true), corrupt_data(1, 50), empty(Kind::Abort, 1)].concat();
        let second = inline(&result(1, 10, false), &vec![0; bytes], None);
        check(Side::client(1, 0), &[given_up, second], &text);
    }
}

#[test]
fn inline_payload_past_the_credit() {
    let text = "600 eager bytes go past the credit of 1000";
    for method in ["m", "refused"] {
        let second = inline(&call(2, method, 600, false), &[0; 600], None);
        check(Side::server(), &[call(1, "m", 600, true), second], text);
    }
    let second = inline(&result(2, 600, false), &[0; 600], None);
    check(Side::client(2, 0), &[result(1, 600, true), second], text);
}

// ---- Frames that are legal ----

#[test]
fn an_error_that_crosses_the_abort_of_its_call_is_ignored() {
    let mut client = Side::client(2, 2000);
    assert_eq!(client.outbound.borrow_mut().withdraw(1), Withdrawn::Aborted);
    assert_eq!(client.sent(), [(Kind::Abort, 1, 0)]);
    client.feed(&error(1)).expect("it crossed the abort");
    client.feed(&error(2)).expect("call 2 is open");
    assert_eq!(client.events(), ["error 2 failed"]);
    assert_eq!(client.sent(), [(Kind::Abort, 2, 0)], "its payload is not sent");
    check(client, &[error(1)], "an answer came for call 1, which is not open");
}

#[test]
fn another_answer_may_follow_a_result_that_was_given_up() {
    for first in [result(1, 100, true), result(1, 100, false)] {
        let second = [&result(1, 50, true)[..], &data(1, 50)].concat();
        for (answer, told) in [(second, "result 1"), (error(1), "error 1 failed")] {
            let mut client = Side::client(1, 0);
            client.feed(&first).expect("the call is open");
            client.grant(1);
            client.feed(&data(1, 10)).expect("it was granted");
            client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
            client.events();
            client.feed(&answer).expect("something must follow");
            assert_eq!(client.events(), [told]);
            check(client, &[error(1)], "an answer came for call 1, which is not open");
        }
    }
}

#[test]
fn a_caller_gets_no_second_answer_after_a_failure() {
    for eager in [true, false] {
        let mut client = Side::client(1, 0);
        client.feed(&result(1, 100, true)).expect("the call is open");
        client.feed(&corrupt_data(1, 50)).expect("it concerns this message only");
        assert_eq!(client.events(), ["error 1 checksum"]);
        client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
        client.feed(&result(1, 80, eager)).expect("something must follow");
        let mut sent = vec![(Kind::Credit, 100, 0)];
        if !eager {
            sent.push((Kind::Grant, 1, 0)); // the server must be able to send the rest
        }
        assert_eq!(client.sent(), sent);
        client.feed(&data(1, 80)).expect("it is dropped");
        assert!(client.events().is_empty());
        assert_eq!(client.inbound.unfinished(), 0);
        let given_back = if eager { vec![(Kind::Credit, 80, 0)] } else { vec![] };
        assert_eq!(client.sent(), given_back);
    }
}

#[test]
fn a_damaged_inline_payload_fails_its_message_only() {
    let right = teleport_wire::checksum(0, &[0; 10]);
    let mut server = Side::server();
    for id in 1..=10 {
        server.feed(&inline(&call(id, "m", 10, false), &[0; 10], Some(right ^ 1))).expect("it is legal");
        assert_eq!(server.sent(), [(Kind::Credit, 10, 0), (Kind::Error, id, 0)]);
    }
    server.feed(&inline(&call(11, "m", 10, false), &[0; 10], Some(right))).expect("it is legal");
    assert_eq!(server.events(), ["call 11"]);
    let mut client = Side::client(2, 0);
    client.feed(&inline(&result(1, 10, false), &[0; 10], Some(right ^ 1))).expect("it is legal");
    client.feed(&inline(&result(2, 10, false), &[0; 10], Some(right))).expect("it is legal");
    assert_eq!(client.events(), ["error 1 checksum", "result 2"]);
    assert_eq!(client.sent(), [(Kind::Credit, 20, 0)]);
    assert_eq!((server.inbound.unfinished(), client.inbound.unfinished()), (0, 0));
}

#[test]
fn frames_that_crossed_something_are_ignored() {
    let mut client = Side::client(1, 2000);
    client.feed(&ids(Kind::Grant, &[1])).expect("it waits");
    client.feed(&ids(Kind::Grant, &[1])).expect("a second grant is ignored");
    client.feed(&empty(Kind::Pong, 99)).expect("nobody asked for it");
    client.feed(&empty(Kind::Abort, 1)).expect("no result was begun");
    assert_eq!(client.sent(), [(Kind::Data, 1, 0)]);
    client.feed(&result(1, 0, false)).expect("the call is open and whole");
    client.feed(&empty(Kind::Abort, 1)).expect("the result was whole");
    client.feed(&ids(Kind::Grant, &[1])).expect("the call is gone");
    assert_eq!(client.events(), ["result 1"]);
    assert!(client.sent().is_empty());

    let mut server = Side::server();
    server.feed(&call(9, "m", 0, false)).expect("it is legal");
    server.feed(&empty(Kind::Abort, 9)).expect("it was whole");
    server.feed(&empty(Kind::Abort, 3)).expect("ids below the newest count as used");
    server.feed(&call(10, "m", 5, false)).expect("it is legal");
    server.feed(&empty(Kind::Cancel, 10)).expect("it is not whole");
    assert_eq!(server.events(), ["call 9", "wants 10 5"]);
    server.feed(&empty(Kind::Cancel, 9)).expect("it is whole");
    assert_eq!(server.events(), ["cancel 9"]);
    assert!(server.outbound.borrow_mut().send_answer(9, Message::error(&remote())).is_ok());
}

fn remote() -> RemoteError {
    RemoteError::new(ErrorKind::Failed, Ran::Yes, "why")
}

#[test]
fn a_refused_call_ends_with_its_abort_or_its_last_byte() {
    for method_bytes in [1, 600_u64] {
        let mut server = Side::server();
        server.feed(&call(1, "refused", method_bytes as usize, true)).expect("it is within the credit");
        assert_eq!(server.sent(), [(Kind::Error, 1, 0)]);
        let end = if method_bytes == 1 { data(1, 1) } else { empty(Kind::Abort, 1) };
        server.feed(&end).expect("the client goes on as it likes");
        assert_eq!((server.events(), server.sent()), (vec![], vec![(Kind::Credit, method_bytes, 0)]));
        assert_eq!((server.inbound.unfinished(), server.outbound.borrow().open_calls()), (0, 0));
    }
}

#[test]
fn an_abort_takes_back_the_answer_that_was_not_sent() {
    let mut server = Side::server();
    for id in 1..20 {
        server.feed(&call(id, "refused", 10, false)).expect("the client counts none as open");
        server.feed(&empty(Kind::Abort, id)).expect("it was not sent whole");
    }
    assert!(server.sent().is_empty() && server.events().is_empty());
}

#[test]
fn a_grant_that_was_meant_for_another_message_pays_for_none() {
    let budget = crate::memory::budget::Budget::new(1000);
    let charge = |bytes| Some(budget.try_charge(bytes).expect("there is room"));
    let mut client = Side::client(1, 0);
    client.feed(&result(1, 100, false)).expect("the call is open");
    client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
    assert_eq!(client.events(), ["wants 1 100", "withdrawn 1"]);
    client.feed(&result(1, 900, false)).expect("another answer follows");
    client.inbound.send_grant(1, charge(100), &client.outbound);
    assert!(client.sent().is_empty());
    client.inbound.send_grant(1, charge(900), &client.outbound);
    client.inbound.send_grant(1, None, &client.outbound);
    assert_eq!(client.sent(), [(Kind::Grant, 1, 0)], "once");
    assert_eq!(budget.used_bytes(), 900);
}

#[test]
fn payload_has_a_checksum_where_either_side_asks_for_it() {
    for (own, peers) in [(false, 0), (true, 0), (false, Hello::CHECKSUM), (true, Hello::CHECKSUM)] {
        let mut client = Side::new(Role::Client, Config { checksum: own, ..config() });
        client.feed(&introduction(peers | 1 << 63)).expect("unknown features are ignored");
        client.outbound.borrow_mut().send_call(call_message("m", 10), |_| true).expect("it is open");
        let is_checked = own || peers != 0;
        let flags = Header::EAGER | Header::INLINE | if is_checked { Header::CHECKED } else { 0 };
        assert_eq!(client.sent(), [(Kind::Call, 1, flags)]);
        client.outbound.borrow_mut().send_call(call_message("m", 2000), |_| true).expect("it is open");
        assert_eq!(client.sent(), [(Kind::Call, 2, 0)], "past the credit");
        client.feed(&ids(Kind::Grant, &[2])).expect("it waits");
        assert_eq!(client.sent(), [(Kind::Data, 2, if is_checked { Header::CHECKSUM } else { 0 })]);
        // Payload without a checksum is accepted all the same.
        client.feed(&[result(1, 4, true), data(1, 4)].concat()).expect("it is legal");
        let hello = Config { checksum: own, ..config() }.hello(Role::Client);
        assert_eq!(hello.features, if own { Hello::CHECKSUM } else { 0 });
    }
}

#[test]
fn calls_of_too_much_structure_are_refused_one_by_one() {
    let config = Config { max_structure_bytes: 300 << 10, ..config() };
    let mut server = Side::new(Role::Server, config);
    server.feed(&introduction(0)).expect("a plain hello");
    let nulls = |id| {
        let tree = Tree::List(vec![Tree::Null; 2000]);
        head(id, &Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it fits"), false)
    };
    for id in 1..=2 {
        server.feed(&nulls(id)).expect("it is legal");
    }
    assert_eq!(server.events(), ["open", "call 1"]);
    assert_eq!(server.sent(), [(Kind::Error, 2, 0)]);
    server.feed(&call(3, "m", 1, false)).expect("small ones still fit");
    assert_eq!(server.events(), ["wants 3 1"]);
    server.outbound.borrow_mut().send_answer(1, Message::error(&remote())).expect("it is open");
    server.feed(&nulls(4)).expect("it is legal");
    assert_eq!(server.events(), ["call 4"]);
}

#[test]
fn a_side_sends_nothing_after_its_own_goodbye() {
    let mut client = Side::client(0, 0);
    client.outbound.borrow_mut().send_goodbye(None, "enough");
    assert_eq!(client.sent(), [(Kind::Goodbye, 0, 0)]);
    client.feed(&empty(Kind::Ping, 1)).expect("the server has not read it yet");
    for _ in 0..2 {
        assert!(client.sent().is_empty());
        client.outbound.borrow_mut().poll_write(&mut WriteBuffer::default());
        assert!(client.outbound.borrow().is_finished());
        let refused = client.outbound.borrow_mut().send_call(call_message("m", 0), |_| true);
        assert_eq!(refused, Err(SendError::Closed));
    }
}

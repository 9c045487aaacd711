//! Bad input, tried against the example `serve` as a stranger would, over TCP and over a Unix socket.
//!
//! Each test does one bad thing ([`check`]). The server must close that connection, or answer that one call with an error;
//! write one line to its log; take no more memory than [`MAX_GROWTH_BYTES`]; and a client that works meanwhile must not
//! notice. What a server could do to a client stands at the end.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::net::TcpListener;
use std::sync::Arc;

use teleport::wire::{
    CallHead, ErrorKind, Goodbye, Header, Id128, Kind, Limits, MAX_CHUNK_BYTES, Message, Preface, Ran,
    RemoteError, Resume, encode_frame, encode_ids,
};
use teleport::{Array, CallError, Client, Tree, tree};
use teleport_tests::{
    Random, Raw, Received, Serve, Steady, abstract_address, allow_many_descriptors, watched,
};

/// What a server's memory may grow by, whatever one client sends: its eager credit and its metadata (1 MiB each), a
/// structure made of these, and what the allocator keeps of it.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

/// Ids that nobody has used.
const NOBODY: u64 = 77;

/// A server, and a client that works all the time.
struct Scene {
    serve: Serve,
    steady: Steady,
    peak_bytes: u64,
}

impl Scene {
    fn start(address: &str) -> Scene {
        let serve = Serve::start(address);
        let steady = Steady::start(serve.address());
        let peak_bytes = serve.memory().peak_bytes;
        Scene { serve, steady, peak_bytes }
    }

    fn address(&self) -> &str {
        self.serve.address()
    }

    /// Checks that nothing suffered; gives the lines of the log.
    #[track_caller]
    fn end(mut self) -> Vec<String> {
        self.steady.works_on();
        self.steady.end();
        let growth = self.serve.memory().peak_bytes - self.peak_bytes;
        assert!(growth <= MAX_GROWTH_BYTES, "the server's memory grew by {growth} bytes");
        self.serve.log()
    }
}

/// Does `harm` to a server at each kind of address, and checks that its log got exactly one line, with `line` in it.
#[track_caller]
fn check(line: &'static str, harm: impl Fn(&str) + Send + 'static) {
    check_lines(vec![line], harm);
}

/// As [`check`], with any number of lines.
#[track_caller]
fn check_lines(lines: Vec<&'static str>, harm: impl Fn(&str) + Send + 'static) {
    watched(move || {
        for address in ["tcp://127.0.0.1:0", &abstract_address()] {
            let scene = Scene::start(address);
            harm(scene.address());
            let log = scene.end();
            assert_eq!(log.len(), lines.len(), "{address}: {log:#?}");
            for (found, expected) in log.iter().zip(&lines) {
                assert!(found.contains(expected), "{address}: {found}\nhas no {expected:?}");
            }
        }
    });
}

/// A stranger sends `bytes` and must find the connection closed.
#[track_caller]
fn stranger(line: &'static str, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    check(line, move |address| {
        let mut peer = Raw::connect(address);
        peer.send(&bytes);
        // It does not understand the introduction that the server may have sent before it knew better.
        peer.until_silent_end();
    });
}

/// A client that was introduced breaks a rule: it must be told so and find the connection closed.
#[track_caller]
fn liar(line: &'static str, harm: impl Fn(&mut Raw) + Send + 'static) {
    check(line, move |address| {
        let (mut peer, _) = Raw::introduced(address);
        harm(&mut peer);
        is_sent_away(&mut peer, line);
    });
}

/// As [`liar`], once for each of `lies`, on a connection of its own.
#[track_caller]
fn liars(line: &'static str, lies: Vec<Vec<u8>>) {
    check_lines(vec![line; lies.len()], move |address| {
        for lie in &lies {
            let (mut peer, _) = Raw::introduced(address);
            peer.send(lie);
            is_sent_away(&mut peer, line);
        }
    });
}

#[track_caller]
fn is_sent_away(peer: &mut Raw, reason: &str) {
    let frames = peer.until_closed();
    // Without one the system dropped it, since bytes were under way that the server never read.
    if let Some(goodbye) = frames.last().filter(|frame| frame.header.kind == Kind::Goodbye) {
        let goodbye = Goodbye::decode(&goodbye.header, &goodbye.body).unwrap();
        assert_eq!(goodbye.kind, Some(ErrorKind::Protocol), "{}", goodbye.reason);
        assert!(goodbye.reason.contains(reason), "{}\nhas no {reason:?}", goodbye.reason);
    }
}

fn frame(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
    encode_frame(kind, id, body)
}

/// A call of `echo` with this tree, as the library would make it.
fn echo(tree: &Tree) -> Message {
    Message::call(&CallHead::new("echo"), tree, &Limits::default()).unwrap()
}

fn bytes(len: usize) -> Message {
    echo(&Tree::from(Array::from(vec![7u8; len])))
}

/// The body of a call of `echo` with this signature, made by hand.
fn call_body(signature: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(4u16.to_le_bytes()); // method bytes
    body.extend(0u16.to_le_bytes()); // flags
    body.extend((signature.len() as u32).to_le_bytes());
    body.extend([0; 16]); // order bytes, reserved, deadline
    body.extend(b"echo");
    body.extend(signature);
    body
}

/// The frame of such a call.
fn call(signature: &[u8]) -> Vec<u8> {
    frame(Kind::Call, 1, &call_body(signature))
}

/// The signature of an array of bytes.
fn array_signature(shape: &[u64]) -> Vec<u8> {
    let mut signature = vec![1, 6, shape.len() as u8];
    signature.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    signature
}

/// The header's bytes after `change`, with a checksum that is right again.
fn changed(header: Header, change: impl FnOnce(&mut [u8; 32])) -> Vec<u8> {
    let mut bytes = header.encode();
    change(&mut bytes);
    let crc = teleport::wire::checksum(0, &bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes.to_vec()
}

/// Noise that is longer than any introduction.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let len = 200 + random.below(1 << 16);
    random.bytes(len)
}

fn introduction() -> Vec<u8> {
    [&Preface::BYTES[..], &frame(Kind::Hello, 0, &Raw::hello().encode())].concat()
}

// ---- Strangers ----

#[test]
fn an_http_request() {
    stranger("speaks HTTP", *b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
}

#[test]
fn a_tls_hello() {
    let mut hello = vec![0x16, 0x03, 0x01, 0x00, 0xC4, 0x01, 0x00, 0x00, 0xC0, 0x03, 0x03];
    hello.extend([0x5A; 186]);
    stranger("speaks TLS", hello);
}

#[test]
fn a_zeromq_greeting() {
    let mut greeting = vec![0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F];
    greeting.extend([3, 1]);
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    stranger("speaks ZeroMQ", greeting);
}

#[test]
fn another_version() {
    let mut preface = Preface::BYTES;
    preface[8] = 2;
    stranger("version 2", preface);
}

#[test]
fn random_bytes() {
    let mut random = Random::from_environment();
    let noise: Vec<Vec<u8>> = (0..30).map(|_| some_bytes(&mut random)).collect();
    check_lines(vec!["does not keep to the protocol"; 30], move |address| {
        for noise in &noise {
            let mut peer = Raw::connect(address);
            peer.send(noise);
            peer.until_silent_end();
        }
    });
}

#[test]
fn random_bytes_after_a_good_introduction() {
    let mut random = Random::from_environment();
    let noise: Vec<Vec<u8>> = (0..30).map(|_| some_bytes(&mut random)).collect();
    check_lines(vec!["does not keep to the protocol"; 30], move |address| {
        for noise in &noise {
            let (mut peer, _) = Raw::introduced(address);
            peer.send(noise);
            peer.until_silent_end();
        }
    });
}

#[test]
fn a_good_session_with_one_random_byte_changed() {
    let mut random = Random::from_environment();
    let message = echo(&tree!({"text": "hello", "bytes": (vec![1u8; 100]), "list": [1, 2, null]}));
    let mut session = introduction();
    session.extend(message.header(1, true));
    session.extend(&message.metadata);
    let sessions: Vec<Vec<u8>> = (0..30)
        .map(|_| {
            let mut bytes = session.clone();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            bytes
        })
        .collect();
    check_lines(vec!["a connection ended"; 30], move |address| {
        for session in &sessions {
            let mut peer = Raw::connect(address);
            peer.send(session);
            // A changed hello may still be one, but no checksum is right any more.
            peer.finish();
            peer.until_silent_end();
        }
    });
}

#[test]
fn a_preface_cut_short() {
    check("the connection broke", |address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES[..7]);
        peer.finish();
        peer.until_silent_end();
    });
}

#[test]
fn a_preface_and_no_more() {
    check("no hello within", |address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES);
        peer.until_silent_end();
    });
}

#[test]
fn a_thousand_connections_that_say_nothing() {
    watched(|| {
        allow_many_descriptors(4096);
        let mut scene = Scene::start("tcp://127.0.0.1:0");
        let silent: Vec<Raw> = (0..1000).map(|_| Raw::connect(scene.address())).collect();
        scene.steady.works_on();
        for mut peer in silent {
            peer.until_silent_end();
        }
        // One line each, but strangers cannot fill the disk: the log is bounded in each stretch of time.
        let log = scene.end();
        let said: Vec<_> = log.iter().filter(|line| line.contains("no hello within")).collect();
        assert!((100..=1000).contains(&said.len()), "{} lines", said.len());
        let others: Vec<_> = log.iter().filter(|line| !line.contains("no hello within")).collect();
        assert!(others.iter().all(|line| line.contains("left_out")), "{others:#?}");
    });
}

// ---- Sizes that lie ----

#[test]
fn a_header_that_announces_almost_2_to_the_64_bytes() {
    let lie = |(kind, id, body_crc)| {
        let header = Header { body_crc, length: u64::MAX - 31, ..Header::empty(kind, id) };
        header.encode().to_vec()
    };
    let kinds = [(Kind::Call, 1, 1), (Kind::Data, 1, 0), (Kind::Goodbye, 0, 1), (Kind::Grant, 0, 1)];
    liars("18446744073709551584", kinds.map(lie).to_vec());
}

#[test]
fn a_hello_that_announces_almost_2_to_the_64_bytes() {
    let header = Header { length: u64::MAX, body_crc: 1, ..Header::empty(Kind::Hello, 0) };
    let bytes = [&Preface::BYTES[..], &header.encode()].concat();
    stranger("18446744073709551615", bytes);
}

#[test]
fn metadata_one_byte_past_its_limit() {
    check("metadata bytes", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        let length = u64::from(hello.limits.max_metadata_bytes) + 1;
        peer.send(&Header { length, body_crc: 1, ..Header::empty(Kind::Call, 1) }.encode());
        peer.until_closed();
    });
}

#[test]
fn strings_of_almost_2_to_the_64_bytes() {
    let sizes = [u64::MAX, u64::MAX - 63, 1 << 63, 1 << 40];
    let lie = |tag: u8| sizes.map(|size: u64| call(&[&[tag], &size.to_le_bytes()[..]].concat()));
    liars("bytes", [2, 3].map(lie).concat());
}

#[test]
fn shapes_of_almost_2_to_the_64_items() {
    let shapes = [
        vec![u64::MAX],
        vec![1 << 32, 1 << 32],
        vec![1 << 63, 2],
        vec![u64::MAX, 0],
        vec![0, 1 << 62],
        vec![3; 32],
        vec![1 << 50],
    ];
    liars("bytes", shapes.map(|shape| call(&array_signature(&shape))).to_vec());
}

#[test]
fn many_strings_whose_sum_is_past_2_to_the_64() {
    let one = [&[2u8], &(15u64 << 30).to_le_bytes()[..]].concat();
    let signature = [&[4u8], &1000u32.to_le_bytes()[..], &one.repeat(1000)].concat();
    liar("bytes", move |peer| peer.send(&call(&signature)));
}

#[test]
fn texts_of_almost_2_to_the_32_characters() {
    let signature = [&[1u8, 17, 1][..], &u32::MAX.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    liar("bytes", move |peer| peer.send(&call(&signature)));
}

#[test]
fn counts_of_almost_2_to_the_32_entries() {
    let lie = |tag: u8| call(&[&[tag][..], &u32::MAX.to_le_bytes(), &[0; 100]].concat());
    liars("bytes and 100 are left", [4, 5].map(lie).to_vec());
}

#[test]
fn an_array_of_256_axes() {
    let signature = [&[1u8, 6, 255][..], &[1, 0, 0, 0, 0, 0, 0, 0].repeat(255)].concat();
    liar("32", move |peer| peer.send(&call(&signature)));
}

#[test]
fn more_nodes_than_the_limit() {
    let signature = [&[4u8][..], &100_000u32.to_le_bytes(), &[0; 100_000]].concat();
    liar("65536", move |peer| peer.send(&call(&signature)));
}

/// Lists within lists, as many as asked for, around a null.
fn nested(depth: usize) -> Vec<u8> {
    let mut signature = [4u8, 1, 0, 0, 0].repeat(depth);
    signature.push(0);
    signature
}

#[test]
fn depth_of_a_million() {
    let bytes = call(&nested(1_000_000));
    liar("metadata bytes", move |peer| peer.send(&bytes));
}

#[test]
fn depth_of_as_much_as_metadata_holds() {
    let bytes = call(&nested(200_000));
    liar("64", move |peer| peer.send(&bytes));
}

#[test]
fn lengths_inside_of_metadata_that_lie() {
    let lie = |at: usize| {
        let mut body = call_body(&[0]);
        body[at..at + 2].fill(0xFF);
        frame(Kind::Call, 1, &body)
    };
    liars("bytes", [0, 4, 8].map(lie).to_vec());
}

#[test]
fn bytes_after_the_end_of_metadata() {
    let mut body = call_body(&[0]);
    body.push(0);
    liar("", move |peer| peer.send(&frame(Kind::Call, 1, &body)));
}

#[test]
fn unknown_tags_and_dtypes() {
    let signatures = [&[6u8][..], &[255], &[1, 0, 0], &[1, 20, 0], &[1, 18, 0, 14, 1, 0, 0, 0]];
    liars("unknown", signatures.map(call).to_vec());
}

#[test]
fn keys_out_of_order_or_twice() {
    let entry = |key: u8| [&1u32.to_le_bytes()[..], &[key, 0]].concat();
    let lie = |keys: [u8; 2]| call(&[&[5u8][..], &2u32.to_le_bytes(), &keys.map(entry).concat()].concat());
    liars("key", [*b"ba", *b"aa"].map(lie).to_vec());
}

// ---- Frames that are not allowed now ----

/// One frame of this kind that is good in itself.
fn good_frame(kind: Kind) -> Vec<u8> {
    let message = echo(&tree!("text"));
    match kind {
        Kind::Hello => frame(kind, 0, &Raw::hello().encode()),
        Kind::Call => frame(kind, 1, &message.metadata),
        Kind::Result => frame(kind, 1, &Message::result(&tree!(1), &Limits::default()).unwrap().metadata),
        Kind::Error => frame(kind, 1, &RemoteError::new(ErrorKind::Failed, Ran::Yes, "no").encode()),
        Kind::Data => [&Header::data(1, 4, None).encode()[..], b"text"].concat(),
        Kind::Grant | Kind::Ack => frame(kind, 0, &encode_ids(&[1])),
        Kind::Resume => frame(kind, 0, &Resume { server: Id128([1; 16]), calls: Vec::new() }.encode()),
        Kind::ResumeAnswer => frame(kind, 0, &[]),
        Kind::Block => frame(kind, 1, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Kind::Goodbye => Goodbye { kind: None, reason: String::new() }.encode_frame(),
        Kind::Abort | Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong | Kind::Release => {
            Header::empty(kind, 1).encode().to_vec()
        }
    }
}

#[test]
fn any_frame_before_hello() {
    let early = Kind::all().filter(|kind| !matches!(kind, Kind::Hello | Kind::Goodbye)).collect::<Vec<_>>();
    assert_eq!(early.len(), 15);
    check_lines(vec!["came before the hello"; 15], move |address| {
        for kind in &early {
            let mut peer = Raw::connect(address);
            peer.send(&Preface::BYTES);
            peer.send(&good_frame(*kind));
            peer.until_silent_end();
        }
    });
}

#[test]
fn a_second_hello() {
    liar("Hello is not allowed", |peer| peer.send(&good_frame(Kind::Hello)));
}

#[test]
fn frames_of_features_that_were_not_agreed_on() {
    let kinds = [Kind::Ack, Kind::Resume, Kind::ResumeAnswer, Kind::Block, Kind::Release];
    liars("is not allowed", kinds.map(good_frame).to_vec());
}

#[test]
fn a_result_or_an_error_sent_to_a_server() {
    liars("is not allowed", [Kind::Result, Kind::Error].map(good_frame).to_vec());
}

#[test]
fn frames_for_messages_that_nobody_has_sent() {
    let frames = [
        [&Header::data(NOBODY, 4, None).encode()[..], b"text"].concat(),
        Header::empty(Kind::Abort, NOBODY).encode().to_vec(),
        Header::empty(Kind::Cancel, NOBODY).encode().to_vec(),
        frame(Kind::Grant, 0, &encode_ids(&[NOBODY])),
    ];
    liars("names message 77, which is none that is open", frames.to_vec());
}

#[test]
fn an_unknown_kind_that_must_not_be_skipped() {
    let bytes = changed(Header::empty(Kind::Ping, 1), |bytes| bytes[0] = 0x7F);
    liar("127", move |peer| peer.send(&bytes));
}

#[test]
fn an_id_that_was_used_before() {
    liar("ids must increase", |peer| {
        peer.send_eager(5, &echo(&tree!(1)));
        peer.next_of(Kind::Result);
        peer.send_eager(5, &echo(&tree!(2)));
    });
}

#[test]
fn a_frame_after_goodbye() {
    // The goodbye ends the connection well, and nothing after it is looked at.
    check_lines(vec![], |address| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&good_frame(Kind::Goodbye));
        peer.send_eager(1, &echo(&tree!("text")));
        let frames = peer.until_closed();
        assert!(frames.iter().all(|frame| frame.header.kind != Kind::Result), "{frames:?}");
    });
}

#[test]
fn a_goodbye_before_hello() {
    check_lines(vec![], |address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_silent_end();
    });
}

// ---- Payload and credit ----

#[test]
fn an_empty_chunk() {
    liar("0", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, 0, None).encode());
    });
}

#[test]
fn a_chunk_longer_than_chunks_may_be() {
    liar("1048577", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, MAX_CHUNK_BYTES + 1, None).encode());
    });
}

#[test]
fn more_payload_than_announced() {
    liar("more payload for message 1 than the 100 bytes", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, 101, None).encode());
        peer.send(&[0; 101]);
    });
}

#[test]
fn payload_after_the_end_of_its_message() {
    liar("which is none that is open", |peer| {
        peer.send_eager(1, &bytes(100));
        peer.send(&Header::data(1, 1, None).encode());
        peer.send(&[0]);
    });
}

#[test]
fn payload_without_a_grant() {
    liars("came before its grant", vec![ungranted()]);
}

/// A call that needs a grant, and its payload, in one piece: between two the grant might come.
fn ungranted() -> Vec<u8> {
    let message = bytes(100);
    [&message.header(1, false)[..], &message.metadata, &Header::data(1, 100, None).encode()].concat()
}

#[test]
fn eager_payload_past_the_credit() {
    check("past the credit of", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        peer.send_head(1, &bytes(hello.eager_credit_bytes as usize), true);
        peer.send_head(2, &bytes(1), true);
        peer.until_closed();
    });
}

#[test]
fn eager_without_payload() {
    let body = echo(&Tree::Null).metadata;
    let header = Header { flags: Header::EAGER, ..Header::of_body(Kind::Call, 1, &body) };
    liars("claims eager credit", vec![[&header.encode()[..], &body].concat()]);
}

#[test]
fn credit_that_was_never_taken() {
    let lie = |amount| Header::empty(Kind::Credit, amount).encode().to_vec();
    liars("of credit given back go past", [1, u64::MAX].map(lie).to_vec());
}

#[test]
fn checksums_that_do_not_match() {
    let mut header = Header::empty(Kind::Ping, 1).encode();
    header[28] ^= 1;
    let mut body = good_frame(Kind::Call);
    *body.last_mut().unwrap() ^= 1;
    liars("checksum", vec![header.to_vec(), body]);
}

#[test]
fn more_calls_than_the_server_allows() {
    check("calls without an answer", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        let message = bytes(100);
        // No payload follows, so that none is ever answered.
        let head = |id| [&message.header(id, false)[..], &message.metadata].concat();
        let calls = (1..=2 * u64::from(hello.max_open_calls) + 1).flat_map(head).collect::<Vec<_>>();
        peer.send(&calls);
        peer.until_closed();
    });
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_chunk() {
    check_lines(vec!["the connection broke"; 60], |address| {
        // Together they send more than the server's memory may grow by.
        for left_behind in (0..60).rev() {
            let (mut peer, _) = Raw::introduced(address);
            let message = bytes(1 << 20);
            peer.send_head(1, &message, true);
            peer.send(&Header::data(1, 1 << 20, None).encode());
            peer.send(&message.payload[0][..700_000]);
            if left_behind > 0 {
                peer.finish();
                peer.until_silent_end();
            }
        }
    });
}

#[test]
fn a_client_that_asks_for_much_memory_and_vanishes() {
    check_lines(vec!["the connection broke"; 20], |address| {
        for _ in 0..20 {
            let (mut peer, _) = Raw::introduced(address);
            peer.send(&call(&array_signature(&[1 << 30])));
            peer.next_of(Kind::Grant);
            peer.send(&Header::data(1, 1 << 20, None).encode());
            peer.send(&[1; 1000]);
        }
    });
}

// ---- Floods ----

/// A client sends what `make` gives for each id, reads nothing, and goes when the server takes no more. The server may
/// close the connection or stop reading; its memory is checked as in every test here.
#[track_caller]
fn flood(ids: u64, make: impl Fn(u64) -> Vec<u8> + Send + 'static) {
    check("a connection ended", move |address| {
        let (mut peer, _) = Raw::introduced(address);
        peer.flood(ids, &make);
    });
}

#[test]
fn calls_whose_results_nobody_reads() {
    let some = bytes(100);
    flood(500_000, move |id| {
        let data = Header::data(id, 100, None).encode();
        [&some.header(id, true)[..], &some.metadata, &data, &some.payload[0]].concat()
    });
    let empty = echo(&Tree::Null);
    flood(500_000, move |id| [&empty.header(id, false)[..], &empty.metadata].concat());
}

#[test]
fn calls_of_no_method_whose_errors_nobody_reads() {
    let message = Message::call(&CallHead::new("nothing"), &tree!("text"), &Limits::default()).unwrap();
    flood(500_000, move |id| [&message.header(id, false)[..], &message.metadata].concat());
}

#[test]
fn pings_whose_pongs_nobody_reads() {
    flood(1_000_000, |id| Header::empty(Kind::Ping, id).encode().to_vec());
}

#[test]
fn calls_that_are_withdrawn_again() {
    let message = echo(&tree!("x".repeat(10_000)));
    flood(500_000, move |id| {
        [&message.header(id, false)[..], &message.metadata, &Header::empty(Kind::Abort, id).encode()].concat()
    });
}

// ---- Errors for one call ----

/// The error that answers call `id`.
#[track_caller]
fn error_of(frame: &Received, id: u64) -> RemoteError {
    assert_eq!(frame.header.id, id);
    RemoteError::decode(&frame.body).unwrap()
}

#[test]
fn a_method_that_does_not_exist() {
    check_lines(vec![], |address| {
        let (mut peer, _) = Raw::introduced(address);
        let head = CallHead::new("../../etc/passwd\n\u{1b}[2J");
        let message = Message::call(&head, &tree!("text"), &Limits::default()).unwrap();
        peer.send_eager(1, &message);
        let error = error_of(&peer.next_of(Kind::Error), 1);
        assert_eq!((error.kind, error.ran), (ErrorKind::UnknownMethod, Ran::No));
        peer.send_eager(2, &echo(&tree!("the connection goes on")));
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_closed();
    });
}

#[test]
fn a_string_that_is_not_utf8() {
    check_lines(vec![], |address| {
        let (mut peer, _) = Raw::introduced(address);
        let message = echo(&tree!("text"));
        peer.send_head(1, &message, true);
        peer.send(&Header::data(1, 4, None).encode());
        peer.send(&[0xFF; 4]);
        let error = error_of(&peer.next_of(Kind::Error), 1);
        assert_eq!((error.kind, error.ran), (ErrorKind::BadArguments, Ran::No));
        peer.send_eager(2, &echo(&tree!("the connection goes on")));
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        peer.send(&good_frame(Kind::Goodbye));
        peer.until_closed();
    });
}

#[test]
fn a_name_that_would_break_the_log() {
    check("came before its grant", |address| {
        let mut peer = Raw::connect(address);
        peer.introduce(&teleport::wire::Hello {
            name: "evil\nINFO all is well\u{1b}[2J".into(),
            ..Raw::hello()
        });
        peer.send(&ungranted());
        peer.until_closed();
    });
}

// ---- What a server could do to a client ----

/// Has a client call a server that answers with `harm`, and gives what becomes of the call.
fn liar_server(harm: impl FnOnce(&mut Raw) + Send + 'static) -> CallError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut raw = Raw::accept(&listener);
        raw.introduce(&teleport::wire::Hello { max_open_calls: 8, ..Raw::hello() });
        raw.next_of(Kind::Call);
        harm(&mut raw);
        raw.until_closed()
    });
    let client = Client::builder(&address).connect_timeout(std::time::Duration::ZERO).connect().unwrap();
    let error = client.call("echo", ()).wait().unwrap_err();
    let frames = server.join().unwrap();
    let goodbye = frames
        .iter()
        .find(|frame| frame.header.kind == Kind::Goodbye)
        .map(|frame| Goodbye::decode(&frame.header, &frame.body).unwrap());
    if let Some(goodbye) = goodbye {
        assert_eq!(goodbye.kind, Some(ErrorKind::Protocol), "{}", goodbye.reason);
    }
    error
}

#[track_caller]
fn check_liar_server(text: &'static str, harm: impl Fn(&mut Raw) + Send + Sync + 'static) {
    watched(move || {
        let harm = Arc::new(harm);
        let error = liar_server(move |raw| harm(raw));
        assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
        assert_eq!(error.ran(), Ran::Maybe);
        assert!(error.to_string().contains(text), "{error}\nhas no {text:?}");
    });
}

#[test]
fn a_server_that_answers_a_call_that_was_never_made() {
    let result = Message::result(&tree!("text"), &Limits::default()).unwrap();
    check_liar_server("call 77, which is not open", move |raw| raw.send_eager(NOBODY, &result));
    let error = RemoteError::new(ErrorKind::Failed, Ran::Yes, "no").encode();
    check_liar_server("call 77, which is not open", move |raw| raw.send(&frame(Kind::Error, NOBODY, &error)));
}

#[test]
fn a_server_that_sends_noise() {
    let noise = Random::from_environment().bytes(5000);
    check_liar_server("checksum", move |raw| raw.send(&noise));
}

#[test]
fn a_server_that_makes_calls() {
    check_liar_server("is not allowed", |raw| raw.send(&good_frame(Kind::Call)));
}

#[test]
fn a_server_whose_result_is_larger_than_anything() {
    let signature = array_signature(&[u64::MAX]);
    let body = [&(signature.len() as u32).to_le_bytes()[..], &[0; 4], &signature].concat();
    check_liar_server("bytes", move |raw| raw.send(&frame(Kind::Result, 1, &body)));
}

#[test]
fn a_server_that_grants_what_nobody_asked_for() {
    check_liar_server("which is none that is open", |raw| {
        raw.send(&frame(Kind::Grant, 0, &encode_ids(&[NOBODY])));
    });
}

#[test]
fn a_server_that_vanishes_in_the_middle_of_a_result() {
    watched(|| {
        let error = liar_server(|raw| {
            raw.send_head(1, &Message::result(&tree!("text"), &Limits::default()).unwrap(), true);
            raw.send(&Header::data(1, 4, None).encode());
            raw.send(b"te");
            raw.finish();
        });
        assert!(matches!(error, CallError::Disconnected { .. }), "{error:?}");
        assert_eq!(error.ran(), Ran::Maybe);
    });
}

#[test]
fn a_server_that_speaks_http() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut raw = Raw::accept(&listener);
            raw.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            raw.until_silent_end();
        });
        let error = Client::connect(&address).unwrap_err();
        assert!(error.to_string().contains("speaks HTTP"), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
        server.join().unwrap();
    });
}

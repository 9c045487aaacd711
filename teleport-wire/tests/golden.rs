//! Compares the bytes in `FORMAT.md` with those that this crate writes and reads.
//!
//! A program that shares no code with this crate made the blocks of that page. So these tests find both a
//! change of the format and wrong bytes on the page.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere; helpers are outside of test functions")]

mod common;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};

use common::same_with_order;
use receiver::payload;
use teleport_wire::{
    Array, Block, Buffer, CallAnswer, CallHead, CallMetadata, CallState, DType, ErrorKind, Extent,
    FrameHeader, Goodbye, Header, Hello, Id128, Kind, Limits, Message, Preface, Ran, RemoteError,
    ResultMetadata, Resume, ResumeAnswer, Signature, TimeBase, TimeUnit, Tree, decode_ids, encode_frame,
    encode_ids, tree,
};

/// Returns the blocks of the page by name.
fn page() -> BTreeMap<String, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = include_str!("../FORMAT.md").lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let rows = lines.by_ref().take_while(|line| *line != "```");
        let digits = rows.map(|row| row.split('#').next().unwrap());
        let bytes = digits.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let old = blocks.insert(name.to_owned(), bytes.collect());
        assert!(old.is_none(), "two blocks are named {name}");
    }
    blocks
}

fn signal(kind: Kind, id: u64) -> Vec<u8> {
    Header::empty(kind, id).encode().to_vec()
}

/// Returns the one frame of a small message.
fn frame(message: &Message, id: u64, is_checked: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    message.append_frame(id, is_checked, &mut frame);
    frame
}

/// Returns the frame of a message's metadata, and that of its payload as one chunk.
fn two_frames(message: &Message, id: u64) -> [Vec<u8>; 2] {
    let first = [&message.header(id, true)[..], message.metadata()].concat();
    let header = Header::data(id, message.payload_bytes(), None);
    [first, [&header.encode()[..], &payload(message)].concat()]
}

fn hello() -> Hello {
    Hello {
        features: 0,
        limits: Limits::default(),
        eager_credit_bytes: 1 << 20,
        max_open_calls: 0,
        instance: Id128(std::array::from_fn(|index| index as u8)),
        session: Id128::NONE,
        name: "actor".into(),
        auth: Vec::new(),
    }
}

fn signature() -> Vec<u8> {
    let unit = TimeUnit::new(25, TimeBase::Second).unwrap();
    let tree = tree!({
        "days": Array::zeros_of(DType::DateTime(unit), [4]),
        "image": Array::zeros::<u8>([64, 64, 3]),
        "list": [null, (Buffer::from(b"bytes".as_slice()))],
        "names": Array::zeros_of(DType::Unicode(8), [0, 2]),
        "text": "sevenby",
        "x": 0f32,
    });
    let message = Message::result(&tree, &Limits::default()).unwrap();
    ResultMetadata::decode(message.metadata()).unwrap().signature.to_vec()
}

fn resume() -> Resume {
    let server = Id128(std::array::from_fn(|index| index as u8 + 16));
    Resume { server, calls: vec![(6, CallState::Part), (7, CallState::Acknowledged)] }
}

fn resume_answer() -> ResumeAnswer {
    ResumeAnswer { calls: vec![(6, CallAnswer::Missing), (7, CallAnswer::Done)] }
}

fn error() -> RemoteError {
    RemoteError::new(ErrorKind::Failed, Ran::Yes, "no such file").with_code("ENOENT")
}

fn goodbye() -> Goodbye {
    Goodbye { kind: Some(ErrorKind::Closing), reason: "the server was stopped".into() }
}

const EXTENT: Extent = Extent { block: 7, offset: 4096, bytes: 1 << 20 };

fn shared_data() -> Vec<u8> {
    let body = Extent::encode(&[EXTENT]);
    let header = Header { flags: Header::SHARED, ..Header::data(3, body.len() as u64, None) };
    [&header.encode()[..], &body].concat()
}

#[test]
fn this_crate_writes_the_bytes_of_the_page() {
    let limits = Limits::default();
    let call = Message::call(&CallHead::new("add"), &tree!({"foo": 1, "bar": 2}), &limits).unwrap();
    let result = Message::result(&tree!({"result": 3}), &limits).unwrap();
    let [call_before_data, data] = two_frames(&call, 1);
    let checked = Header::data(3, 5, Some(teleport_crc(b"Hello"))).encode();
    let written: [(&str, Vec<u8>); 22] = [
        ("preface", Preface::BYTES.to_vec()),
        ("hello", encode_frame(Kind::Hello, 0, &hello().encode())),
        ("signature", signature()),
        ("call", frame(&call, 1, false)),
        ("call-before-data", call_before_data),
        ("data", data),
        ("result", frame(&result, 1, true)),
        ("error", encode_frame(Kind::Error, 2, &error().encode())),
        ("data-with-checksum", [&checked[..], b"Hello"].concat()),
        ("data-in-shared-memory", shared_data()),
        ("abort", signal(Kind::Abort, 3)),
        ("credit", signal(Kind::Credit, 72)),
        ("grant", encode_frame(Kind::Grant, 0, &encode_ids(&[4, 5]))),
        ("ack", encode_frame(Kind::Ack, 0, &encode_ids(&[4]))),
        ("cancel", signal(Kind::Cancel, 5)),
        ("ping", signal(Kind::Ping, 99)),
        ("pong", signal(Kind::Pong, 99)),
        ("resume", encode_frame(Kind::Resume, 0, &resume().encode())),
        ("resume-answer", encode_frame(Kind::ResumeAnswer, 0, &resume_answer().encode())),
        ("block", encode_frame(Kind::Block, 7, &Block { bytes: 1 << 30 }.encode())),
        ("release", signal(Kind::Release, 7)),
        ("goodbye", goodbye().encode_frame()),
    ];
    let page = page();
    for (name, bytes) in &written {
        assert_eq!(page.get(*name).map(|bytes| hex(bytes)), Some(hex(bytes)), "{name}");
    }
    let names: BTreeSet<&str> = written.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = page.keys().filter(|name| !names.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "no test compares these blocks: {missing:?}");
}

#[test]
fn this_crate_reads_the_bytes_of_the_page() {
    let page = page();
    let mut kinds = BTreeSet::new();
    for (name, bytes) in page.iter().filter(|(name, _)| !["preface", "signature"].contains(&name.as_str())) {
        let (header, body) = bytes.split_first_chunk().unwrap();
        let Ok(FrameHeader::Known(header)) = Header::decode(header, &Limits::default()) else {
            panic!("{name}")
        };
        assert_eq!(header.length, body.len() as u64, "{name}");
        let (body, payload) = header.split_body(body, &Limits::default()).unwrap();
        header.check_body(body).unwrap();
        kinds.insert(header.kind.number());
        read(&header, body, payload);
    }
    assert!(kinds.into_iter().eq(Kind::all().map(Kind::number)), "a kind has no block");
    assert_eq!(Preface::check_prefix(&page["preface"]), Ok(()));
    let signature = Signature::decode(&page["signature"], &Limits::default()).unwrap();
    assert_eq!(signature.payload_bytes(), 4 * 8 + 64 * 64 * 3 + 5 + 7 + 4);
}

fn read(header: &Header, body: &[u8], inline: &[u8]) {
    match header.kind {
        Kind::Hello => assert_eq!(Hello::decode(body), Ok(hello())),
        Kind::Call => {
            let metadata = CallMetadata::decode(body).unwrap();
            let payload = [2i64.to_le_bytes(), 1i64.to_le_bytes()].concat();
            assert_eq!(
                (header.flags, inline),
                if header.is_inline() { (3, &payload[..]) } else { (1, &[][..]) }
            );
            let tree =
                receiver::decode(metadata.signature, metadata.order, &payload, &Limits::default()).unwrap();
            assert_eq!(metadata.head, CallHead::new("add"));
            assert!(same_with_order(&tree, &tree!({"foo": 1, "bar": 2})));
        }
        Kind::Result => {
            let metadata = ResultMetadata::decode(body).unwrap();
            assert_eq!((header.flags, inline), (7, &3i64.to_le_bytes()[..]));
            assert_eq!(header.payload_crc(), Some(teleport_crc(inline)));
            let tree = receiver::decode(metadata.signature, metadata.order, inline, &Limits::default());
            assert_eq!(tree, Ok::<Tree, _>(tree!({"result": 3})));
        }
        Kind::Error => assert_eq!(RemoteError::decode(body), Ok(error())),
        Kind::Data if header.is_shared() => assert_eq!(Extent::decode(body), Ok(vec![EXTENT])),
        Kind::Grant => assert!(decode_ids(body).unwrap().eq([4, 5])),
        Kind::Ack => assert!(decode_ids(body).unwrap().eq([4])),
        Kind::Resume => assert_eq!(Resume::decode(body), Ok(resume())),
        Kind::ResumeAnswer => assert_eq!(ResumeAnswer::decode(body), Ok(resume_answer())),
        Kind::Block => assert_eq!(Block::decode(body), Ok(Block { bytes: 1 << 30 })),
        Kind::Goodbye => assert_eq!(Goodbye::decode(header, body), Ok(goodbye())),
        Kind::Data | Kind::Abort | Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong | Kind::Release => {}
    }
}

/// Computes CRC32C bit by bit, as the page describes it.
fn teleport_crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

#[test]
fn the_checksum_matches_the_page() {
    assert_eq!(teleport_crc(b"123456789"), 0xE306_9283);
    assert_eq!(Header::of_body(Kind::Goodbye, 0, b"123456789").body_crc, 0xE306_9283);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

//! Peers that speak another protocol, send noise, or send nothing.

use teleport::tree;
use teleport::wire::{Kind, Preface};
use teleport_tests::{Random, Raw};

use crate::case::{Case, cases, stranger, strangers};
use crate::made::{echo, frame};

/// Returns random bytes, more than any handshake has.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let len = 200 + random.below(1 << 16);
    random.bytes(len)
}

fn handshake() -> Vec<u8> {
    [&Preface::BYTES[..], &frame(Kind::Hello, 0, &Raw::hello().encode())].concat()
}

fn an_http_request() -> Case {
    stranger("speaks HTTP", *b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
}

fn a_tls_hello() -> Case {
    let mut hello = vec![0x16, 0x03, 0x01, 0x00, 0xC4, 0x01, 0x00, 0x00, 0xC0, 0x03, 0x03];
    hello.extend([0x5A; 186]);
    stranger("speaks TLS", hello)
}

fn a_zeromq_greeting() -> Case {
    let mut greeting = vec![0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F];
    greeting.extend([3, 1]);
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    stranger("speaks ZeroMQ", greeting)
}

fn another_version() -> Case {
    let mut preface = Preface::BYTES;
    preface[8] = 2;
    stranger("version 2", preface)
}

fn random_bytes() -> Case {
    let mut random = Random::from_environment();
    strangers("does not keep to the protocol", (0..30).map(|_| some_bytes(&mut random)).collect())
}

fn random_bytes_after_a_good_handshake() -> Case {
    let mut random = Random::from_environment();
    let noise: Vec<Vec<u8>> = (0..30).map(|_| some_bytes(&mut random)).collect();
    Case::times("does not keep to the protocol", noise.len(), move |address, nth| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&noise[nth]);
        peer.until_silent_end();
    })
}

fn a_good_session_with_one_random_byte_changed() -> Case {
    let mut random = Random::from_environment();
    let message = echo(&tree!({"text": "hello", "bytes": (vec![1u8; 100]), "list": [1, 2, null]}));
    let mut session = handshake();
    session.extend(message.header(1, true));
    session.extend(message.metadata());
    let sessions: Vec<Vec<u8>> = (0..30)
        .map(|_| {
            let mut bytes = session.clone();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            bytes
        })
        .collect();
    Case::times("a connection ended", sessions.len(), move |address, nth| {
        let mut peer = Raw::connect(address);
        peer.send(&sessions[nth]);
        // A changed hello may still be valid, but its checksum is wrong.
        peer.finish();
        peer.until_silent_end();
    })
}

fn a_preface_cut_short() -> Case {
    Case::new("the connection broke", |address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES[..7]);
        peer.finish();
        peer.until_silent_end();
    })
}

fn a_preface_and_no_more() -> Case {
    Case::new("no hello within", |address| {
        let mut peer = Raw::connect(address);
        peer.send(&Preface::BYTES);
        peer.until_silent_end();
    })
}

cases![
    an_http_request,
    a_tls_hello,
    a_zeromq_greeting,
    another_version,
    random_bytes,
    random_bytes_after_a_good_handshake,
    a_good_session_with_one_random_byte_changed,
    a_preface_cut_short,
    a_preface_and_no_more,
];

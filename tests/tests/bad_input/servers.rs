//! Bad input from a server to a client.

use std::net::TcpListener;
use std::sync::Arc;

use teleport::wire::{ErrorKind, Goodbye, Header, Kind, Limits, Message, Ran, RemoteError, encode_ids};
use teleport::{CallError, Client, tree};
use teleport_tests::{Random, Raw, watched};

use crate::made::{NOBODY, array_signature, frame, good_frame};

/// Makes a call to a server that answers with `harm`. Returns the error of the call.
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
    check_liar_server("which is not open", |raw| {
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

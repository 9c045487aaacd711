//! Tests of the proxy between two plain sockets of each kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use teleport::wire::{Header, Preface};

use super::{Cut, Proxy, Toward};
use crate::scratch::abstract_address;
use crate::watch::{until, watched};

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// Both ends of a connection through a proxy.
struct Pair {
    proxy: Proxy,
    client: Box<dyn Stream>,
    server: Box<dyn Stream>,
}

fn tcp() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&format!("tcp://{}", listener.local_addr().unwrap()));
    let client = TcpStream::connect(proxy.address().strip_prefix("tcp://").unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    Pair { proxy, client: Box::new(client), server: Box::new(server) }
}

fn unix() -> Pair {
    let name =
        |address: &str| SocketAddr::from_abstract_name(address.strip_prefix("ipc://@").unwrap()).unwrap();
    let address = abstract_address();
    let listener = UnixListener::bind_addr(&name(&address)).unwrap();
    let proxy = Proxy::start(&address);
    let client = UnixStream::connect_addr(&name(&proxy.address())).unwrap();
    let (server, _) = listener.accept().unwrap();
    Pair { proxy, client: Box::new(client), server: Box::new(server) }
}

fn for_each_sort(check: impl Fn(Pair) + Send + 'static) {
    watched(move || {
        check(tcp());
        check(unix());
    });
}

fn expect(stream: &mut dyn Stream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found, bytes);
}

/// Reads to the end. Returns the bytes and the result of the last read.
fn rest(stream: &mut dyn Stream) -> (Vec<u8>, io::Result<()>) {
    let mut found = Vec::new();
    let end = stream.read_to_end(&mut found).map(drop);
    (found, end)
}

#[test]
fn bytes_and_ends_pass_both_ways() {
    for_each_sort(|mut pair| {
        pair.client.write_all(b"ping").unwrap();
        expect(&mut *pair.server, b"ping");
        pair.server.write_all(b"pong").unwrap();
        expect(&mut *pair.client, b"pong");
        assert_eq!((pair.proxy.connections(), pair.proxy.open(), pair.proxy.cuts()), (1, 1, 0));
        assert_eq!((pair.proxy.bytes(Toward::Server), pair.proxy.bytes(Toward::Client)), (4, 4));
        pair.server.write_all(b"last").unwrap();
        drop(pair.server);
        assert_eq!(rest(&mut *pair.client).0, b"last");
        drop(pair.client);
        until("the connection is over", || pair.proxy.open() == 0);
    });
}

#[test]
fn a_stalled_proxy_delivers_later() {
    for_each_sort(|mut pair| {
        pair.proxy.stall();
        pair.client.write_all(b"late").unwrap();
        pair.proxy.resume();
        expect(&mut *pair.server, b"late");
        pair.proxy.stall_toward(Toward::Server);
        pair.client.write_all(b"later").unwrap();
        pair.server.write_all(b"at once").unwrap();
        expect(&mut *pair.client, b"at once");
        assert_eq!(pair.proxy.bytes(Toward::Server), 4, "the proxy read while it was stalled");
        pair.proxy.heal();
        expect(&mut *pair.server, b"later");
    });
}

#[test]
fn one_direction_stalls_in_the_middle_of_payload() {
    for_each_sort(|mut pair| {
        let chunk = [&Header::data(1, 1 << 20, None).encode()[..], &vec![7; 1 << 20]].concat();
        pair.proxy.stall_after_payload(Toward::Server, 500_000);
        let mut sender = pair.client;
        let sending = thread::spawn(move || {
            sender.write_all(&[&Preface::BYTES[..], &chunk].concat()).unwrap();
            sender
        });
        until("the direction is stalled", || pair.proxy.is_stalled(Toward::Server));
        assert!((500_000..1 << 20).contains(&pair.proxy.payload_bytes(Toward::Server)));
        pair.server.write_all(b"the other way").unwrap();
        pair.proxy.resume();
        expect(&mut *pair.server, &[&Preface::BYTES[..], &Header::data(1, 1 << 20, None).encode()].concat());
        expect(&mut *pair.server, &vec![7; 1 << 20]);
        expect(&mut *sending.join().unwrap(), b"the other way");
    });
}

#[test]
fn discarded_bytes_are_never_delivered() {
    for_each_sort(|mut pair| {
        pair.proxy.swallow();
        pair.client.write_all(b"lost").unwrap();
        until("the bytes are discarded", || pair.proxy.bytes(Toward::Server) == 4);
        pair.proxy.heal();
        pair.client.write_all(b"found").unwrap();
        expect(&mut *pair.server, b"found");
    });
}

#[test]
fn a_cut_ends_both_sides() {
    for_each_sort(|mut pair| {
        pair.proxy.cut(Cut::End);
        assert_eq!(rest(&mut *pair.client).0, b"");
        assert_eq!(rest(&mut *pair.server).0, b"");
        until("the connection is over", || pair.proxy.open() == 0);
        assert_eq!(pair.proxy.cuts(), 1);
    });
}

#[test]
fn a_reset_is_an_error_over_tcp() {
    watched(|| {
        let mut pair = tcp();
        pair.proxy.cut(Cut::Reset);
        for stream in [&mut pair.client, &mut pair.server] {
            assert_eq!(rest(&mut **stream).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_connection_is_cut_after_the_drawn_number_of_bytes() {
    for_each_sort(|mut pair| {
        pair.proxy.cut_every(1000..1001, 7);
        let mut sender = pair.client;
        let sending = thread::spawn(move || {
            // The connection may end before everything is sent.
            let _ = sender.write_all(&[1; 100_000]);
            sender
        });
        assert_eq!(rest(&mut *pair.server).0, [1; 1000]);
        until("the connection is over", || pair.proxy.open() == 0);
        assert_eq!(pair.proxy.cuts(), 1);
        drop(sending.join().unwrap());
    });
}

#[test]
fn slow_and_split_streams_arrive_whole() {
    for_each_sort(|mut pair| {
        pair.proxy.split(3);
        pair.proxy.limit_rate(2000);
        pair.proxy.delay(Duration::from_millis(10));
        let text: Vec<u8> = (0..200).collect();
        pair.client.write_all(&text).unwrap();
        expect(&mut *pair.server, &text);
        pair.proxy.heal();
        pair.client.write_all(&text).unwrap();
        expect(&mut *pair.server, &text);
    });
}

#[test]
fn one_bit_of_payload_is_flipped() {
    for_each_sort(|mut pair| {
        let chunk = |text: &[u8]| [&Header::data(1, text.len() as u64, None).encode()[..], text].concat();
        let stream = [&Preface::BYTES[..], &chunk(b"abc"), &chunk(b"def")].concat();
        pair.proxy.corrupt_payload(Toward::Server, 4);
        pair.client.write_all(&stream).unwrap();
        let mut changed = stream.clone();
        *changed.iter_mut().rev().nth(1).unwrap() ^= 0x10;
        expect(&mut *pair.server, &changed);
        pair.proxy.corrupt_byte(Toward::Server, 1);
        pair.client.write_all(b"abc").unwrap();
        expect(&mut *pair.server, b"arc");
        pair.client.write_all(b"abc").unwrap();
        expect(&mut *pair.server, b"abc");
        assert_eq!(pair.proxy.payload_bytes(Toward::Server), 6);
    });
}

#[test]
fn a_connection_closes_without_a_server_and_reaches_a_redirected_one() {
    watched(|| {
        let proxy = Proxy::start(&abstract_address());
        let name = SocketAddr::from_abstract_name(proxy.address().strip_prefix("ipc://@").unwrap()).unwrap();
        let mut client = UnixStream::connect_addr(&name).unwrap();
        assert_eq!(rest(&mut client).0, b"");
        let address = abstract_address();
        let listener = UnixListener::bind_addr(
            &SocketAddr::from_abstract_name(address.strip_prefix("ipc://@").unwrap()).unwrap(),
        );
        proxy.redirect(&address);
        let mut client = UnixStream::connect_addr(&name).unwrap();
        let (mut server, _) = listener.unwrap().accept().unwrap();
        client.write_all(b"found").unwrap();
        expect(&mut server, b"found");
    });
}

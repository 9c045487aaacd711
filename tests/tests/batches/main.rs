//! Batched methods among functions that do badly, clients that crawl, vanish and never repeat themselves, and networks that
//! break: each gets its own row or its own error, all others are served, and nothing is left behind.
//!
//! - `functions`: results that are none, and panics
//! - `crowd`: a hundred clients that send a byte now and then, and calls that are never alike
//! - `networks`: calls whose connection, or whose time, ends before they are whole
//! - `exact`: batches that do not become full
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod crowd;
mod exact;
mod functions;
mod networks;

use std::sync::{Mutex, PoisonError};

use teleport::{Array, Client, Server, ServerHandle, Tree};
use teleport_tests::{abstract_address, until, watched};

/// Runs a test for both kinds of sockets. All tests share the memory of the process, which some look at, so they run one by
/// one.
fn for_each_address(check: impl Fn(&str) + Send + 'static) {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    watched(move || {
        check("tcp://127.0.0.1:0");
        check(&abstract_address());
    });
}

fn bind(address: &str) -> Server {
    Server::bind(address).unwrap().workers(1)
}

fn connect(server: &ServerHandle, max_inflight: usize) -> Client {
    Client::builder(&server.address().to_string()).max_inflight(max_inflight).connect().unwrap()
}

/// Bytes that tell rows apart, also where one was moved to the place of another.
fn bytes(number: usize, len: usize) -> Vec<u8> {
    const PERIOD: usize = 7 << 8;
    let mut bytes: Vec<u8> = (0..PERIOD).map(|at| (at / 7 + number * 31) as u8).collect();
    // Copied: without optimization, each byte that is computed takes its time.
    bytes = bytes.repeat(len.div_ceil(PERIOD));
    bytes.truncate(len);
    bytes
}

fn row(number: usize, len: usize) -> Tree {
    Tree::from(Array::from(bytes(number, len)))
}

/// Waits until no call of the method is left, and nothing that any has brought.
#[track_caller]
fn nothing_is_left(server: &ServerHandle, method: &str) {
    until("no call is left", || server.batches(method).unwrap().waiting == 0);
    until("its memory is given back", || server.stats().held_bytes == 0);
}

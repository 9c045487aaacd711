//! Batched methods with bad functions, slow or vanishing clients, ever new signatures, and broken networks.
//! Each call gets its own row or its own error, other calls are not affected, and no memory is left in use.
//!
//! - `functions`: invalid results and panics
//! - `crowd`: a hundred clients that send a byte now and then, and calls whose signatures never repeat
//! - `networks`: calls whose connection or time ends before they are complete
//! - `exact`: batches that do not become full
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod crowd;
mod exact;
mod functions;
mod networks;

use std::sync::{Mutex, PoisonError};

use teleport::{Array, Client, Server, ServerHandle, Tree};
use teleport_tests::{abstract_address, until, watched};

/// Runs a test for both kinds of sockets. Some tests measure the memory of the process, so only one runs at a
/// time.
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

/// Returns bytes that differ between rows, to detect that one overwrote another.
fn bytes(number: usize, len: usize) -> Vec<u8> {
    const PERIOD: usize = 7 << 8;
    let mut bytes: Vec<u8> = (0..PERIOD).map(|at| (at / 7 + number * 31) as u8).collect();
    // Copied, since computing each byte is slow without optimization.
    bytes = bytes.repeat(len.div_ceil(PERIOD));
    bytes.truncate(len);
    bytes
}

fn row(number: usize, len: usize) -> Tree {
    Tree::from(Array::from(bytes(number, len)))
}

/// Waits until no call of the method is waiting and all memory of calls is freed.
#[track_caller]
fn nothing_is_left(server: &ServerHandle, method: &str) {
    until("no call is left", || server.batches(method).unwrap().waiting == 0);
    until("its memory is freed", || server.stats().held_bytes == 0);
}

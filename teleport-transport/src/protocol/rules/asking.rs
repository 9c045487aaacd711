//! The questions to the gate about each call, and the locks that are held meanwhile.

use std::io::IoSliceMut;

use parking_lot::Mutex;
use teleport_wire::{Order, Signature};

use super::placing::new_slab;
use super::*;
use crate::memory::rows::{Rows, Ticket};

/// How often each question was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    admit: u32,
    admit_again: u32,
    has_rows: u32,
    admit_tree: u32,
    place: u32,
    abandoned: u32,
}

struct State {
    outbound: Mutex<Outbound>,
    asked: Mutex<Asked>,
    is_closing: Mutex<bool>,
}

/// A gate that checks that nobody holds the sending half when rows are taken or dropped. The method `row` has
/// rows.
#[derive(Clone)]
struct Asking(Arc<State>);

impl Asking {
    fn count(&self, question: impl FnOnce(&mut Asked) -> &mut u32) {
        *question(&mut self.0.asked.lock()) += 1;
    }

    fn check_open(&self) -> Result<(), RemoteError> {
        let error = || RemoteError::new(ErrorKind::Closing, Ran::No, "the server is closing");
        if *self.0.is_closing.lock() { Err(error()) } else { Ok(()) }
    }

    fn check_unlocked(&self) {
        assert!(self.0.outbound.try_lock().is_some(), "the batcher's lock precedes the sending half");
    }

    fn take_asked(&self) -> Asked {
        std::mem::take(&mut self.0.asked.lock())
    }
}

impl Gate for Asking {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        self.count(|asked| &mut asked.admit);
        self.check_open().map(|()| u32::from(method == "row"))
    }

    fn admit_again(&self, _slot: u32) -> Result<(), RemoteError> {
        self.count(|asked| &mut asked.admit_again);
        self.check_open()
    }

    fn has_rows(&self, slot: u32) -> bool {
        self.count(|asked| &mut asked.has_rows);
        slot == 1
    }

    fn admit_tree(&self, _slot: u32, _signature: &Arc<Signature>) -> Result<(), RemoteError> {
        self.count(|asked| &mut asked.admit_tree);
        self.check_unlocked();
        Ok(())
    }

    fn place(
        &self,
        _slot: u32,
        signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        self.count(|asked| &mut asked.place);
        self.check_unlocked();
        Ok(Some(Ticket::new(new_slab(signature).claim(0), 0, Arc::new(self.clone()))))
    }
}

impl Rows for Asking {
    fn abandoned(&self, _key: u64) {
        self.count(|asked| &mut asked.abandoned);
        self.check_unlocked();
    }
}

struct Server {
    inbound: Inbound,
    gate: Asking,
    events: Vec<Event>,
}

impl Server {
    fn new() -> Server {
        let (inbound, outbound) =
            halves(Role::Server, &Arc::new(Config::default()), None, Instant::now(), || {});
        let (asked, is_closing) = (Mutex::default(), Mutex::new(false));
        let state = State { outbound: Mutex::new(outbound), asked, is_closing };
        let mut server = Server { inbound, gate: Asking(Arc::new(state)), events: Vec::new() };
        server.feed(&[introduction(0)], usize::MAX);
        server.events.clear();
        server
    }

    /// Receives frames in pieces of at most `piece_bytes`.
    fn feed(&mut self, frames: &[Vec<u8>], piece_bytes: usize) {
        for mut piece in frames.concat().chunks(piece_bytes.min(64 << 10)) {
            while !piece.is_empty() {
                let read = |slices: &mut [IoSliceMut<'_>]| io::Read::read_vectored(&mut piece, slices);
                let (now, gate, events) = (Instant::now(), &self.gate, &mut self.events);
                let outbound = &gate.0.outbound;
                let received =
                    self.inbound.on_readable(now, &mut [0; 64 << 10], outbound, gate, events, read);
                received.expect("the rules are kept");
            }
        }
    }

    /// Returns the calls that arrived, and completes their rows.
    fn calls(&mut self) -> Vec<u64> {
        let ids = |event: Event| match event {
            Event::Call(call) => {
                let _ = call.row.map(Ticket::complete);
                Some(call.id)
            }
            _ => None,
        };
        self.events.drain(..).filter_map(ids).collect()
    }
}

fn whole(id: u64, method: &str) -> Vec<u8> {
    [call(id, method, 100, true), data(id, 100)].concat()
}

/// Pieces in which calls arrive whole, or not.
const PIECES: [usize; 2] = [usize::MAX, 50];

#[test]
fn a_repeated_call_asks_only_what_may_have_changed() {
    for piece_bytes in PIECES {
        let mut server = Server::new();
        server.feed(&[whole(1, "m"), whole(2, "m"), whole(3, "m")], piece_bytes);
        let expected = Asked { admit: 1, admit_again: 2, has_rows: 1, ..Asked::default() };
        assert_eq!((server.calls(), server.gate.take_asked()), (vec![1, 2, 3], expected));
        server.feed(&[whole(4, "row"), whole(5, "m"), whole(6, "row")], piece_bytes);
        let expected = Asked { admit: 1, admit_again: 2, has_rows: 1, admit_tree: 2, place: 2, abandoned: 0 };
        assert_eq!((server.calls(), server.gate.take_asked()), (vec![4, 5, 6], expected));
    }
}

#[test]
fn a_repeated_call_is_refused_once_the_gate_closes() {
    for piece_bytes in PIECES {
        let mut server = Server::new();
        server.feed(&[whole(1, "m"), whole(2, "row")], piece_bytes);
        *server.gate.0.is_closing.lock() = true;
        server.feed(&[whole(3, "m"), whole(4, "row"), whole(5, "n")], piece_bytes);
        assert_eq!((server.calls(), server.inbound.unfinished()), (vec![1, 2], 0));
        let open_calls = |server: &Server| server.gate.0.outbound.lock().open_calls();
        assert_eq!(open_calls(&server), 2, "three are answered");
        *server.gate.0.is_closing.lock() = false;
        server.feed(&[whole(6, "m")], piece_bytes);
        assert_eq!((server.calls(), open_calls(&server)), (vec![6], 3));
    }
}

#[test]
fn rows_are_dropped_with_the_sending_half_unlocked() {
    let mut server = Server::new();
    // Grants and pings lock the sending half first. The rows end by an abort and by a wrong checksum.
    let begun = |id| [empty(Kind::Ping, id), call(id, "row", 100, true), data(id, 60), empty(Kind::Ping, id)];
    server.feed(&begun(1), usize::MAX);
    server.feed(&[empty(Kind::Ping, 1), empty(Kind::Abort, 1)], usize::MAX);
    assert_eq!(server.gate.take_asked().abandoned, 1);
    server.feed(&begun(2), usize::MAX);
    server.feed(&[empty(Kind::Ping, 2), corrupt_data(2, 40), empty(Kind::Ping, 2)], usize::MAX);
    assert!(server.calls().is_empty());
    assert_eq!(server.gate.take_asked().abandoned, 1);
    server.feed(&begun(3), usize::MAX);
    server.inbound.discard();
    assert_eq!(server.gate.take_asked().abandoned, 1);
}

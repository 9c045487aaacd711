//! A case: one kind of bad input, which one client or many clients at once can send.
//!
//! A file of cases has a function for each case and lists them in [`cases!`], which makes a test of each and
//! a list for the `crowd`.

use std::sync::OnceLock;

use teleport::wire::{ErrorKind, Goodbye, Kind};
use teleport_tests::Raw;

/// The action of a case. It takes the server's address.
type Harm = Box<dyn Fn(&str, Nth) + Send + Sync>;

/// One repetition of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nth {
    /// The number of earlier repetitions.
    pub(crate) number: usize,
    /// True if many clients do it at the same time.
    pub(crate) is_in_a_crowd: bool,
}

/// The number of ids that each peer of a crowd sends in a flood, more than the 4,096 calls that it may have
/// open.
const IDS_IN_A_CROWD: u64 = 4500;

/// Bad input to a server.
pub(crate) struct Case {
    /// A part of the line that the case causes in the server's log, or `None` if it causes no line.
    pub(crate) line: Option<&'static str>,
    /// The number of repetitions, in sequence, if the case runs alone.
    pub(crate) times: usize,
    /// Does the case on one connection.
    pub(crate) harm: Harm,
}

impl Case {
    /// Does `harm` once. The server logs a line that contains `line`.
    pub(crate) fn new(line: &'static str, harm: impl Fn(&str) + Send + Sync + 'static) -> Case {
        Case::times(line, 1, move |address, _| harm(address))
    }

    /// Does `harm` `times` times. The server logs a line for each.
    pub(crate) fn times(
        line: &'static str,
        times: usize,
        harm: impl Fn(&str, usize) + Send + Sync + 'static,
    ) -> Case {
        Case { line: Some(line), times, harm: Box::new(move |address, nth| harm(address, nth.number)) }
    }

    /// Does `harm`, for which the server logs no line.
    pub(crate) fn unnoticed(harm: impl Fn(&str) + Send + Sync + 'static) -> Case {
        Case { line: None, times: 1, harm: Box::new(move |address, _| harm(address)) }
    }
}

/// A stranger sends `bytes`. The server must close the connection.
pub(crate) fn stranger(line: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    strangers(line, vec![bytes.into()])
}

/// Does the same as [`stranger`] for each of `bytes`, on a connection of its own.
pub(crate) fn strangers(line: &'static str, bytes: Vec<Vec<u8>>) -> Case {
    Case::times(line, bytes.len(), move |address, nth| {
        let mut peer = Raw::connect(address);
        peer.send(&bytes[nth]);
        // The stranger ignores the handshake that the server may have sent before it rejected the bytes.
        peer.until_silent_end();
    })
}

/// A client breaks a rule after a good handshake. The server must send a goodbye and close the connection.
pub(crate) fn liar(line: &'static str, harm: impl Fn(&mut Raw) + Send + Sync + 'static) -> Case {
    Case::new(line, move |address| {
        let (mut peer, _) = Raw::introduced(address);
        harm(&mut peer);
        is_sent_away(&mut peer, line);
    })
}

/// Does the same as [`liar`] for each of `lies`, on a connection of its own.
pub(crate) fn liars(line: &'static str, lies: Vec<Vec<u8>>) -> Case {
    Case::times(line, lies.len(), move |address, nth| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&lies[nth]);
        is_sent_away(&mut peer, line);
    })
}

/// Checks that the server closes the connection with a goodbye that contains `reason`.
pub(crate) fn is_sent_away(peer: &mut Raw, reason: &str) {
    let frames = peer.until_closed();
    // The kernel may drop the goodbye, if the server closed before it had read everything.
    if let Some(goodbye) = frames.last().filter(|frame| frame.header.kind == Kind::Goodbye) {
        let goodbye = Goodbye::decode(&goodbye.header, &goodbye.body).unwrap();
        assert_eq!(goodbye.kind, Some(ErrorKind::Protocol), "{}", goodbye.reason);
        assert!(goodbye.reason.contains(reason), "{}\nhas no {reason:?}", goodbye.reason);
    }
}

/// A client sends `make(id)` for each id, reads nothing, and leaves when the server reads no more. The server
/// may close the connection or stop reading. Its memory is checked as for every case.
pub(crate) fn flood(ids: u64, make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Case {
    flood_after("a connection ended", |_| {}, ids, make)
}

/// Does the same as [`flood`] after `before` on the same connection, with another line in the log.
pub(crate) fn flood_after(
    line: &'static str,
    before: impl Fn(&mut Raw) + Send + Sync + 'static,
    ids: u64,
    make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    // Made once, so that a crowd leaves the server enough processor time.
    let crowds = OnceLock::new();
    let harm = move |address: &str, nth: Nth| {
        let (mut peer, _) = Raw::introduced(address);
        before(&mut peer);
        if nth.is_in_a_crowd {
            peer.pour(crowds.get_or_init(|| (1..=IDS_IN_A_CROWD).flat_map(&make).collect::<Vec<u8>>()));
        } else {
            peer.flood(ids, &make);
        }
    };
    Case { line: Some(line), times: 1, harm: Box::new(harm) }
}

/// Makes a test of each case of a file, which does it alone, and a list of all.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this file by name.
        pub(crate) const CASES: &[(&str, fn() -> Case)] = &[$((stringify!($name), $name)),*];

        mod alone {
            $(
                #[test]
                fn $name() {
                    crate::alone(super::$name);
                }
            )*
        }
    };
}
pub(crate) use cases;

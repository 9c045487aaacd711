//! One bad thing that a client can do, which can be done by one or by many.
//!
//! A file of cases has a function for each and lists them in [`cases!`], which makes a test of each and gives them all to
//! the crowd.

use std::sync::OnceLock;

use teleport::wire::{ErrorKind, Goodbye, Kind};
use teleport_tests::Raw;

/// Gets a server's address.
type Harm = Box<dyn Fn(&str, Nth) + Send + Sync>;

/// One of the times that a case is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nth {
    /// How often it was done before.
    pub(crate) number: usize,
    /// Whether many do it at the same time.
    pub(crate) is_in_a_crowd: bool,
}

/// How many ids each peer of a crowd makes a flood of. These are more calls than it may have open, 4,096.
const IDS_IN_A_CROWD: u64 = 4500;

/// Something bad that is done to a server.
pub(crate) struct Case {
    /// What stands in the line that it leaves in the server's log; none if it leaves no line.
    pub(crate) line: Option<&'static str>,
    /// How often it is done, in a row, where it is done alone.
    pub(crate) times: usize,
    /// Does it on one connection.
    pub(crate) harm: Harm,
}

impl Case {
    /// Does `harm` once; the server's log gets a line with `line` in it.
    pub(crate) fn new(line: &'static str, harm: impl Fn(&str) + Send + Sync + 'static) -> Case {
        Case::times(line, 1, move |address, _| harm(address))
    }

    /// Does `harm` so often, and each leaves a line.
    pub(crate) fn times(
        line: &'static str,
        times: usize,
        harm: impl Fn(&str, usize) + Send + Sync + 'static,
    ) -> Case {
        Case { line: Some(line), times, harm: Box::new(move |address, nth| harm(address, nth.number)) }
    }

    /// Does what is no reason for a line in the log.
    pub(crate) fn unnoticed(harm: impl Fn(&str) + Send + Sync + 'static) -> Case {
        Case { line: None, times: 1, harm: Box::new(move |address, _| harm(address)) }
    }
}

/// A stranger sends `bytes` and must find the connection closed.
pub(crate) fn stranger(line: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    strangers(line, vec![bytes.into()])
}

/// As [`stranger`], once for each of `bytes`, on a connection of its own.
pub(crate) fn strangers(line: &'static str, bytes: Vec<Vec<u8>>) -> Case {
    Case::times(line, bytes.len(), move |address, nth| {
        let mut peer = Raw::connect(address);
        peer.send(&bytes[nth]);
        // It does not understand the introduction that the server may have sent before it knew better.
        peer.until_silent_end();
    })
}

/// A client that was introduced breaks a rule: it must be told so and find the connection closed.
pub(crate) fn liar(line: &'static str, harm: impl Fn(&mut Raw) + Send + Sync + 'static) -> Case {
    Case::new(line, move |address| {
        let (mut peer, _) = Raw::introduced(address);
        harm(&mut peer);
        is_sent_away(&mut peer, line);
    })
}

/// As [`liar`], once for each of `lies`, on a connection of its own.
pub(crate) fn liars(line: &'static str, lies: Vec<Vec<u8>>) -> Case {
    Case::times(line, lies.len(), move |address, nth| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&lies[nth]);
        is_sent_away(&mut peer, line);
    })
}

pub(crate) fn is_sent_away(peer: &mut Raw, reason: &str) {
    let frames = peer.until_closed();
    // Without one the system dropped it, since bytes were under way that the server never read.
    if let Some(goodbye) = frames.last().filter(|frame| frame.header.kind == Kind::Goodbye) {
        let goodbye = Goodbye::decode(&goodbye.header, &goodbye.body).unwrap();
        assert_eq!(goodbye.kind, Some(ErrorKind::Protocol), "{}", goodbye.reason);
        assert!(goodbye.reason.contains(reason), "{}\nhas no {reason:?}", goodbye.reason);
    }
}

/// A client sends what `make` gives for each id, reads nothing, and goes when the server takes no more. The server may
/// close the connection or stop reading; its memory is checked as for every case.
pub(crate) fn flood(ids: u64, make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Case {
    flood_after("a connection ended", |_| {}, ids, make)
}

/// As [`flood`], after `before` was done on the same connection, with another line in the log.
pub(crate) fn flood_after(
    line: &'static str,
    before: impl Fn(&mut Raw) + Send + Sync + 'static,
    ids: u64,
    make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    // Made once, so that a crowd does not take the processor from the server that it is to harm.
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

/// The cases of a file: each becomes a test that does it alone.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// By name.
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

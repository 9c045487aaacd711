//! The state machine of a connection, driven by operations. There are two ends that keep the rules, or
//! one end against frames made by hand, most of them legal and some not.
//!
//! Any bytes are a valid run. A panic is a bug of the crate. There are no sockets, clocks or threads.

#![allow(clippy::expect_used, reason = "a panic is how a target reports what it found")]

mod end;
mod lone;
mod pair;
mod session;

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::Config;
use teleport_transport::wire::{Array, CallHead, ErrorKind, Id128, Limits, Message, Ran, RemoteError, Tree};

/// Reads the kind of run and its configuration from the first bytes of `data`, and operations from the
/// rest.
pub(crate) fn connection(data: &[u8]) {
    let mut input = Input(data);
    match input.below(2) {
        0 => pair::run(&mut input),
        _ => lone::run(&mut input),
    }
}

/// Choices that are read from an input. They are zeros once the input is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    /// Picks one of the items, if there are any.
    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    /// Returns a size at or near one where behaviour changes.
    fn bytes(&mut self) -> usize {
        const SIZES: [usize; 10] = [0, 1, 63, 64, 65, 1000, 5000, 65_536, 65_537, 200_000];
        SIZES[self.below(SIZES.len())]
    }
}

/// The session of a client whose calls can survive their connection. One run in two has it.
const SESSION: Id128 = Id128([7; 16]);

/// A silence that no connection survives. Time is an operation, and only one operation takes this long.
const MAX_SILENCE: Duration = Duration::from_secs(20_000);

fn config(input: &mut Input<'_>) -> Arc<Config> {
    let resumes = input.below(2) == 1;
    Arc::new(Config {
        resume: resumes,
        session: if resumes { SESSION } else { Id128::NONE },
        limits: Limits { max_message_bytes: 1 << 20, ..Limits::default() },
        max_open_calls: input.below(6) as u32,
        max_structure_bytes: if input.below(4) == 0 { 3000 } else { 64 << 20 },
        eager_credit_bytes: [0, 64, 2000, 70_000, 500_000][input.below(5)],
        checksum: input.below(2) == 1,
        ping_interval: MAX_SILENCE / 1000,
        max_silence: MAX_SILENCE,
        handshake_timeout: MAX_SILENCE,
        ..Config::default()
    })
}

/// Creates a list of up to three arrays.
fn tree(input: &mut Input<'_>) -> Tree {
    let arrays = (0..input.below(4)).map(|_| {
        let fill = input.next();
        Tree::Array(Array::from(vec![fill; input.bytes()]))
    });
    Tree::List(arrays.collect())
}

/// Creates a call. Returns its arguments and its message.
fn call_message(input: &mut Input<'_>) -> (Tree, Message) {
    let (method, tree) = (["echo", "refused"][input.below(4) / 3], tree(input));
    let deadline = (input.below(4) == 0).then(|| Duration::from_millis(input.next().into()));
    let message = call_of(method, &tree, deadline);
    (tree, message)
}

/// Creates a call that asks to survive its connection. It does if both sides can resume.
fn call_of(method: &str, tree: &Tree, deadline: Option<Duration>) -> Message {
    let head = CallHead { deadline, resume: true, ..CallHead::new(method) };
    Message::call(&head, tree, &Limits::default()).expect("three small arrays fit")
}

fn result_message(tree: &Tree) -> Message {
    Message::result(tree, &Limits::default()).expect("three small arrays fit")
}

fn failure() -> RemoteError {
    RemoteError::new(ErrorKind::Failed, Ran::Yes, "it failed")
}

//! Helpers for the integration tests. The tests themselves are in `tests/`, one file for each promise:
//!
//! - `arrays.rs`: arrays of every dtype and shape are echoed without copies
//! - `bad_input/`: malformed and hostile input to the example `serve`, from one peer and from many
//! - `batches/`: batched methods with bad functions, slow or vanishing clients, and broken networks
//! - `bounds.rs`: limits on the memory that clients can make a server hold
//! - `calling.rs`: blocking and async calls from many threads, and the ways in which a call can fail
//! - `coalescing.rs`: small messages that are held back briefly to be sent together
//! - `connecting.rs`: addresses, servers that start late, several servers and clients in one process
//! - `examples.rs`: the output of the README's commands, and their end on Ctrl-C
//! - `faults/`: a proxy that loses, stalls, slows down, cuts and corrupts streams
//! - `liveness.rs`: peers that are stopped, killed, or busy for a long time
//! - `memory.rs`: memory that unread results take at a client
//! - `python.rs`: a client in Python, written from `FORMAT.md`
//! - `resume.rs`: calls that survive their connection
//! - `surface.rs`: the public API of the facade
//! - `processes/`: functions in processes of their own, which leave nothing behind
//! - `kill_proc.rs`, `kill_subprocs.rs`: ending processes that refuse to end
//! - `threads.rs`: threads that are killed while they wait for a server
//! - `forked.rs`: clients and servers in a forked copy of their process
//! - `aborting.rs`: processes and threads of a program that is built with `panic = "abort"`
//!
//! A test starts the examples as processes ([`Program`], [`Serve`]), talks to them through the library
//! ([`Steady`]) or byte by byte ([`Raw`]), puts a bad network between client and server ([`Proxy`]), and
//! waits for an outcome ([`watched`], [`until`]).

mod log;
mod memory;
mod program;
mod proxy;
mod raw;
mod scratch;
mod seed;
mod serve;
mod steady;
mod watch;

pub use log::Log;
pub use memory::{Memory, allow_many_descriptors, descriptors};
pub use program::{Ended, Program, count_marked, example, marked, new_mark, until_marked, until_none_left};
pub use proxy::{Cut, Proxy, Toward};
pub use raw::{Raw, Received};
pub use scratch::{Scratch, abstract_address};
pub use seed::Random;
pub use serve::Serve;
pub use steady::{Steady, Times};
pub use watch::{WATCHDOG, until, watched};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;

#[cfg(doctest)]
#[doc = include_str!("../../teleport/README.md")]
struct FacadeReadmeExamples;

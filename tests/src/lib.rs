//! What the integration tests share. The tests themselves stand in `tests/`, one file for each promise:
//!
//! - `bad_input/`: strangers, liars and vandals against the example `serve`, one at a time and in crowds
//! - `liveness.rs`: peers that are stopped, killed, or busy for long
//! - `faults/`: networks that lose, stall, slow down, cut and corrupt, made by a proxy
//! - `batches/`: batched methods, and what functions, clients and networks do to them
//! - `examples.rs`: what the README's commands print, and that Ctrl-C leaves nothing behind
//! - `python.rs`: a client in another language, written from `FORMAT.md`
//! - `connecting.rs`: addresses, servers that start late, several servers and clients in one process
//! - `calling.rs`: futures, waited for and awaited, from many threads
//! - `gathering.rs`: small messages that are held back for a moment, and leave all the same
//! - `surface.rs`: what the facade's users were promised to be able to write
//! - `resume.rs`: calls that survive their connection, whatever cuts it
//! - `memory.rs`: what results take that nobody reads, and what they never hold up
//! - `threads.rs`: threads that are killed while they wait for a server
//! - `forked.rs`: clients and servers in a process that was forked from theirs
//! - `aborting.rs`: processes and threads of a program whose panics abort
//! - `processes/`: functions in processes of their own, of which nothing is left whoever is killed
//! - `kill_proc.rs`, `kill_subprocs.rs`: ending processes that do not want to
//! - `arrays.rs`: every dtype and shape there and back, without copies
//!
//! A test starts the examples as processes of their own ([`Program`], [`Serve`]), speaks to them as the library does
//! ([`Steady`]) or byte by byte ([`Raw`]), puts a bad network between them ([`Proxy`]), and waits for what must happen ([`watched`], [`until`]).

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

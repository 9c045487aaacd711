//! One connection on one socket, which many threads use.
//!
//! A [`Link`] has two halves. The receiving half ([`reader`]): the event loop, or a thread that waits for an
//! answer, reads a turn and tells the [`Handler`] what came. The sending half ([`writer`]): any thread queues
//! a message and writes it, if no other thread writes. [`closing`] ends both.
//!
//! # Locks
//! In this order: the receiving half, the sending half, the socket. The socket's lock is held by readers and
//! writers for one system call that does not block, by a thread that leads while it sleeps, and exclusively
//! to close the descriptor, which wakes that thread first. Nothing else is held while the network is waited
//! for. Wakers, and destructors of what was sent, run with none of them held: see [`Wakers`](crate::Wakers)
//! and [`deferred_drop`](crate::memory::deferred_drop).
//!
//! Everything that threads must see without a lock is one word, [`Status`](status::Status).

mod block_on;
mod closing;
mod coalesce;
mod cork;
mod handler;
pub(crate) mod interrupt;
#[expect(clippy::module_inception, reason = "a folder for the parts of a link, and the link")]
mod link;
mod memory;
mod notsent_window;
mod port;
mod reader;
mod reader_role;
mod sleeper;
mod source;
mod status;
mod write_token;
mod writer;

pub use self::block_on::block_on;
pub use self::coalesce::flush_coalesced;
pub use self::cork::AnswersTogether;
pub use self::handler::Handler;
pub use self::link::Link;
pub use self::reader_role::ReaderRole;

#[cfg(test)]
mod tests;

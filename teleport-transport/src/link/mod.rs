//! One connection on one socket, which many threads use.
//!
//! A [`Link`] has two halves. The receiving half ([`reader`]) is driven by the event loop, or by a thread
//! that waits for an answer: it reads a turn and passes events to the [`Handler`]. The sending half
//! ([`writer`]) is used by any thread, which queues a message and writes it unless another thread is writing.
//! [`closing`] ends both.
//!
//! # Locks
//! The receiving half is locked before the sending half. Neither is held while a thread waits for the
//! network. The socket has no lock: see [`port`]. Wakers and destructors of sent values run without these
//! locks: see [`Wakers`](crate::Wakers) and [`deferred_drop`](crate::memory::deferred_drop).
//!
//! All state that threads read without a lock is one word, [`Status`](status::Status).

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
mod turn_clock;
mod write_token;
mod writer;

pub use self::block_on::{block_on, needs_wake};
pub use self::coalesce::flush_coalesced;
pub use self::cork::AnswersTogether;
pub use self::handler::{Answers, Calls, Handler};
pub use self::link::Link;
pub use self::reader_role::ReaderRole;
pub use self::turn_clock::{Measured, TurnClock};

#[cfg(test)]
mod tests;

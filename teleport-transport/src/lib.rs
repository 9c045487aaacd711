//! Connections that carry large arrays beside small messages, over TCP and Unix sockets.
//!
//! A [`Poller`] is a thread that moves the bytes of many connections. [`Poller::attach`] gives it a
//! connected [`Socket`] and returns a [`Link`]. Any thread can send on a link; a [`Handler`] receives
//! what arrives. Large payloads are read straight into memory of a [`Pool`], wait for a [`Budget`]
//! before they are sent, and share the connection with small messages chunk by chunk. [`protocol`]
//! decides what a connection does, without sockets or clocks.
//!
//! This layer knows calls and answers, but no methods: `teleport-server` and `teleport-client` are built
//! on it.
//!
//! # Example
//! A server that answers each call with its arguments, and a client that calls it once.
//!
//! ```
//! use std::sync::{Arc, mpsc};
//! use teleport_transport::protocol::{Closed, Gate, Role};
//! use teleport_transport::wire::{CallHead, Hello, Limits, Message, RemoteError, Tree, tree};
//! use teleport_transport::{
//!     AcceptError, Acceptor, Answers, Calls, Config, Handler, Link, Listener, Poller, PollerThread, Socket,
//!     TurnClock, Wakers,
//! };
//!
//! struct Echo;
//! impl Gate for Echo {
//!     fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> { Ok(0) }
//! }
//! impl Handler for Echo {
//!     fn opened(&self, _link: &Arc<Link>, _peer: &Hello) {}
//!     fn called(&self, link: &Arc<Link>, calls: Calls<'_, '_>, _: &mut TurnClock) {
//!         for call in calls {
//!             let tree = call.tree.expect("its strings are UTF-8");
//!             let result = Message::result(&tree, &Limits::default()).expect("it came within the limits");
//!             let _ = link.answer(call.id, result); // fails if the caller is gone
//!         }
//!     }
//!     fn closed(&self, _link: &Arc<Link>, _reason: &Arc<Closed>, _wakers: &mut Wakers) {}
//! }
//!
//! struct Accept(Poller);
//! impl Acceptor for Accept {
//!     fn accepted(&self, socket: Socket) {
//!         let _ = self.0.attach(socket, Role::Server, &Arc::new(Config::default()), None, Arc::new(Echo));
//!     }
//!     fn failed(&self, error: &AcceptError) { eprintln!("{error}") }
//! }
//!
//! struct Print(mpsc::Sender<Tree>, Tree);
//! impl Gate for Print {
//!     fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> { unreachable!() }
//! }
//! impl Handler for Print {
//!     fn opened(&self, link: &Arc<Link>, _peer: &Hello) {
//!         let head = CallHead::new("echo");
//!         let call = Message::call(&head, &self.1, &Limits::default()).expect("it is small");
//!         link.call(call, |_id| true).expect("the link is open");
//!     }
//!     fn answered(&self, _: &Arc<Link>, answers: Answers<'_, '_>, _: &mut Wakers) {
//!         for (_id, answer) in answers {
//!             let reply = answer.expect("echo does not fail");
//!             self.0.send(reply.tree.expect("its strings are UTF-8")).expect("main waits");
//!         }
//!     }
//!     fn closed(&self, _link: &Arc<Link>, _reason: &Arc<Closed>, _wakers: &mut Wakers) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let thread = PollerThread::start("server")?;
//! let listener = Listener::bind(&"tcp://127.0.0.1:0".parse()?)?;
//! let address = listener.address().clone();
//! let listening = thread.poller().listen(listener, Arc::new(Accept(thread.poller().clone())))?;
//!
//! let (sender, receiver) = mpsc::channel();
//! let handler = Arc::new(Print(sender, tree!({"x": [1, 2.5]})));
//! let socket = Socket::connect(&address, None)?;
//! let link = Poller::shared()?.attach(socket, Role::Client, &Arc::new(Config::default()), None, handler)?;
//! assert_eq!(receiver.recv()?, tree!({"x": [1, 2.5]}));
//! link.abort();
//! drop(listening); // before its poller ends
//! # Ok(())
//! # }
//! ```

mod config;
mod fork_guard;
mod link;
mod memory;
mod net;
pub mod protocol;
mod reactor;
mod role;
mod sys;

pub use config::{Config, random_id};
pub use fork_guard::ForkGuard;
pub use link::interrupt::{
    InterruptHook, Interrupted, block_on_interruptible, block_on_or_unwind, unwind_if_interrupted,
};
pub use link::{
    Answers, AnswersTogether, Calls, Handler, Link, Measured, ReaderRole, TurnClock, block_on,
    flush_coalesced, needs_wake,
};
pub use memory::budget::{Budget, Charge, OnGrant};
pub use memory::deferred_drop::{DropScope, drop_later};
pub use memory::machine::machine_memory_bytes;
pub use memory::pool::{MemoryError, Pool, PoolStats};
pub use memory::rows::{Pages, Row, RowMemory, Rows, Slab, Ticket};
pub use memory::user_held::{Lent, Loan};
pub use net::address::{Address, AddressError, AddressProblem, Host, MAX_SOCKET_NAME_BYTES};
pub use net::socket::listener::Listener;
pub use net::socket::{AcceptError, Attempt, BindError, ConnectError, Socket};
pub use protocol::id_table::IdTable;
pub use protocol::{Answer, Call, Lease, Reply};
pub use reactor::accept::Acceptor;
pub use reactor::mailbox::on_poller_thread;
pub use reactor::poller::{Listening, Poller, PollerThread};
pub use reactor::spin::{Spin, hand_over};
pub use reactor::wakers::Wakers;

/// Arrays, trees and the wire format: all of `teleport-wire`.
///
/// This module exists for the feature `derive`: derived code refers to the traits through this crate, so
/// users need no `teleport-wire` in their manifest.
///
/// ```
/// # #[cfg(feature = "derive")]
/// # fn main() -> Result<(), teleport_transport::wire::TreeError> {
/// use teleport_transport::wire::{FromTree, IntoTree, tree};
///
/// #[derive(IntoTree, FromTree)]
/// struct Step {
///     index: u64,
/// }
///
/// assert_eq!(Step::from_tree(tree!({"index": 3}))?.index, 3);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "derive"))]
/// # fn main() {}
/// ```
pub mod wire {
    #[doc(no_inline)]
    pub use teleport_wire::*;

    #[cfg(feature = "derive")]
    pub use teleport_derive::{TransportFromTree as FromTree, TransportIntoTree as IntoTree};
}

//! A client that calls functions of a server with trees of arrays, and gets futures.
//!
//! A [`Client`] is one connection to one server, used from any number of threads. [`Client::call`] creates a
//! [`Call`], which does nothing until it is waited for, sent or awaited. Sending it returns a
//! [`CallFuture`]. Arguments are shared with the caller, not copied, until they are sent. Results are
//! received into memory that belongs to the caller once the future is read.
//!
//! ```text
//! Call -> encode -> slot (max_inflight) -> link -> socket -> ... -> link -> table of calls -> CallFuture
//! ```
//!
//! Each accepted call has exactly one result or error. Its future returns it or, if that was dropped,
//! [`Client::check`]. [`CallError::ran`] returns whether the function ran.
//!
//! # Threads and blocking
//! All clients of a process share one polling thread and one thread for deadlines. While a client has no
//! connection, one more thread connects. Only `connect`, `wait`, `send`, `wait_timeout`, [`wait_all`],
//! [`as_completed`], `close` and dropping the last clone can block, each for a time that its documentation
//! states. With the feature `threads`, a `Thread` of `teleport-proc` that is killed ends in any of them, or
//! while it awaits a call on an executor that it runs itself.
//!
//! # Example
//! ```
//! use teleport_client::wire::{Rpc, tree};
//! use teleport_client::{CallError, Client, wait_all};
//!
//! const ADD: Rpc<(i64, i64), i64> = Rpc::new("add");
//!
//! # mod server {
//! #     //! A server with one method, on the bare transport.
//! #     use std::sync::Arc;
//! #     use teleport_client::transport::protocol::{Closed, Gate, Role};
//! #     use teleport_client::transport::*;
//! #     use teleport_client::wire::*;
//! #     pub struct Add;
//! #     impl Gate for Add {
//! #         fn admit(&self, name: &str, _: u64) -> Result<u32, RemoteError> {
//! #             let text = format!("no method {name:?}");
//! #             let unknown = RemoteError::new(ErrorKind::UnknownMethod, Ran::No, text);
//! #             if name == "add" { Ok(0) } else { Err(unknown) }
//! #         }
//! #     }
//! #     impl Handler for Add {
//! #         fn opened(&self, _: &Arc<Link>, _: &Hello) {}
//! #         fn called(&self, link: &Arc<Link>, calls: Calls<'_, '_>, _: &mut TurnClock) {
//! #             for call in calls {
//! #                 let (a, b): (i64, i64) = FromTree::from_tree(call.tree.unwrap()).unwrap();
//! #                 let sum = Message::result(&tree!(a + b), &Limits::default()).unwrap();
//! #                 let _ = link.answer(call.id, sum);
//! #             }
//! #         }
//! #         fn closed(&self, _: &Arc<Link>, _: &Arc<Closed>, _: &mut Wakers) {}
//! #     }
//! #     pub struct Accept(pub Poller);
//! #     impl Acceptor for Accept {
//! #         fn accepted(&self, socket: Socket) {
//! #             let _ = self.0.attach(socket, Role::Server, &Arc::default(), None, Arc::new(Add));
//! #         }
//! #         fn failed(&self, error: &AcceptError) { panic!("{error}") }
//! #     }
//! #     pub fn start() -> (PollerThread, Listening, String) {
//! #         let thread = PollerThread::start("server").unwrap();
//! #         let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
//! #         let address = listener.address().to_string();
//! #         let accept = Arc::new(Accept(thread.poller().clone()));
//! #         let listening = thread.poller().listen(listener, accept).unwrap();
//! #         (thread, listening, address)
//! #     }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (_thread, _listening, address) = server::start();
//! let client = Client::builder(&address).name("example").connect()?;
//! assert_eq!(client.call(ADD, (1, 2)).wait()?, 3);
//!
//! let futures = (0..8).map(|i| client.call(ADD, (i, i)).send()).collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(wait_all(futures)?, [0, 2, 4, 6, 8, 10, 12, 14]);
//!
//! match client.call("subtract", tree!([1, 2])).wait() {
//!     Err(CallError::Remote(failure)) => assert_eq!(failure.message(), r#"no method "subtract""#),
//!     other => panic!("{other:?}"),
//! }
//! client.close()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod api;
mod calls;
mod connect;
mod engine;
mod error;

pub use api::builder::ClientBuilder;
pub use api::call::{Call, Running};
pub use api::client::Client;
pub use api::collect::{AsCompleted, as_completed, wait_all};
pub use api::future::CallFuture;
pub use api::method::ToMethod;
pub use api::on_disconnect::OnDisconnect;
pub use api::stats::ClientStats;
pub use error::call::{CallError, RemoteFailure};
pub use error::connect::{AttemptError, BoxError, ClientError, ResolveError};
pub use teleport_transport as transport;

/// Arrays, trees and the wire format: all of `teleport-wire`.
///
/// This module exists for the feature `derive`: derived code refers to the traits through this crate, so
/// users need no `teleport-wire` in their manifest.
///
/// ```
/// # #[cfg(feature = "derive")]
/// # fn main() -> Result<(), teleport_client::wire::TreeError> {
/// use teleport_client::wire::{FromTree, IntoTree, tree};
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
    pub use teleport_transport::wire::*;

    #[cfg(feature = "derive")]
    pub use teleport_derive::{ClientFromTree as FromTree, ClientIntoTree as IntoTree};
}

//! A server that binds functions to names and answers calls with trees of arrays.
//!
//! [`Methods`] hold the functions, [`Server`] listens and runs them on its workers, and [`ServerHandle`]
//! observes and closes the running server. Functions take and return any types that trees convert to: plain
//! Rust values, [`Array`](wire::Array)s, or a [`Tree`](wire::Tree). Arrays are received into the memory that
//! the function reads, and sent from the memory that it returns.
//!
//! ```
//! use teleport_server::{BoxError, Context, Method, Methods, Server};
//! use teleport_server::wire::{Array, Tree, tree};
//!
//! fn brighten(mut x: Tree, cx: Context) -> Result<Tree, BoxError> {
//!     let mut image: Array = x.take("image")?; // received in place, and ours to change
//!     for pixel in image.as_mut_slice::<u8>()? {
//!         *pixel = pixel.saturating_add(10);
//!     }
//!     println!("a {:?} image for {}", image.shape(), cx.caller());
//!     Ok(tree!({"image": image}))
//! }
//!
//! # fn main() -> Result<(), BoxError> {
//! let methods = Methods::new()
//!     .register("brighten", brighten)
//!     .register("echo", |x: Tree| x)
//!     .register("save", Method::new(|x: Tree| drop(x)).workers(2)) // a pool of its own
//!     .register("ping", Method::inline(|x: Tree| x)); // on the poller: must not block
//! let server = Server::bind("tcp://127.0.0.1:0")?.workers(4).start(methods)?;
//! println!("listening at {}", server.address());
//! server.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//! A few I/O threads receive and send, each pool has its workers, one thread runs done functions, and a
//! supervisor ends late calls and closes the server. No connection has a thread of its own. Calls run in
//! parallel and may overtake each other. With the feature `threads`, a `Thread` of `teleport-proc` that is
//! killed unwinds when it waits for a server.
//!
//! # Failures
//! A function's error or panic goes to its caller, to [`ServerHandle::check`], and to the log (with
//! `tracing`, target `teleport_server`). The server continues, except with [`Server::stop_on_error`]. A
//! [`Failure`] adds a code to the text that the caller gets. A call of an unknown method or with wrong
//! arguments fails without affecting others.
//!
//! To record where panics happen, the first start of a server adds a panic hook before the hook of the
//! process. With `panic = "abort"`, a panicking function ends the whole process; the log says so at the
//! start.
#![forbid(unsafe_code)]

mod api;
mod batch;
mod call;
mod connection;
mod dispatcher;
mod exec;
mod queue;
mod registry;
mod runtime;
mod session;
#[cfg(test)]
mod tests;
mod threads;

pub use api::batch_options::{Batch, BatchProblem};
pub use api::error::{BoxError, Failure, ServeError};
pub use api::functions::context::{CallOfRow, Context};
pub use api::functions::list::{AllOrNone, Each, IntoReplies, ListFunction};
pub use api::functions::method::{
    Fallible, Function, IntoDone, IntoLogged, IntoMethod, IntoReply, Method, Plain,
};
pub use api::functions::methods::Methods;
pub use api::functions::name::MethodName;
pub use api::handle::{Closer, ServerHandle};
pub use api::server::Server;
pub use api::stats::{BatchStats, Stats};
pub use teleport_transport as transport;

/// Arrays, trees and the wire format: all of `teleport-wire`.
///
/// With the feature `derive`, this module also has the derive macros. The code that they generate names the
/// traits through this crate, so that users need no dependency on `teleport-wire`.
///
/// ```
/// # #[cfg(feature = "derive")]
/// # fn main() -> Result<(), teleport_server::wire::TreeError> {
/// use teleport_server::wire::{FromTree, IntoTree, tree};
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
    pub use teleport_derive::{ServerFromTree as FromTree, ServerIntoTree as IntoTree};
}

/// Runs the README's example as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

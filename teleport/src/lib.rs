//! Send large arrays between processes and machines by remote calls, as fast as the machine moves bytes.
//!
//! A [`Server`] binds functions to names. A [`Client`] calls them and gets futures. Arguments and results
//! are trees: nested dicts and lists of arrays, strings, bytes and nulls. Array bytes are never serialized.
//!
//! ```
//! use teleport::{BoxError, Client, Methods, Server, Tree, tree};
//!
//! # fn main() -> Result<(), BoxError> {
//! let methods = Methods::new().register("add", |x: Tree| -> Result<Tree, BoxError> {
//!     Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
//! });
//! let server = Server::bind("tcp://127.0.0.1:0")?.start(methods)?; // port 0: a free one
//!
//! let client = Client::connect(&server.address().to_string())?;
//! let reply = client.call("add", tree!({"foo": 1, "bar": 1})).wait()?;
//! assert_eq!(reply, tree!({"result": 2}));
//! # Ok(())
//! # }
//! ```
//!
//! # Typed calls
//! With the feature `derive`, structs are arguments and results. One constant is the contract of both sides:
#![cfg_attr(feature = "derive", doc = "```")]
#![cfg_attr(not(feature = "derive"), doc = "```ignore")]
//! use teleport::{Array, BoxError, Client, Context, FromTree, IntoTree, Methods, Rpc, Server};
//!
//! #[derive(IntoTree, FromTree)]
//! struct Obs {
//!     image: Array,
//!     reward: f32,
//! }
//!
//! #[derive(IntoTree, FromTree)]
//! struct Action {
//!     action: Array,
//! }
//!
//! const ACT: Rpc<Obs, Action> = Rpc::new("act");
//!
//! fn act(obs: Obs, cx: Context) -> Result<Action, BoxError> {
//!     let mut action = cx.alloc::<f32>([7])?;
//!     action.as_mut_slice::<f32>()?.fill(obs.reward + obs.image.as_slice::<u8>()?[0] as f32);
//!     Ok(Action { action })
//! }
//!
//! # fn main() -> Result<(), BoxError> {
//! let methods = Methods::new().register(ACT, act); // compiles only with the types of `ACT`
//! let server = Server::bind("tcp://127.0.0.1:0")?.start(methods)?;
//!
//! let client = Client::connect(&server.address().to_string())?;
//! let obs = Obs { image: Array::zeros::<u8>([64, 64, 3]), reward: 0.5 };
//! let Action { action } = client.call(ACT, obs).wait()?;
//! assert_eq!(action.as_slice::<f32>()?, [0.5; 7]);
//! # Ok(())
//! # }
//! ```
//! The derive macros have the names of their traits, [`IntoTree`] and [`FromTree`]. Their documentation
//! states the rules.
//!
//! # Crates
//! This crate re-exports the crates beneath it. Each of them can be used alone.
//! - [`wire`]: arrays, trees and the format, without sockets
//! - [`transport`]: addresses, connections, memory
//! - [`client`] and [`server`]: the two sides
//! - [`proc`]: processes and threads that end with their owner
//!
//! # Features
//! - `derive`: `#[derive(IntoTree, FromTree)]` for structs and enums
//! - `ndarray`: owned `ndarray` arrays in, views out, both without a copy
//! - `half`: `f16` and `bf16` as element types
#![forbid(unsafe_code)]

pub use teleport_client as client;
pub use teleport_proc as proc;
pub use teleport_server as server;
pub use teleport_server::transport;

pub use teleport_client::{
    Call, CallError, CallFuture, Client, ClientBuilder, OnDisconnect, as_completed, wait_all,
};
pub use teleport_proc::{
    Exit, Group, ProcError, Process, Restart, Stop, Thread, checkpoint, free_port, init, init_before_main,
    kill_proc, kill_subprocs, port_free, proc_alive,
};
pub use teleport_server::transport::{Address, Pool};
pub use teleport_server::{
    Batch, BatchStats, BoxError, Context, Method, Methods, ServeError, Server, ServerHandle,
};
pub use wire::{
    Array, Buffer, Complex, DType, Dict, ErrorKind, FromTree, IntoTree, Ran, RemoteError, Rpc, Text, Tree,
    TreeError, tree,
};

/// Arrays, trees and the wire format: all of `teleport-wire`.
///
/// This module exists for the feature `derive`: derived code refers to the traits through this crate, so
/// users need no `teleport-wire` in their manifest.
pub mod wire {
    #[doc(no_inline)]
    pub use teleport_server::transport::wire::*;

    #[cfg(feature = "derive")]
    pub use teleport_derive::{FacadeFromTree as FromTree, FacadeIntoTree as IntoTree};
}

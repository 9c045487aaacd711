//! A client that calls functions of a server with trees of arrays, and gets futures.
#![forbid(unsafe_code)]

mod backoff;
mod builder;
mod call;
mod client;
mod collect;
mod core;
mod dial;
mod error;
mod flight;
mod future;
mod method;
mod pass;
mod resolver;
mod state;
mod stats;
mod timer;

pub use builder::ClientBuilder;
pub use call::{Call, Running};
pub use client::Client;
pub use collect::{AsCompleted, as_completed, wait_all};
pub use error::{AttemptError, CallError, ClientError, RemoteFailure, ResolveError};
pub use future::CallFuture;
pub use method::ToMethod;
pub use stats::ClientStats;
pub use teleport_transport as transport;
pub use teleport_transport::wire;

/// Any error, as resolvers return them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

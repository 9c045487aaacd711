//! The client against a server that sits straight on the transport.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod connecting;
mod ending;
mod memory;
mod owners;
mod support;

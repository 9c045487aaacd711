//! The client against a server that is built directly on the transport.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod connecting;
mod ending;
mod memory;
mod owners;
mod support;

//! The client against a server that sits straight on the transport.

mod calls;
mod connecting;
mod ending;
mod support;

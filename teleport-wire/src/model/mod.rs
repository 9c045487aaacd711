//! The data model: arrays, strings and bytes on counted memory, and trees of them.
//!
//! It does not use the wire format.

pub(crate) mod array;
#[allow(unsafe_code, reason = "the counted memory behind arrays; each block carries its proof")]
pub(crate) mod buffer;
pub(crate) mod convert;
#[cfg(feature = "derive")]
pub(crate) mod derive;
pub(crate) mod dtype;
#[allow(unsafe_code, reason = "`Complex` is plain old data; bytemuck's derive would add two crates for it")]
pub(crate) mod element;
pub(crate) mod macros;
pub(crate) mod quick_hash;
pub(crate) mod rpc;
pub(crate) mod shape;
#[allow(unsafe_code, reason = "UTF-8 is checked once, when a `Text` is made")]
pub(crate) mod text;
pub(crate) mod tree;

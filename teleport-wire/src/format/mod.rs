//! The wire format, described in `FORMAT.md` of this crate: frames, and the trees that they carry.

#[allow(unsafe_code, reason = "the processor's own CRC32C instruction, after a check that it has one")]
pub(crate) mod checksum;
pub(crate) mod decode_error;
pub(crate) mod decoder;
mod dtype_code;
mod encode;
pub(crate) mod encode_error;
pub(crate) mod error_kind;
pub(crate) mod frames;
pub(crate) mod header;
pub(crate) mod hello;
pub(crate) mod limits;
pub(crate) mod message;
pub(crate) mod metadata;
pub(crate) mod order;
pub(crate) mod preface;
mod reader;
mod repeated;
pub(crate) mod signature;
mod tree_bytes;

//! Arrays, trees of arrays, and the bytes that carry them between processes.
//!
//! The data model: a [`Tree`] is a null, an [`Array`], a string, bytes, a list or a dict of trees; an array is a
//! [`DType`], a [`Shape`] and a [`Buffer`] of counted bytes, so that views, rows and received messages share memory
//! instead of copying it. [`IntoTree`] and [`FromTree`] convert Rust values, [`tree!`] writes trees down.
//!
//! The wire format, described in `FORMAT.md` of this crate: a tree becomes a [`Message`], metadata and borrowed
//! payload behind frame [`Header`]s; received metadata becomes a [`Signature`], which says how much memory the payload
//! takes and where it belongs, and makes a tree on that memory. [`Stacked`] puts many messages of one signature into one
//! memory, as arrays with one more axis, and [`StackedResult`] sends such a tree row by row.
//!
//! Nothing here opens a socket, reads a clock or starts a thread.
//!
//! Features: `derive` (`#[derive(IntoTree, FromTree)]` for structs and enums), `half` (`f16` and `bf16` as element types),
//! `ndarray` (owned arrays in, views out, without a copy). None is on by default.
//!
//! ```
//! use teleport_wire::{tree, Array, Tree};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut call = tree!({"image": Array::zeros::<u8>([64, 64, 3]), "reward": 0.5});
//! assert_eq!(call.field::<f64>("reward")?, 0.5);
//! let image: Array = call.take("image")?; // now with one owner: writable in place
//! assert_eq!(image.shape(), [64, 64, 3]);
//! println!("{call}"); // {"reward": 0.5}
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

// Array bytes travel as they lie in memory, and they travel little-endian.
#[cfg(not(target_endian = "little"))]
compile_error!("teleport-wire sends array memory as it is, which must be little-endian");

// ---- Data model ------------------------------------------------------------------------------------------------
mod array;
#[allow(unsafe_code, reason = "the counted memory behind arrays; each block carries its proof")]
mod buffer;
mod convert;
#[cfg(feature = "derive")]
mod derive;
mod dtype;
#[allow(unsafe_code, reason = "`Complex` is plain old data; bytemuck's derive would add two crates for it")]
mod element;
mod macros;
mod rpc;
mod shape;
#[allow(unsafe_code, reason = "UTF-8 is checked once, when a `Text` is made")]
mod text;
mod tree;

pub use array::{Array, ArrayError};
pub use buffer::Buffer;
pub use convert::{FromTree, IntoTree};
#[cfg(feature = "derive")]
#[doc(inline)]
pub use derive::{FromTree, IntoTree};
pub use dtype::{DType, ParseDTypeError, TimeBase, TimeUnit};
pub use element::{Complex, Element};
pub use rpc::Rpc;
pub use shape::Shape;
pub use text::Text;
pub use tree::{Dict, Key, Step, Structure, Tree, TreeError, TreePath};

#[doc(hidden)]
pub mod __private {
    //! What the macros expand to; no part of the public interface.
    #[cfg(feature = "derive")]
    pub use crate::derive::{
        entries, field, field_or_default, item, items, unwrapped_into_tree, wrapped_from_tree,
    };
    pub use crate::macros::{Literal, LiteralIntoTree, empty_list};
}
// ---- End of data model -----------------------------------------------------------------------------------------

// ---- Wire format -----------------------------------------------------------------------------------------------
mod bytes;
#[allow(unsafe_code, reason = "the processor's own instruction, where it was found to have it")]
mod checksum;
mod decode_error;
mod decoder;
mod dtype_code;
mod encode;
mod encode_error;
mod error_kind;
mod frames;
mod header;
mod hello;
mod limits;
mod message;
mod order;
mod preface;
mod quick_hash;
mod reader;
mod signature;
mod stacked_result;

pub use checksum::checksum;
pub use decode_error::DecodeError;
pub use decoder::{Decoder, Sink};
pub use encode_error::EncodeError;
pub use error_kind::{ErrorKind, Ran, RemoteError};
pub use frames::{
    Block, CallAnswer, CallState, Goodbye, Resume, ResumeAnswer, Stretch, decode_ids, encode_frame,
    encode_ids,
};
pub use header::{FrameHeader, Header, Kind};
pub use hello::{Hello, Id128};
pub use limits::{
    LEAF_ALIGNMENT, Limits, MAX_AUTH_BYTES, MAX_BACKTRACE_BYTES, MAX_CHUNK_BYTES, MAX_CODE_BYTES, MAX_DEPTH,
    MAX_ERROR_BYTES, MAX_IDS, MAX_METHOD_BYTES, MAX_NAME_BYTES, MAX_OPEN_CALLS, MAX_RANK, MAX_REASON_BYTES,
};
pub use message::{CallHead, CallMetadata, Message, ResultMetadata};
pub use order::Order;
pub use preface::{FirstBytes, Preface, PrefaceError, VERSION};
pub use quick_hash::{QuickHash, QuickHasher};
pub use signature::{Leaf, LeafKind, Run, Signature, Stacked};
pub use stacked_result::StackedResult;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
// ---- End of wire format ----------------------------------------------------------------------------------------

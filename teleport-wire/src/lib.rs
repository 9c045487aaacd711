//! Arrays, trees of arrays, and the bytes that carry them between processes.
//!
//! The data model: a [`Tree`] is null, an [`Array`], a string, bytes, or a list or dict of trees. An array is
//! a [`DType`], a [`Shape`] and a [`Buffer`] of counted bytes, so that views, rows and received messages
//! share memory. [`IntoTree`] and [`FromTree`] convert Rust values, and [`tree!`] creates trees.
//!
//! The wire format is described in `FORMAT.md` of this crate. A tree becomes a [`Message`]: metadata and
//! shared payload behind frame [`Header`]s. Received metadata becomes a [`Signature`], which tells how much
//! memory the payload takes and where each part goes, and builds the tree on that memory. [`BatchLayout`]
//! places many messages of one signature in one memory, as arrays with one more axis. [`BatchResult`] sends a
//! tree of such arrays row by row.
//!
//! This crate opens no socket, reads no clock and starts no thread.
//!
//! Features, none of them on by default: `derive` (`#[derive(IntoTree, FromTree)]` for structs and enums),
//! `half` (`f16` and `bf16` as element types), `ndarray` (conversion from its arrays and views for it,
//! without a copy).
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

// Array bytes are sent as they are in memory, and the format is little-endian.
#[cfg(not(target_endian = "little"))]
compile_error!("teleport-wire sends array memory as it is, which must be little-endian");

mod format;
mod layout;
mod model;

pub use model::array::Array;
pub use model::array::error::ArrayError;
pub use model::buffer::Buffer;
pub use model::convert::{FromTree, IntoTree};
#[cfg(feature = "derive")]
#[doc(inline)]
pub use model::derive::{FromTree, IntoTree};
pub use model::dtype::numpy::ParseDTypeError;
pub use model::dtype::{DType, TimeBase, TimeUnit};
pub use model::element::{Complex, Element};
pub use model::quick_hash::{QuickHash, QuickHasher};
pub use model::rpc::Rpc;
pub use model::shape::Shape;
pub use model::text::Text;
pub use model::tree::error::{TreeError, TreePath};
pub use model::tree::key::{Key, Step};
pub use model::tree::ops::Structure;
pub use model::tree::{Dict, Tree};

pub use format::checksum::checksum;
pub use format::decode_error::DecodeError;
pub use format::decoder::{Decoder, Sink};
pub use format::encode_error::EncodeError;
pub use format::error_kind::{ErrorKind, Ran, RemoteError};
pub use format::frames::{
    Block, CallAnswer, CallState, Extent, Goodbye, Resume, ResumeAnswer, decode_ids, encode_frame, encode_ids,
};
pub use format::header::{FrameHeader, Header, Kind};
pub use format::hello::{Hello, Id128};
pub use format::limits::{
    LEAF_ALIGNMENT, Limits, MAX_AUTH_BYTES, MAX_BACKTRACE_BYTES, MAX_CHUNK_BYTES, MAX_CODE_BYTES, MAX_DEPTH,
    MAX_ERROR_BYTES, MAX_IDS, MAX_METHOD_BYTES, MAX_NAME_BYTES, MAX_OPEN_CALLS, MAX_RANK, MAX_REASON_BYTES,
};
pub use format::message::{CallHead, CallMetadata, Message, ResultMetadata};
pub use format::order::Order;
pub use format::preface::{FirstBytes, Preface, PrefaceError, VERSION};
pub use format::signature::{Leaf, LeafKind, Run, Signature};

pub use layout::batch::BatchLayout;
pub use layout::batch_result::BatchResult;

#[doc(hidden)]
pub mod __private {
    //! The functions that macros expand to. They are not part of the public interface.
    pub use crate::model::convert::{item, items};
    #[cfg(feature = "derive")]
    pub use crate::model::derive::{field, field_or_default};
    pub use crate::model::macros::{Literal, LiteralIntoTree, empty_list};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

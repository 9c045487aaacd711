#![doc = include_str!("../README.md")]
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
pub use model::quick_hash::QuickHash;
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
    MAX_ERROR_BYTES, MAX_IDS, MAX_INLINE_BYTES, MAX_METHOD_BYTES, MAX_NAME_BYTES, MAX_OPEN_CALLS, MAX_RANK,
    MAX_REASON_BYTES,
};
pub use format::message::{Draft, FrameSizes, Message};
pub use format::metadata::{CallHead, CallMetadata, ResultMetadata};
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

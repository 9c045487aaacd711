//! The errors of decoding bytes from a peer.
//!
//! Each variant is a rule of `FORMAT.md` that the bytes break. Messages contain numbers and names of fields,
//! but no text of the peer.

use crate::format::preface::PrefaceError;

/// Bytes from a peer that the format does not allow.
///
/// Refused bytes have had no effect. If the header of a frame cannot be decoded, the connection is lost,
/// since the start of the next frame is unknown.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer does not speak this format.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// The stream was refused before.
    #[error("the stream was refused before")]
    Refused,
    /// A field is longer than the remaining bytes.
    #[error("{field} needs {bytes} bytes and {remaining} are left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// The length of the field.
        bytes: u64,
        /// The number of remaining bytes.
        remaining: u64,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes follow the end of the {what}")]
    Trailing {
        /// The decoded structure.
        what: &'static str,
        /// The number of bytes.
        bytes: u64,
    },
    /// The checksum of a frame's header is wrong: bytes were changed, or the stream is out of step.
    #[error("the frame header's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    HeaderChecksum {
        /// The checksum in the header.
        found: u32,
        /// The CRC32C of the header's first 28 bytes.
        computed: u32,
    },
    /// The checksum of a frame's body is wrong.
    #[error("the frame body's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    BodyChecksum {
        /// The checksum in the header.
        found: u32,
        /// The CRC32C of the body.
        computed: u32,
    },
    /// The kind of a frame is unknown, and may not be skipped.
    #[error("unknown kind of frame {kind}, which may not be skipped")]
    UnknownKind {
        /// The number of the kind.
        kind: u8,
    },
    /// A field has a value without a meaning in this version.
    #[error("{field} has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// A field that must be zero is not.
    #[error("{field} is {value} and must be zero")]
    NotZero {
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// A field that must not be zero is.
    #[error("{field} is zero, which is never valid")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A size or count is above its limit.
    #[error("{what} is {value}, above the limit {max}")]
    TooLarge {
        /// The measured quantity: the name of the limit without `max_`, if it is one of `Limits`.
        what: &'static str,
        /// The value, or `u64::MAX` if it does not fit 64 bits.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// A frame of this kind cannot have a body of this length.
    #[error("a frame of kind {kind} cannot have a body of {length} bytes")]
    BodyLength {
        /// The number of the kind.
        kind: u8,
        /// The length.
        length: u64,
    },
    /// Text is not UTF-8.
    #[error("{field} is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// The index of the first byte that is not part of a character.
        at: u64,
    },
    /// Entries do not ascend strictly.
    #[error("{field} do not ascend strictly at entry {index}")]
    NotAscending {
        /// The entries.
        field: &'static str,
        /// The first entry that is not above the one before.
        index: u64,
    },
    /// The order of a dict's entries is not a permutation of them.
    #[error("the order of a dict with {count} entries repeats or exceeds an index at {index}")]
    NotPermutation {
        /// The number of entries of the dict.
        count: u32,
        /// The place of the wrong index in the order.
        index: u32,
    },
    /// The order is not empty although every dict is sorted.
    #[error("the order of dict entries is the sorted one throughout, which must be written as empty")]
    RedundantOrder,
    /// The memory to build a tree on has another length than the signature needs. The caller made a mistake.
    #[error("the payload's memory is {found} bytes and the signature needs {expected}")]
    MemoryLength {
        /// The length that the signature needs.
        expected: u64,
        /// The length of the memory.
        found: u64,
    },
}

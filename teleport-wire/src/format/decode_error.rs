//! Why bytes from a peer were refused.
//!
//! Each variant is one rule of `FORMAT.md` that the bytes broke. Peer's text never enters a message, only
//! numbers and the names of fields.

use crate::format::preface::PrefaceError;

/// Bytes from a peer that the format does not allow.
///
/// Nothing that was refused has had an effect. A connection whose frame headers cannot be decoded is lost,
/// since the start of the next frame is unknown.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer does not speak this format at all.
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    /// The stream was refused before: nothing that follows has a meaning.
    #[error("the stream was refused before")]
    Refused,
    /// A field is longer than what is left of the bytes that hold it.
    #[error("{field} needs {bytes} bytes and {remaining} are left")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// Bytes that it needs.
        bytes: u64,
        /// Bytes that were left.
        remaining: u64,
    },
    /// Bytes are left after the last field.
    #[error("{bytes} bytes follow the end of the {what}")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// Bytes left over.
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
    /// A kind of frame that this version does not know and that may not be skipped.
    #[error("unknown kind of frame {kind}, which may not be skipped")]
    UnknownKind {
        /// The number found.
        kind: u8,
    },
    /// A number that this version gives no meaning to.
    #[error("{field} has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number found.
        value: u64,
    },
    /// A field that must be zero is not.
    #[error("{field} is {value} and must be zero")]
    NotZero {
        /// The field.
        field: &'static str,
        /// The number found.
        value: u64,
    },
    /// A field that may not be zero is.
    #[error("{field} is zero, which is never valid")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A size or count is above its limit.
    #[error("{what} is {value}, above the limit {max}")]
    TooLarge {
        /// What was measured: the name of the limit without `max_`, where it is one of `Limits`.
        what: &'static str,
        /// The size found; `u64::MAX` where it does not fit 64 bits.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// A frame's length is one that its kind cannot have.
    #[error("a frame of kind {kind} cannot have a body of {length} bytes")]
    BodyLength {
        /// The kind's number.
        kind: u8,
        /// The length found.
        length: u64,
    },
    /// Text is not UTF-8.
    #[error("{field} is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The field.
        field: &'static str,
        /// Index of the first byte that is not part of a character.
        at: u64,
    },
    /// Entries that must ascend strictly do not.
    #[error("{field} do not ascend strictly at entry {index}")]
    NotAscending {
        /// What must ascend.
        field: &'static str,
        /// The first entry that is not above the one before.
        index: u64,
    },
    /// The order of a dict's entries is no permutation of them.
    #[error("the order of a dict with {count} entries repeats or exceeds an index at {index}")]
    NotPermutation {
        /// Entries of the dict.
        count: u32,
        /// Where in the order the wrong index stands.
        index: u32,
    },
    /// The order says that every dict is sorted, which must be said by leaving it empty.
    #[error("the order of dict entries is the sorted one throughout, which must be written as empty")]
    RedundantOrder,
    /// The memory given to build a tree in is not what its signature asks for: the caller's mistake.
    #[error("the payload's memory is {found} bytes and the signature needs {expected}")]
    MemoryLength {
        /// Bytes that the signature needs.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
}

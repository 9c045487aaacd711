//! The errors of encoding a message.

/// A message that its receiver would refuse. Nothing of it was sent, and the connection is intact.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The payload takes more memory than the receiver allows.
    #[error(
        "the message takes {bytes} bytes and its receiver accepts {max_bytes}: split it, or raise `max_message_bytes` there"
    )]
    TooLarge {
        /// The size of the payload in the receiver's memory, with each leaf at a multiple of 64. It is
        /// `u64::MAX` if it does not fit 64 bits.
        bytes: u64,
        /// The receiver's limit.
        max_bytes: u64,
    },
    /// Keys, shapes and structure take more bytes than the receiver allows.
    #[error(
        "keys, shapes and structure take at least {bytes} bytes and their receiver accepts {max_bytes}: stack small arrays into one, shorten keys, or raise `max_metadata_bytes` there"
    )]
    MetadataTooLarge {
        /// A lower bound of the size of the metadata.
        bytes: u64,
        /// The receiver's limit.
        max_bytes: u64,
    },
    /// Lists and dicts are nested deeper than the receiver allows.
    #[error(
        "the tree nests deeper than its receiver's limit of {max_depth} lists and dicts: flatten it, or raise `max_depth` there"
    )]
    TooDeep {
        /// The receiver's limit.
        max_depth: u32,
    },
    /// The tree has more nodes than the receiver allows.
    #[error(
        "the tree has at least {nodes} nodes and its receiver accepts {max_nodes}: stack small arrays into one, or raise `max_nodes` there"
    )]
    TooManyNodes {
        /// A lower bound of the number of nodes.
        nodes: u64,
        /// The receiver's limit.
        max_nodes: u32,
    },
    /// An array has more axes than the format allows.
    #[error("an array has rank {rank} and the format allows {max_rank}: reshape it")]
    Rank {
        /// The number of axes of the array.
        rank: usize,
        /// The limit.
        max_rank: usize,
    },
    /// A method's name is empty or too long.
    #[error("the method name has {bytes} bytes and must have 1 to {max_bytes}")]
    MethodName {
        /// The length of the name.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

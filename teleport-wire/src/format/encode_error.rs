//! Why a message cannot be sent: nothing of it has left, and the connection goes on.

/// A message that its receiver would refuse, found before any of it is sent.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The payload takes more memory than the receiver ever gives to one message.
    #[error(
        "the message takes {bytes} bytes and its receiver accepts {max_bytes}: split it, or raise `max_message_bytes` there"
    )]
    TooLarge {
        /// Bytes of memory that it takes at the receiver, with each leaf at a multiple of 64; `u64::MAX` if
        /// they do not fit 64 bits.
        bytes: u64,
        /// The receiver's limit.
        max_bytes: u64,
    },
    /// Keys, shapes and structure take more than the receiver accepts.
    #[error(
        "keys, shapes and structure take at least {bytes} bytes and their receiver accepts {max_bytes}: stack small arrays into one, shorten keys, or raise `max_metadata_bytes` there"
    )]
    MetadataTooLarge {
        /// Bytes of metadata, at least.
        bytes: u64,
        /// The receiver's limit.
        max_bytes: u64,
    },
    /// Lists and dicts are nested deeper than the receiver accepts.
    #[error(
        "the tree nests deeper than its receiver's limit of {max_depth} lists and dicts: flatten it, or raise `max_depth` there"
    )]
    TooDeep {
        /// The receiver's limit.
        max_depth: u32,
    },
    /// The tree has more nodes than the receiver accepts.
    #[error(
        "the tree has at least {nodes} nodes and its receiver accepts {max_nodes}: stack small arrays into one, or raise `max_nodes` there"
    )]
    TooManyNodes {
        /// Nodes, at least.
        nodes: u64,
        /// The receiver's limit.
        max_nodes: u32,
    },
    /// An array has more axes than the format allows.
    #[error("an array has rank {rank} and the format allows {max_rank}: reshape it")]
    Rank {
        /// Axes of the array.
        rank: usize,
        /// The limit.
        max_rank: usize,
    },
    /// A method's name is empty or too long.
    #[error("the method name has {bytes} bytes and must have 1 to {max_bytes}")]
    MethodName {
        /// Its length.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

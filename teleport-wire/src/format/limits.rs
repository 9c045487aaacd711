//! The limits on what a peer can make this process do.
//!
//! The constants are part of the format, so a sender knows them. Each side chooses its own [`Limits`] and
//! sends them in its hello. Every limit is checked before the memory that it bounds is allocated.

/// Payload bytes in one data frame. A system call costs nothing beside a chunk this long (measured: the same
/// rate as without chunks), and a small call waits less than a millisecond for it.
pub const MAX_CHUNK_BYTES: u64 = 1 << 20;

/// Bytes of a payload in the same frame as its metadata. A receiver copies it, so a longer one, which is read
/// directly into its memory, is cheaper in a frame of its own.
pub const MAX_INLINE_BYTES: u64 = 16 << 10;

/// Axes of one array. NumPy allowed 32 for two decades.
pub const MAX_RANK: usize = 32;

/// Lists and dicts around one node, whatever [`Limits`] say. A stack of 2 MiB holds this recursion several
/// times.
pub const MAX_DEPTH: u32 = 256;

/// Bytes of a method's name. A path of modules fits.
pub const MAX_METHOD_BYTES: usize = 256;

/// Bytes of the name in a hello, which logs show.
pub const MAX_NAME_BYTES: usize = 256;

/// Bytes of the authentication in a hello. A signed token fits.
pub const MAX_AUTH_BYTES: usize = 4096;

/// Bytes of an error's application code.
pub const MAX_CODE_BYTES: usize = 256;

/// Bytes of an error's message. The encoder cuts longer ones.
pub const MAX_ERROR_BYTES: usize = 16 << 10;

/// Bytes of an error's backtrace. The encoder cuts longer ones.
pub const MAX_BACKTRACE_BYTES: usize = 32 << 10;

/// Bytes of the reason in a goodbye: one line of a log.
pub const MAX_REASON_BYTES: usize = 1 << 10;

/// Ids in one grant or acknowledgement. A sender with more ids writes several frames.
pub const MAX_IDS: usize = 1024;

/// Open calls of one connection, whatever a hello says. One resume frame lists them all.
pub const MAX_OPEN_CALLS: u32 = 1 << 16;

/// The alignment in a receiver's memory of each array, string and bytes: a cache line, and the width of the
/// widest vector instructions.
pub const LEAF_ALIGNMENT: u64 = 64;

/// Length of one record of a resume or its answer.
pub(crate) const RECORD_BYTES: u64 = 16;

/// Length of the longest resume, which lists every open call.
pub(crate) const MAX_RESUME_BYTES: u64 = 16 + MAX_OPEN_CALLS as u64 * RECORD_BYTES;

/// The limits of one side on the messages that it receives. Each side checks what it sends against the
/// other's limits.
///
/// ```
/// use teleport_wire::Limits;
///
/// let limits = Limits { max_message_bytes: 256 << 20, ..Limits::default() };
/// assert_eq!(limits.max_nodes, 65_536);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the metadata of a call or result: method, structure, dtypes and shapes. Metadata is held
    /// whole before it is decoded, so this bounds the cost of one header. Default 1 MiB.
    pub max_metadata_bytes: u32,
    /// Lists and dicts around any one node, at most [`MAX_DEPTH`]. Building and dropping a tree recurse, so
    /// this bounds the stack. A tree of one leaf has depth 0. Default 64, which takes a few KiB.
    pub max_depth: u32,
    /// Nodes of a tree: nulls, arrays, strings, bytes, lists and dicts. Bounds the structures beside the
    /// payload, about 100 bytes each. Default 65,536.
    pub max_nodes: u32,
    /// Bytes of memory that a message's payload takes at its receiver, with each leaf at a multiple of
    /// [`LEAF_ALIGNMENT`]. It also bounds each array with its sizes of 0 taken as 1, so that an array without
    /// bytes cannot have endless rows. Default 16 GiB, which is more than any single array in practice.
    pub max_message_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_metadata_bytes: 1 << 20, max_depth: 64, max_nodes: 1 << 16, max_message_bytes: 16 << 30 }
    }
}

// Lists of ids and errors are shorter than a chunk, so control frames never delay more than data does.
const _: () = assert!(
    (MAX_IDS * 8) as u64 <= MAX_CHUNK_BYTES
        && (MAX_CODE_BYTES + MAX_ERROR_BYTES + MAX_BACKTRACE_BYTES + 16) as u64 <= MAX_CHUNK_BYTES
);
const _: () = assert!(LEAF_ALIGNMENT.is_power_of_two());

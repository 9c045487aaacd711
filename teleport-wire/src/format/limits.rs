//! The numbers that bound what a peer can make this process do.
//!
//! Constants are part of the format: both sides know them, so that a sender refuses what its peer would
//! refuse. [`Limits`] are each side's own choice and travel in its hello. Every one is checked before the
//! memory that it bounds is allocated.

/// Payload bytes in one data frame: long enough that the system call around it costs nothing (measured:
/// the same rate as no chunks at all), short enough that a small call waits less than a millisecond for it.
pub const MAX_CHUNK_BYTES: u64 = 1 << 20;

/// Dimensions of one array. NumPy allowed 32 for two decades, and nobody's data asked for more.
pub const MAX_RANK: usize = 32;

/// Lists and dicts around one node, whatever [`Limits`] say: a thread's stack of 2 MiB holds that recursion
/// several times over.
pub const MAX_DEPTH: u32 = 256;

/// Bytes of a method's name: a path of modules fits, a document does not.
pub const MAX_METHOD_BYTES: usize = 256;

/// Bytes of the name by which a peer calls itself in its hello; logs print it.
pub const MAX_NAME_BYTES: usize = 256;

/// Bytes of a hello's authentication: a signed token fits.
pub const MAX_AUTH_BYTES: usize = 4096;

/// Bytes of an error's application code.
pub const MAX_CODE_BYTES: usize = 256;

/// Bytes of an error's message; the encoder cuts what is longer.
pub const MAX_ERROR_BYTES: usize = 16 << 10;

/// Bytes of an error's backtrace; the encoder cuts what is longer.
pub const MAX_BACKTRACE_BYTES: usize = 32 << 10;

/// Bytes of the reason in a goodbye: one line of a log.
pub const MAX_REASON_BYTES: usize = 1 << 10;

/// Ids in one grant or acknowledgement. A sender with more writes several frames.
pub const MAX_IDS: usize = 1024;

/// Calls that one connection may have open, whatever a hello says. A resume lists them all in one frame.
pub const MAX_OPEN_CALLS: u32 = 1 << 16;

/// Bytes in a receiver's memory at whose multiples each array, string and bytes leaf starts: a cache line,
/// and what the widest vector instructions load at once.
pub const LEAF_ALIGNMENT: u64 = 64;

/// What one side accepts in a message. Each side tells the other its own, and checks what it sends against
/// the other's.
///
/// ```
/// use teleport_wire::Limits;
///
/// let limits = Limits { max_message_bytes: 256 << 20, ..Limits::default() };
/// assert_eq!(limits.max_nodes, 65_536);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a call's or result's metadata: method, structure, dtypes and shapes. It is held whole before
    /// it is understood, so this bounds what one header can cost. Default 1 MiB.
    pub max_metadata_bytes: u32,
    /// Lists and dicts around any one node, at most [`MAX_DEPTH`]. Building and dropping a tree recurse, so
    /// this bounds the stack. A bare leaf has depth 0. Default 64, which takes a few KiB.
    pub max_depth: u32,
    /// Nodes of a tree, of every kind: nulls, arrays, strings, bytes, lists and dicts. It bounds the
    /// structures built beside the payload, about 100 bytes each. Default 65,536.
    pub max_nodes: u32,
    /// Bytes of memory that a message's payload takes at its receiver, with each leaf at a multiple of
    /// [`LEAF_ALIGNMENT`]; also what any one array would take if its sizes of 0 were 1, so that an array
    /// without bytes cannot have rows without end. Default 16 GiB: above any single array people send, below what a machine would
    /// die of without its budget.
    pub max_message_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_metadata_bytes: 1 << 20, max_depth: 64, max_nodes: 1 << 16, max_message_bytes: 16 << 30 }
    }
}

// A batch of ids is shorter than a chunk, and so is an error: control frames never delay more than data does.
const _: () = assert!((MAX_IDS * 8) as u64 <= MAX_CHUNK_BYTES);
const _: () =
    assert!((MAX_CODE_BYTES + MAX_ERROR_BYTES + MAX_BACKTRACE_BYTES + 16) as u64 <= MAX_CHUNK_BYTES);
const _: () = assert!(LEAF_ALIGNMENT.is_power_of_two());

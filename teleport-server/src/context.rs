//! What a function may ask about the call that it runs for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Array, Element, Shape};
use teleport_transport::{MemoryError, Pool};

use crate::call::OpenCall;

/// The call that a function runs for. Clones share it and may outlive the call.
///
/// ```
/// use teleport_server::{BoxError, Context, Methods};
/// use teleport_server::wire::{Array, Tree, tree};
///
/// fn act(mut x: Tree, cx: Context) -> Result<Tree, BoxError> {
///     let image: Array = x.take("image")?; // u8 [n, 64, 64, 3]
///     let mut action = cx.alloc::<f32>([image.shape()[0], 7])?;
///     action.as_mut_slice::<f32>()?.fill(0.0);
///     if cx.is_cancelled() {
///         return Err(format!("{} has gone", cx.caller()).into());
///     }
///     Ok(tree!({"action": action}))
/// }
/// let methods = Methods::new().register("act", act);
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    call: Arc<OpenCall>,
}

impl Context {
    pub(crate) fn new(call: Arc<OpenCall>) -> Context {
        Context { call }
    }

    /// The name that the client gave itself, or its address where it gave none.
    pub fn caller(&self) -> &str {
        self.call.peer.name(&self.call.link)
    }

    /// Where the client is: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn caller_address(&self) -> &str {
        self.call.link.peer_address()
    }

    /// The name that the function is called by.
    pub fn method(&self) -> &str {
        &self.call.entry.name
    }

    /// How long the caller still waits; zero when its time is over, none if it waits for as long as it takes.
    pub fn time_left(&self) -> Option<Duration> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether nobody waits for the result any more: the caller withdrew the call or lost its connection, or the server
    /// is closing and its time for that is over. A long function that asks from time to time can end early; what it
    /// returns once it was told so does not matter, and an error is no failure that `check` or the log tells of.
    ///
    /// An inline method keeps its thread from hearing of any of this: ask on a worker.
    pub fn is_cancelled(&self) -> bool {
        self.call.tell_cancelled()
    }

    /// An array in warm memory of the process's pool, from where a result is sent without a copy. Its content is
    /// whatever was there before, save that bools are false; it goes back to the pool with its last owner.
    ///
    /// # Errors
    /// If the system has no memory for it, or the shape's size overflows.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        Pool::global().alloc_array::<T>(shape)
    }
}

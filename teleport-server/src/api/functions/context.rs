//! Information for a function about the call that it runs for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Array, Element, Shape};
use teleport_transport::{MemoryError, Pool};

use crate::call::job::BatchCalls;
use crate::call::open_call::OpenCall;

/// The call that a function runs for, or the calls of its batch. Clones share it and may outlive the call.
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
    calls: Calls,
}

#[derive(Clone, Debug)]
enum Calls {
    One(Arc<OpenCall>),
    /// Never empty.
    Batch(Arc<BatchCalls>),
}

impl Context {
    pub(crate) fn new(call: Arc<OpenCall>) -> Context {
        Context { calls: Calls::One(call) }
    }

    pub(crate) fn of_batch(calls: Arc<BatchCalls>) -> Context {
        Context { calls: Calls::Batch(calls) }
    }

    fn calls(&self) -> &[Arc<OpenCall>] {
        match &self.calls {
            Calls::One(call) => std::slice::from_ref(call),
            Calls::Batch(batch) => &batch.calls,
        }
    }

    /// Returns the number of calls that the function runs for: 1, or the number of calls in the
    /// [batch](crate::Method::batched), which are the first rows of its arrays.
    pub fn rows(&self) -> usize {
        self.calls().len()
    }

    /// Returns the number of rows of the batch's arrays: [`rows`](Context::rows), or more with
    /// [`Batch::pad_to`](crate::Batch::pad_to). The arrays of the result need the same number.
    pub fn rows_padded(&self) -> usize {
        match &self.calls {
            Calls::One(_) => 1,
            Calls::Batch(batch) => batch.padded,
        }
    }

    /// Returns the call of one row.
    ///
    /// # Panics
    /// Panics if `index` is not less than [`rows`](Context::rows).
    pub fn row(&self, index: usize) -> CallOfRow<'_> {
        CallOfRow { call: &self.calls()[index] }
    }

    fn first(&self) -> &OpenCall {
        &self.calls()[0]
    }

    /// Returns the name of the client, or its address if it has no name. In a batch, the client of the first
    /// row.
    pub fn caller(&self) -> &str {
        self.row(0).caller()
    }

    /// Returns the address of the client: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process. In a
    /// batch, the client of the first row.
    pub fn caller_address(&self) -> &str {
        self.row(0).caller_address()
    }

    /// Returns the name that the function was called by.
    pub fn method(&self) -> &str {
        &self.first().method().name
    }

    /// Returns how long the caller still waits: zero after its deadline, and `None` without a deadline. In a
    /// batch, the shortest time of all.
    pub fn time_left(&self) -> Option<Duration> {
        let earliest = self.calls().iter().filter_map(|call| call.deadline).min();
        earliest.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns true if nobody waits for the result any more: the caller withdrew the call or lost its
    /// connection, or the server is closing and its time to close is over. In a batch, returns true only if
    /// no caller waits.
    ///
    /// A long function can check this from time to time to end early. Its result is then ignored, and an
    /// error is neither logged nor returned by `check`. An inline method cannot learn that its caller is
    /// gone, because it runs on the thread that would receive that: use a worker.
    pub fn is_cancelled(&self) -> bool {
        self.calls().iter().all(|call| call.tell_cancelled())
    }

    /// Allocates an array in warm memory of the process's pool. A result is sent from there without a copy.
    /// The content is whatever was there before, except that bools are false. The memory returns to the pool
    /// with its last owner.
    ///
    /// # Errors
    /// Fails if the system has no memory for it, or the shape's size overflows.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        Pool::global().alloc_array::<T>(shape)
    }
}

/// The call that a row of a batch belongs to, from [`Context::row`].
///
/// ```
/// use std::time::Duration;
/// use teleport_server::{Batch, Context, Method, Methods};
/// use teleport_server::wire::Tree;
///
/// fn act(x: Tree, cx: Context) -> Tree {
///     let is_urgent = |left: Duration| left < Duration::from_millis(5);
///     let urgent = (0..cx.rows()).filter(|row| cx.row(*row).time_left().is_some_and(is_urgent));
///     println!("{} of {} calls are urgent", urgent.count(), cx.rows());
///     x
/// }
/// let methods = Methods::new().register("act", Method::batched(Batch::up_to(32), act));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CallOfRow<'a> {
    call: &'a OpenCall,
}

impl<'a> CallOfRow<'a> {
    /// Returns the name of the client, or its address if it has no name.
    pub fn caller(&self) -> &'a str {
        &self.call.caller.name
    }

    /// Returns the address of the client: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn caller_address(&self) -> &'a str {
        self.call.link.peer_address()
    }

    /// Returns how long the caller still waits: zero after its deadline, and `None` without a deadline.
    pub fn time_left(&self) -> Option<Duration> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns true if the caller no longer waits: it withdrew the call or lost its connection, or the server
    /// is closing and its time to close is over. Its row of the result is then ignored.
    pub fn is_cancelled(&self) -> bool {
        self.call.tell_cancelled()
    }
}

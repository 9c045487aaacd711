//! What a function may ask about the call that it runs for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Array, Element, Shape};
use teleport_transport::{MemoryError, Pool};

use crate::call::OpenCall;
use crate::exec::job::BatchCalls;

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
    /// Never none.
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

    /// How many calls it runs for: 1, or those of the [batch](crate::Method::batched), which are the first rows of its arrays.
    pub fn rows(&self) -> usize {
        self.calls().len()
    }

    /// How many rows the arrays of the batch have, and those of the result must have: [`rows`](Context::rows), or more
    /// with [`Batch::pad_to`](crate::Batch::pad_to).
    pub fn rows_padded(&self) -> usize {
        match &self.calls {
            Calls::One(_) => 1,
            Calls::Batch(batch) => batch.padded,
        }
    }

    /// Who made the call of one row, and how long it still waits.
    ///
    /// # Panics
    /// If there are not that many [`rows`](Context::rows).
    pub fn row(&self, index: usize) -> CallOfRow<'_> {
        CallOfRow { call: &self.calls()[index] }
    }

    fn first(&self) -> &OpenCall {
        &self.calls()[0]
    }

    /// The name that the client gave itself, or its address where it gave none. In a batch that of the first row.
    pub fn caller(&self) -> &str {
        self.row(0).caller()
    }

    /// Where the client is: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process. In a batch that of the first row.
    pub fn caller_address(&self) -> &str {
        self.row(0).caller_address()
    }

    /// The name that the function is called by.
    pub fn method(&self) -> &str {
        &self.first().method.name
    }

    /// How long the caller still waits; zero when its time is over, none if it waits for as long as it takes. In a batch, the
    /// least of all.
    pub fn time_left(&self) -> Option<Duration> {
        let earliest = self.calls().iter().filter_map(|call| call.deadline).min();
        earliest.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether nobody waits for the result any more: the caller withdrew the call or lost its connection, or the server
    /// is closing and its time for that is over. A long function that asks from time to time can end early; what it
    /// returns once it was told so does not matter, and an error is no failure that `check` or the log tells of.
    ///
    /// In a batch: whether none of its callers waits any more.
    ///
    /// An inline method keeps its thread from hearing of any of this: ask on a worker.
    pub fn is_cancelled(&self) -> bool {
        self.calls().iter().all(|call| call.tell_cancelled())
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

/// The call that a row of a batch belongs to, from [`Context::row`].
///
/// ```
/// use std::time::Duration;
/// use teleport_server::{Batch, Context, Method, Methods};
/// use teleport_server::wire::Tree;
///
/// fn act(x: Tree, cx: Context) -> Tree {
///     let hurried = |row: &usize| cx.row(*row).time_left().is_some_and(|left| left < Duration::from_millis(5));
///     println!("{} of {} calls are in a hurry", (0..cx.rows()).filter(hurried).count(), cx.rows());
///     x
/// }
/// let methods = Methods::new().register("act", Method::batched(Batch::up_to(32), act));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CallOfRow<'a> {
    call: &'a OpenCall,
}

impl<'a> CallOfRow<'a> {
    /// The name that the client gave itself, or its address where it gave none.
    pub fn caller(&self) -> &'a str {
        &self.call.reply.caller.name
    }

    /// Where the client is: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn caller_address(&self) -> &'a str {
        self.call.reply.link.peer_address()
    }

    /// How long the caller still waits; zero when its time is over, none if it waits for as long as it takes.
    pub fn time_left(&self) -> Option<Duration> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether it waits no more: it withdrew the call or lost its connection, or the server is closing and its time for that
    /// is over. Its row of the result does not matter then.
    pub fn is_cancelled(&self) -> bool {
        self.call.tell_cancelled()
    }
}

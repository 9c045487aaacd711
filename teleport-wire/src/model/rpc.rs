//! Method names with types: one constant is the contract between a method's server and its clients.

use std::fmt;
use std::marker::PhantomData;

/// A method's name with the types of its arguments and its result.
///
/// A server registers it, a client calls it, and the compiler checks the types of both. The bytes of a
/// call are the same as with a plain name.
///
/// ```
/// use teleport_wire::{Array, Rpc};
///
/// const NORM: Rpc<Array, f64> = Rpc::new("norm");
/// assert_eq!(NORM.name(), "norm");
/// assert_eq!(String::from(NORM), "norm");
/// ```
pub struct Rpc<A, R> {
    name: &'static str,
    /// A function type neither owns nor borrows its types, so an `Rpc` is always `Send` and `Sync`.
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Rpc<A, R> {
    /// Creates an `Rpc` for the method `name`, of 1 to [`MAX_METHOD_BYTES`](crate::MAX_METHOD_BYTES) bytes.
    pub const fn new(name: &'static str) -> Rpc<A, R> {
        Rpc { name, types: PhantomData }
    }

    /// Returns the method's name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// Returns the method's name.
impl<A, R> From<Rpc<A, R>> for String {
    fn from(rpc: Rpc<A, R>) -> String {
        rpc.name.to_owned()
    }
}

impl<A, R> Clone for Rpc<A, R> {
    fn clone(&self) -> Rpc<A, R> {
        *self
    }
}

impl<A, R> Copy for Rpc<A, R> {}

impl<A, R> fmt::Debug for Rpc<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rpc").field(&self.name).finish()
    }
}

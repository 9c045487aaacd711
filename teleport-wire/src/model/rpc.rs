//! Names with types: one constant is the contract of a method's server and its clients.

use std::fmt;
use std::marker::PhantomData;

/// A method's name with the types of its arguments and its result.
///
/// A server registers it, a client calls it, and the compiler holds both to the types. It is a name and nothing else:
/// what travels is the same as without it.
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
    /// Neither owns nor borrows them, so it may be sent and shared whatever they are.
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Rpc<A, R> {
    /// The method called `name`, which has 1 to [`MAX_METHOD_BYTES`](crate::MAX_METHOD_BYTES) bytes.
    pub const fn new(name: &'static str) -> Rpc<A, R> {
        Rpc { name, types: PhantomData }
    }

    /// The method's name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// The name alone, for whoever takes names as strings.
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

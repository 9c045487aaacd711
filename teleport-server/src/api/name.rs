//! What a method may be registered under: a name, or a name with types that the compiler holds the function to.
//!
//! The form of function that [`IntoMethod`](crate::IntoMethod) infers says what it takes and gives, so the check is a
//! matter of which impls are there: a string takes every form, an [`Rpc`] those of its own types.

use teleport_transport::wire::Rpc;

use crate::api::context::Context;
use crate::api::method::{Fallible, Plain};

/// A method's name: a string, or an [`Rpc<A, R>`](Rpc), under which a function is registered only if it takes `A` and
/// returns `R` or a `Result` of it.
///
/// A [`Method`](crate::Method) has forgotten the types of its function, so it can be registered under any name.
///
/// `Form` is inferred.
#[diagnostic::on_unimplemented(
    message = "this function cannot be registered under `{Self}`",
    label = "this has other types, or is no name",
    note = "a function under `Rpc<A, R>` takes `A` or `(A, Context)`, and returns `R` or a `Result` of it; to register one \
            that takes or gives a `Tree` instead, put it into `Method::new`"
)]
pub trait MethodName<Form> {
    /// The name.
    fn into_name(self) -> String;
}

impl<Form> MethodName<Form> for &str {
    fn into_name(self) -> String {
        self.to_owned()
    }
}

impl<Form> MethodName<Form> for &String {
    fn into_name(self) -> String {
        self.clone()
    }
}

impl<Form> MethodName<Form> for String {
    fn into_name(self) -> String {
        self
    }
}

/// A [`Method`](crate::Method), whose types are not known.
impl<A, R> MethodName<()> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R> MethodName<(fn(A) -> R, Plain)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R> MethodName<(fn(A, Context) -> R, Plain)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R, E> MethodName<(fn(A) -> Result<R, E>, Fallible)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}

impl<A, R, E> MethodName<(fn(A, Context) -> Result<R, E>, Fallible)> for Rpc<A, R> {
    fn into_name(self) -> String {
        self.into()
    }
}
